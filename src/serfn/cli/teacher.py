"""`serfn teacher`: train the simulation teachers whose demonstrations start everything."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

_COLUMNS = ("rev_per_min", "failures_per_20_s", "drops_per_20_s", "reward")


def teacher(
    *,
    out: Path = Path("teachers"),
    direction: Literal["both", "ccw", "cw"] = "both",
    seed: int = 0,
    scale: float = 1.0,
) -> None:
    """Train the cube task's simulation teachers with PPO (needs the extra 'teacher').

    Args:
        out: Folder of the weights and logs.
        direction: Which way the cube is turned; 'both' trains two teachers side by side.
        seed: Seed of everything.
        scale: Factor on the number of training steps.
    """
    from serfn.runs.teacher import DIRECTIONS, train_cube_teachers

    console = Console()

    def report(name: str, row: dict[str, float | str]) -> None:
        figures = "  ".join(f"{column} {row[column]:.3g}" for column in _COLUMNS)
        console.print(
            f"{name} {row['stage']} {float(row['steps']) / 1e6:.2f} M steps  {figures}", highlight=False
        )

    chosen = list(DIRECTIONS) if direction == "both" else [direction]
    for path in train_cube_teachers(chosen, out, seed=seed, scale=scale, report=report):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
