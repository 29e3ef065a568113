"""`serfn collect`: record demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console

from serfn.cli.options import optional
from serfn.cli.progress import make_progress


def collect(
    *,
    task: str = "cube",
    episodes: int = 40,
    out: Path = Path("demonstrations.npz"),
    seed: int = 0,
    plant: Annotated[str | None, optional("NAME", "the task's first")] = None,
    workers: int = 2,
) -> None:
    """Record demonstrations of a task's teacher as an NPZ file.

    Args:
        task: Name of the task, see 'serfn info', or package.module:TASK.
        episodes: Number of episodes to record.
        out: File to write.
        seed: Seed of the first episode; the others follow.
        plant: Plant to record on: a name, or random:SEED for one of a family.
        workers: Environments run side by side.
    """
    from serfn.rollout.collect import collect as record

    with make_progress() as progress:
        record(task, episodes, out, seed=seed, plant=plant, workers=workers, progress=progress)
    Console().print(f"wrote {out}", highlight=False, soft_wrap=True)
