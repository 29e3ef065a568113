"""`serfn evaluate`: measure a policy."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from serfn.cli.options import optional
from serfn.cli.progress import foreign_output_to_stderr, make_progress


def evaluate(
    policy: Annotated[Path, tyro.conf.Positional],
    *,
    episodes: int = 50,
    seed: int = 0,
    plant: Annotated[str | None, optional("NAME", "the run's")] = None,
    env: Annotated[str | None, optional("ID", "the run's")] = None,
    hz: Annotated[float | None, optional("HZ", "what the environment says")] = None,
    candidates: Annotated[int | None, optional("INT", "the run's")] = None,
    temperature: Annotated[float | None, optional("FLOAT", "the run's")] = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Run a policy for a number of episodes and print every metric with its 95% interval.

    Args:
        policy: Folder of a run (its best policy is taken), of a checkpoint or of a policy bundle.
        episodes: Number of episodes.
        seed: Seed of the first episode; the others count up.
        plant: Plant of our own tasks to act on, such as nominal, field or random:100.
        env: Gymnasium id of another environment with the same observations and actions.
        hz: Control steps per second of the environment, where it says none or another one than it has.
        candidates: Chunks sampled per decision; the critic's favourite is executed.
        temperature: Standard deviation of the base noise.
        as_json: Print one JSON object and nothing else.
    """
    from serfn.cli.tables import print_evaluation
    from serfn.reports.statistics import summarize
    from serfn.runs.evaluate import evaluate as measure

    with foreign_output_to_stderr() if as_json else nullcontext(), make_progress() as progress:
        result = measure(
            policy,
            episodes=episodes,
            seed=seed,
            plant=plant,
            env=env,
            control_hz=hz,
            candidates=candidates,
            temperature=temperature,
            progress=progress,
        )
    if as_json:
        rows = {row.name: {**asdict(row.interval), "rate": row.rate} for row in summarize(result)}
        print(json.dumps({"summary": rows, "result": result.to_dict()}))
    else:
        print_evaluation(Console(), result)
