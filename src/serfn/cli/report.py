"""`serfn report`: write the page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from serfn.cli.tables import print_run


def report(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write report.html into a run folder and print its results.

    Args:
        run: Folder of a run, finished or not.
    """
    from serfn.evaluation.report import write_report
    from serfn.evaluation.run_record import load_run

    console = Console()
    page = write_report(run)
    print_run(console, load_run(run))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
