"""Punctuality of the control loop on the simulated cube in real time, alone and beside a learner.

The policy has random weights of the usual size: it takes its time, and its actions do not matter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.bench.networks import learning
from benchmarks.bench.timing import Figures, Group, Setting
from serfn.cli.robot.terminal import SWITCH_S
from serfn.policies import FlowPolicyConfig, make_policy
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

CHUNK, CONTROL_HZ, EPISODE_STEPS = 8, 20.0, 400
MODES = {"asynchronous": (2, True), "synchronous": (0, True), "asynchronous, ordinary priority": (2, False)}
"""Steps by which a decision is asked for ahead, and whether real-time priority is."""

NICENESS = 10
"""That of a session's learner."""

_BEGUN = "begun\n"


def control_loop(setting: Setting) -> dict[str, Group]:
    """Return misses and jitter; the system may refuse real-time priority to an ordinary user."""
    group: Group = {}
    before = sys.getswitchinterval()
    # As `serfn robot run` does.
    sys.setswitchinterval(SWITCH_S)
    try:
        _fill(group, setting)
    finally:
        sys.setswitchinterval(before)
    return {f"control loop, cube at {CONTROL_HZ:g} Hz, jitter in ms": group}


def _fill(group: Group, setting: Setting) -> None:
    for beside in ("alone", "beside a learner"):
        with _learner(beside != "alone"):
            for mode, (lead_steps, real_time) in list(MODES.items())[: 1 if setting.quick else None]:
                seconds = 1.0 if setting.quick else setting.seconds
                group[f"{mode}, {beside}"] = _measure(seconds, lead_steps, real_time)


def _measure(seconds: float, lead_steps: int, real_time: bool) -> Figures:
    clock, env = MonotonicClock(), make_env("serfn/OrcaCubeRotation-v0")
    task = task_spec(env)
    policy = make_policy(FlowPolicyConfig(), task.observation.dim, task.action.dim, CHUNK)
    actor = BestOfNActor(policy, None, task, ActingConfig(candidates=1))
    actor.prepare()
    robot = SimulatedRobot(env, clock, "simulated:cube")
    supervisor = SafetySupervisor(robot.info, default_limits(robot.info), CONTROL_HZ)
    supervised = SupervisedRobot(robot, supervisor, clock, CONTROL_HZ, lambda _: None)
    inference, sink = ThreadedInference(actor, clock, real_time=real_time), QueuedSink(_Nowhere())
    try:
        with supervised:
            config = LoopConfig(EPISODE_STEPS, ExecutionConfig(lead_steps=lead_steps), real_time=real_time)
            loop = ControlLoop(supervised, inference, sink, config)
            episode = 0
            while loop.timing.summary().steps < seconds * CONTROL_HZ:
                robot.reset_scene(episode)
                loop.run_episode(EpisodeHeader(episode, robot.name, seed=episode))
                episode += 1
    finally:
        inference.close()
        sink.close()
        env.close()
    summary = loop.timing.summary()
    return {**asdict(summary), "load": os.getloadavg()[0]}


@contextmanager
def _learner(wanted: bool) -> Iterator[None]:
    """Keep a process that learns beside the body.

    Raises:
        RuntimeError: It does not begin: the figures would be those of a loop alone.
    """
    if not wanted:
        yield
        return
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *(path or os.getcwd() for path in sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != _BEGUN:
            raise RuntimeError(f"the learner beside the control loop ended with status {process.wait()}")
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the learner beside the control loop ended with status {process.poll()}")
    finally:
        process.kill()
        process.wait()


def _learn() -> None:
    parent = os.getppid()
    os.nice(NICENESS)
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    for update in learning():
        if update == 0:
            os.write(1, _BEGUN.encode())
        if os.getppid() != parent:
            return


class _Nowhere:
    """A sink that keeps nothing."""

    def begin(self, header: EpisodeHeader) -> None:
        """Keep nothing."""

    def step(self, record: StepRecord) -> None:
        """Keep nothing."""

    def end(self, ending: EpisodeEnding) -> None:
        """Keep nothing."""


if __name__ == "__main__":
    _learn()
