"""`serfn report`: write the page of a run or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


def report(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write report.html into the folder of a run or a study, and print its results.

    Args:
        run: Folder of a run or of a study, finished or not.
    """
    from serfn.cli.tables import print_run
    from serfn.reports.run_record import load_run
    from serfn.reports.run_report import write_report
    from serfn.reports.study.report import write_study_report

    console = Console()
    if (run / "study.json").is_file():
        page, verdicts = write_study_report(run)
        console.print(*verdicts, f"report: {page}", sep="\n", markup=False, highlight=False, soft_wrap=True)
        return
    page = write_report(run)
    print_run(console, load_run(run))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
