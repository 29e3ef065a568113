"""What one decision of an actor costs: the policy as it trains, frozen, and as a graph of ONNX Runtime.

The contestants take turns within one run, so that whatever else the machine does meets all of them; figures
are the least of many calls.

    OMP_NUM_THREADS=1 python benchmarks/bench_acting.py --json acting.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_policy import Setting, provenance
from rich.console import Console
from rich.table import Table

from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.critics.factory import make_critic
from serfn.critics.mlp import MLPCriticConfig
from serfn.flows import FlowConfig
from serfn.policies import FlowPolicyConfig, PolicyConfig, make_policy
from serfn.policies.encoders.mlp import MLPEncoderConfig
from serfn.training.acting import ActingConfig, BestOfNActor
from serfn.training.losses import best_of

OBS, ACTION, CHUNK, WIDTH = 45, 28, 5, 256
TASK = TaskSpec("bench", ObservationSpec(OBS), ActionSpec((-1.0,) * ACTION, (1.0,) * ACTION), 20.0, 400)


def policies() -> dict[str, PolicyConfig]:
    flow, encoder = FlowConfig(width=WIDTH), MLPEncoderConfig(width=WIDTH, depth=3)
    named = {name: PolicyConfig.registry.find(name)() for name in PolicyConfig.registry.names()}
    return {
        **named,
        "flow": FlowPolicyConfig(flow, encoder=encoder),
        "flow, mixture base": FlowPolicyConfig(flow, encoder=encoder, base_components=4),
        "flow, 4 members": FlowPolicyConfig(flow, encoder=encoder, members=4),
    }


def contestants(config: PolicyConfig, candidates: int) -> dict[str, Callable[[], object]]:
    """The same decision in three ways, for one observation."""
    policy = make_policy(config, OBS, ACTION, CHUNK).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    critic = make_critic(MLPCriticConfig(width=WIDTH), OBS, ACTION, CHUNK, generator=generator)
    critic.requires_grad_(False)
    observation = np.zeros((1, OBS), np.float32)
    obs = torch.from_numpy(observation)

    @torch.no_grad()
    def as_it_trains() -> object:
        return best_of(policy, critic, obs, candidates, 0.7, generator)

    frozen, graph = (BestOfNActor(policy, critic, TASK, ActingConfig(candidates, 0.7)) for _ in range(2))
    calls: dict[str, Callable[[], object]] = {
        "as it trains": as_it_trains,
        "frozen": lambda: frozen.act(observation),
    }
    if graph.prepare() is None:
        calls["graph"] = lambda: graph.act(observation)
    return calls


def least_ms(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least wall time of each call in milliseconds, the contestants taking turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], 1e3 * (time.perf_counter() - start))
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=200, help="timed calls per figure")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = provenance(Setting("cpu", 1, False, OBS, ACTION, CHUNK, WIDTH))
    table = Table("policy", "candidates", "as it trains", "frozen", "graph", title=str(about["cpu"]))
    results: dict[str, dict[str, float]] = {}
    for name, config in policies().items():
        for candidates in (1, 16):
            figures = least_ms(contestants(config, candidates), options.repeats)
            results[f"{name}, {candidates}"] = figures
            cells = [
                f"{figures[key]:.2f}" if key in figures else "–"
                for key in ("as it trains", "frozen", "graph")
            ]
            table.add_row(name, str(candidates), *cells)
    console = Console()
    console.print(table)
    console.print(f"Least milliseconds per decision; torch {about['torch']}, commit {about['commit']}.")
    if options.json:
        options.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
