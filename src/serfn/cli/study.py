"""`serfn study`: compare methods over tasks and seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from serfn.cli.options import optional
from serfn.cli.progress import make_progress
from serfn.core.errors import SerfnError

_MOST_FAILURES = 3


def study(
    file: Annotated[Path, tyro.conf.Positional],
    *,
    out: Annotated[Path | None, optional("FOLDER", "runs/study-<name of the file>")] = None,
    cores: Annotated[int | None, optional("INT", "all of this machine")] = None,
    ray: Annotated[str | None, optional("ADDRESS", "processes of this machine")] = None,
) -> None:
    """Compare methods on tasks over seeds, and write a report. Called again, a study continues.

    Args:
        file: Study file (TOML): tasks, methods, seeds.
        out: Folder of the study. Runs that it holds are not repeated.
        cores: Runs at the same time, each with one thread.
        ray: Run on a Ray cluster: local starts one here, auto joins the one of this machine, or an address.
    """
    from serfn.studies.config import load_study
    from serfn.studies.study import run_study

    config = load_study(file)
    folder = out or Path("runs") / f"study-{file.stem}"
    slots = len(os.sched_getaffinity(0)) if cores is None else cores
    console = Console()
    try:
        with make_progress() as progress:
            result = run_study(config, folder, cores=slots, ray=ray, progress=progress)
    except KeyboardInterrupt:
        again = f"serfn study {file} --out {folder}" + (f" --ray {ray}" if ray else "")
        raise KeyboardInterrupt(f"every run keeps its checkpoint; continue with: {again}") from None
    console.print(
        f"{len(result.computed)} jobs done, {len(result.reused)} done before", highlight=False, soft_wrap=True
    )
    for sentence in result.verdicts:
        console.print(sentence, markup=False, highlight=False)
    console.print(f"report: {result.report}", highlight=False, soft_wrap=True)
    if result.failures:
        shown = "; ".join(f"{name}: {why}" for name, why in list(result.failures.items())[:_MOST_FAILURES])
        raise SerfnError(
            f"{len(result.failures)} jobs failed ({shown}); see job.log in their folders under '{folder}', "
            "and start the study again to repeat them"
        )
