"""How punctual the control loop is on the simulated cube in real time, with a flow policy deciding beside it.

The policy has random weights of the usual size: it takes its time, and its actions do not matter.

    OMP_NUM_THREADS=1 python benchmarks/bench_control_loop.py --seconds 60 --json control_loop.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from serfn.flows import FlowConfig
from serfn.policies import FlowPolicyConfig, make_policy
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.robot.adapters.simulated import SimulatedRobot
from serfn.robot.chunk_buffer import ExecutionConfig
from serfn.robot.clock import MonotonicClock
from serfn.robot.control_loop import ControlLoop, LoopConfig
from serfn.robot.inference import ThreadedInference
from serfn.robot.limits import default_limits
from serfn.robot.recording import EpisodeEnding, EpisodeHeader, QueuedSink, StepRecord
from serfn.robot.safety import SafetySupervisor
from serfn.robot.supervised import SupervisedRobot
from serfn.rollout.environments import make_env, task_spec
from serfn.training.acting import ActingConfig, BestOfNActor

CHUNK_SIZE = 8
EPISODE_STEPS = 400
MODES = ("synchronous", "asynchronous")
EDGES_MS = np.array([0, 0.1, 0.25, 0.5, 1, 2, 5, 10, 25, np.inf])


class Nowhere:
    """A sink that keeps nothing."""

    def begin(self, header: EpisodeHeader) -> None:
        """Keep nothing."""

    def step(self, record: StepRecord) -> None:
        """Keep nothing."""

    def end(self, ending: EpisodeEnding) -> None:
        """Keep nothing."""


ROWS = (
    "steps",
    "missed",
    "jitter_p50_ms",
    "jitter_p99_ms",
    "jitter_max_ms",
    "late_p99_ms",
    "busy_p50_ms",
    "busy_p99_ms",
    "control_thread_cpu",
    "load_average",
)


def measure(seconds: float, control_hz: float, mode: str, real_time: bool) -> dict[str, object]:
    """Run episodes for `seconds` of control and return the figures."""
    clock, env = MonotonicClock(), make_env("serfn/OrcaCubeRotation-v0")
    task = task_spec(env)
    network = FlowPolicyConfig(FlowConfig(couplings=4, width=192), encoder=MLPEncoderConfig(width=192))
    policy = make_policy(network, task.observation.dim, task.action.dim, CHUNK_SIZE)
    actor = BestOfNActor(policy, None, task, ActingConfig(candidates=1))
    robot = SimulatedRobot(env, clock, "simulated:cube")
    supervisor = SafetySupervisor(robot.info, default_limits(robot.info), control_hz)
    supervised = SupervisedRobot(robot, supervisor, clock, control_hz, lambda _: None)
    inference, sink = ThreadedInference(actor, clock, real_time=real_time), QueuedSink(Nowhere())
    execution = ExecutionConfig(lead_steps=2 if mode == "asynchronous" else 0)
    begin_s, busy_s = time.monotonic(), time.thread_time()
    try:
        with supervised:
            config = LoopConfig(EPISODE_STEPS, execution, real_time=real_time)
            loop = ControlLoop(supervised, inference, sink, config)
            episode = 0
            while loop.timing.summary().steps < seconds * control_hz:
                robot.reset_scene(episode)
                loop.run_episode(EpisodeHeader(episode, robot.name, seed=episode))
                episode += 1
    finally:
        inference.close()
        sink.close()
        env.close()
    return {
        **asdict(loop.timing.summary()),
        "miss_rate": loop.timing.summary().miss_rate,
        "jitter_histogram": dict(
            zip(
                (f">= {edge:g} ms" for edge in EDGES_MS[:-1]),
                loop.timing.histogram(EDGES_MS).tolist(),
                strict=True,
            )
        ),
        "control_thread_cpu": (time.thread_time() - busy_s) / (time.monotonic() - begin_s),
        "safety": dict(supervisor.counts),
        "chunks": dict(loop.counts),
        "load_average": os.getloadavg()[0],
    }


def show(results: dict[str, dict[str, object]], console: Console) -> None:
    table = Table(title="Control loop on the simulated cube")
    table.add_column("")
    for mode in results:
        table.add_column(mode, justify="right")
    for row in ROWS:
        table.add_row(row, *(f"{result[row]:.4g}" for result in results.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="control time per mode")
    parser.add_argument("--control-hz", type=float, default=20.0, help="commands per second")
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--real-time", action="store_true", help="ask for real-time priority")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    modes = MODES if options.mode == "both" else (options.mode,)
    results = {mode: measure(options.seconds, options.control_hz, mode, options.real_time) for mode in modes}
    console = Console()
    show(results, console)
    if options.json:
        folder = Path(__file__).parent
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        about = {"machine": platform.platform(), "cores": os.cpu_count(), "commit": git.stdout.strip()}
        options.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
