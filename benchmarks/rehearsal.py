"""Rehearsal of fine-tuning on hardware: the simulated cube in real time, the learner in a second process.

Reports what a laboratory would ask: deadline misses and jitter of the commands, episodes, updates, policy
versions that acted, and whether every recorded step is in the store afterwards.

    OMP_NUM_THREADS=1 python benchmarks/rehearsal.py --policy runs/cube --minutes 15 --json rehearsal.json

`--policy` is the folder of a training run (`serfn train --task cube`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from serfn.data.store.check import check_store
from serfn.data.store.store import EpisodeStore
from serfn.robot.chunk_buffer import ExecutionConfig
from serfn.sessions.actor import RobotActor
from serfn.sessions.actor_learner import run_session
from serfn.sessions.config import LearningConfig, RobotRunConfig
from serfn.sessions.folder import create
from serfn.sessions.session import Outcome, Phase

MISSES_ALLOWED = 0.005
JITTER_ALLOWED_MS = 5.0


class Log:
    """Prints what happens and counts the steps that the loop executed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.steps = 0
        self.endings: Counter[str] = Counter()

    def phase(self, phase: Phase, text: str) -> None:
        """Say nothing."""

    def episode_ended(self, outcome: Outcome) -> None:
        """Count."""
        self.steps += outcome.report.steps
        self.endings[outcome.report.ending.reason] += 1

    def note(self, text: str) -> None:
        """Print."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def measure(policy: Path, folder: Path, arguments: argparse.Namespace, log: Log) -> dict[str, Any]:
    """Run the session and return the figures."""
    config = RobotRunConfig(
        robot="simulated:cube",
        robot_options={"impairments": {"sensor_latency_s": 0.01}} if arguments.latency else {},
        episode_s=arguments.episode_s,
        execution=ExecutionConfig(lead_steps=arguments.lead if arguments.mode == "asynchronous" else 0),
        learning=LearningConfig(
            place=arguments.learn,
            episodes_per_round=arguments.episodes_per_round,
            updates_per_episode=arguments.updates,
        ),
        real_time=not arguments.ordinary_priority,
    )
    session = create(folder, policy, config)
    begin_s = time.monotonic()
    with RobotActor(session, watcher=log) as actor:
        reason = run_session(actor, should_stop=lambda: time.monotonic() - begin_s > 60 * arguments.minutes)
    seconds = time.monotonic() - begin_s
    timing = actor.session.loop.timing.summary()
    store = EpisodeStore(session.store("robot"))
    episodes = list(store.episodes())
    damages = [
        finding.text for finding in check_store(store.path, lambda done, total: None) if finding.damage
    ]
    stored_steps = sum(episode.length for episode in episodes)
    status = json.loads((session.path / "status.json").read_text(encoding="utf-8"))
    gate = actor.session.gate
    return {
        "ended": reason,
        "wall_minutes": seconds / 60,
        "robot_minutes": actor.session.use.minutes,
        **{name: value for name, value in asdict(timing).items() if name != "steps"},
        "steps": timing.steps,
        "miss_rate": timing.miss_rate,
        "episodes": len(episodes),
        "endings": dict(log.endings),
        "mean_return": sum(episode.return_ for episode in episodes) / max(1, len(episodes)),
        "updates": status["updates"],
        "updates_per_s": status["updates"] / max(1e-9, status["seconds"].get("online", 0.0)),
        "learnt_from_episodes": status["episodes"],
        "policy_versions": dict(Counter(episode.policy_version for episode in episodes)),
        "executed_steps": log.steps,
        "stored_steps": stored_steps,
        "damages": damages,
        "complete": stored_steps == log.steps and not damages,
        "late_chunks": actor.session.loop.counts["chunks:late"],
        "chunks": actor.session.loop.counts["chunks"],
        "gate": {} if gate is None else dict(gate.counts),
        "safety": dict(actor.session.supervisor.counts),
        "load_average": os.getloadavg()[0],
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the figures that were asked for, and whether they were met."""
    table = Table(title="Rehearsal on simulated:cube")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("wanted")
    rows = (
        ("control steps", str(result["steps"]), ""),
        ("deadline misses", f"{result['missed']} ({result['miss_rate']:.2%})", f"< {MISSES_ALLOWED:.1%}"),
        ("jitter p50", f"{result['jitter_p50_ms']:.2f} ms", ""),
        ("jitter p99", f"{result['jitter_p99_ms']:.2f} ms", f"< {JITTER_ALLOWED_MS:g} ms"),
        ("late chunks", f"{result['late_chunks']} of {result['chunks']}", ""),
        ("episodes", str(result["episodes"]), ""),
        ("robot minutes", f"{result['robot_minutes']:.1f} of {result['wall_minutes']:.1f}", ""),
        ("updates", f"{result['updates']} ({result['updates_per_s']:.1f}/s)", "> 0"),
        ("policy versions that acted", str(len(result["policy_versions"])), "> 1"),
        ("steps in the store", f"{result['stored_steps']} of {result['executed_steps']}", "all"),
        ("damages in the store", str(len(result["damages"])), "0"),
        ("load of the machine", f"{result['load_average']:.1f}", ""),
    )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main() -> None:
    """Parse, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--minutes", type=float, default=15.0, help="wall-clock time")
    parser.add_argument("--episode-s", type=float, default=20.0)
    parser.add_argument("--mode", choices=("synchronous", "asynchronous"), default="synchronous")
    parser.add_argument("--lead", type=int, default=1, help="steps of lead in asynchronous mode")
    parser.add_argument("--learn", choices=("process", "inline", "none"), default="process")
    parser.add_argument("--episodes-per-round", type=int, default=2)
    parser.add_argument("--updates", type=int, default=200, help="critic updates per episode")
    parser.add_argument("--latency", action="store_true", help="sensors of 10 ms latency")
    parser.add_argument("--ordinary-priority", action="store_true", help="ask for no real-time priority")
    parser.add_argument("--out", type=Path, help="folder of the session; a temporary one without")
    parser.add_argument("--json", type=Path, help="file of all figures")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary) / "session"
        result = measure(arguments.policy, folder, arguments, Log(console))
    show(result, console)
    if arguments.json is not None:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        document = {"commit": commit, "machine": machine, "options": vars(arguments), "result": result}
        arguments.json.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
