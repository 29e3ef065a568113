"""`serfn robot relabel`: correct the labels of recorded episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from serfn.cli.options import optional
from serfn.core.errors import ConfigError, DataError

Positional = tyro.conf.Positional
Success = Literal["yes", "no", "unknown"]


def relabel(
    store: Annotated[Path, Positional],
    episodes: Annotated[tuple[int, ...], Positional] = (),
    *,
    success: Annotated[Success | None, optional("{yes,no,unknown}", "stays")] = None,
    stage: Annotated[str | None, optional("NAME", "stays")] = None,
    discard: Annotated[bool | None, optional("{True,False}", "stays")] = None,
    source: str = "operator",
    robot: str = "robot",
) -> None:
    """Correct the labels of recorded episodes; the recording itself stays as it is.

    A learner at work takes corrections up before its next episodes, any other when it is resumed. Without a
    change to make, the present labels are shown.

    Args:
        store: Folder of a session or of a store.
        episodes: Numbers of the episodes; none shows all.
        success: Whether the task was solved.
        stage: Stage of the task that was reached.
        discard: True sets the episodes aside, so that learning skips them; False takes them back.
        source: Who says so.
        robot: Which robot of the session.
    """
    from serfn.data.store.labels import LabelChange
    from serfn.data.store.store import EpisodeStore

    opened = EpisodeStore(_store(store, robot))
    known = opened.numbers
    if missing := [number for number in episodes if number not in known]:
        raise DataError(f"store '{opened.path}' has no episode {missing[0]}; it holds {len(known)}")
    if not (success is None and stage is None and discard is None):
        if not episodes:
            raise ConfigError(
                "which episodes? name their numbers, such as: serfn robot relabel STORE 3 4 ..."
            )
        said: Any = {"yes": True, "no": False, "unknown": "unknown", None: None}[success]
        change = LabelChange(source=source, success=said, stage=stage, discard=discard)
        for number in episodes:
            opened.relabel(number, change)
    table = Table("episode", "steps", "success", "by", "stage", "policy", "")
    for number in episodes or known:
        row = opened.summary(number)
        words = [
            word for word, true in (("set aside", row.discard), ("interrupted", row.interrupted)) if true
        ]
        table.add_row(
            str(number),
            str(row.length),
            {True: "yes", False: "no", None: "unknown"}[row.success],
            row.success_source or "",
            row.stage or "",
            str(row.policy_version),
            ", ".join(words),
        )
    Console(highlight=False).print(table)


def _store(path: Path, robot: str) -> Path:
    """Return the store that a path means: itself, or that of a robot of a session."""
    from serfn.sessions.folder import RobotFolder

    folder = RobotFolder(path)
    return folder.store(robot) if folder.exists else path
