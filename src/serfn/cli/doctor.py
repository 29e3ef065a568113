"""`serfn doctor`: is it learning, and if not, why."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from serfn.cli.progress import foreign_output_to_stderr


def doctor(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Look at a run or a session, finished or at work, and name what keeps it from learning.

    Args:
        folder: Folder of a training run or of a session on a robot.
        as_json: Print one JSON object and nothing else.
    """
    from serfn.reports.doctor import CHECKS, read_case
    from serfn.reports.doctor import diagnose as look

    with foreign_output_to_stderr() if as_json else nullcontext():
        case = read_case(folder)
        found = look(case)
    if as_json:
        print(json.dumps({"folder": str(folder), "findings": [finding.to_dict() for finding in found]}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for finding in found:
        console.print(f"{finding.name}: {finding.figure}", markup=False)
        console.print(f"  -> {finding.remedy}", markup=False)
    looked = f"{len(CHECKS)} checks over {len(case.episodes)} episodes"
    console.print(f"{looked}: {len(found)} findings" if found else f"{looked}: nothing found", markup=False)
