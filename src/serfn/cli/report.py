"""`serfn report`: write the page of a run or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


def report(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write report.html into the folder of a run, a session or a study, and print its results.

    Args:
        run: Folder of a run, of a session on a robot or of a study, finished or not.
    """
    from serfn.cli.tables import print_run, print_session
    from serfn.reports.doctor import examine
    from serfn.reports.experience import is_session, load_session
    from serfn.reports.run_record import load_run
    from serfn.reports.run_report import write_report
    from serfn.reports.study.report import write_study_report

    console = Console()
    if (run / "study.json").is_file():
        page, verdicts = write_study_report(run)
        console.print(*verdicts, f"report: {page}", sep="\n", markup=False, highlight=False, soft_wrap=True)
        return
    if is_session(run):
        print_session(console, load_session(run))
        for finding in examine(run):
            console.print(f"{finding.text}", markup=False, highlight=False, soft_wrap=True)
        if not (run / "config.json").is_file():
            return
    page = write_report(run)
    if not is_session(run):
        print_run(console, load_run(run))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
