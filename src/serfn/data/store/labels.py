"""Corrections to the labels of committed episodes, in a log that is only ever appended to.

The episode files stay as they were recorded; the last word of the log counts. Labels may be changed while
another process records: the log has a lock of its own, which is held for the moment of one append.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serfn.core.errors import DataError
from serfn.core.files import whole_file
from serfn.core.lock import wait_for
from serfn.data.store.records import frame, pack, salvage, scan, unpack, write_all

_CHANGE = 1


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """What somebody said about an episode afterwards; None leaves a label as it is.

    Attributes:
        source: Who says so, such as `"operator"`.
        success: Whether the task was solved.
        stage: Name of the stage of the task that was reached.
        discard: True sets the episode aside: learning skips it. False takes it back.

    Raises:
        DataError: Nothing is changed, or the source is empty.
    """

    source: str
    success: bool | Literal["unknown"] | None = None
    stage: str | None = None
    discard: bool | None = None

    def __post_init__(self) -> None:
        if not self.source:
            raise DataError("the source of a label is empty; say who gives it")
        if self.success is None and self.stage is None and self.discard is None:
            raise DataError("a label change changes nothing; give success, stage or discard")


@dataclass(frozen=True)
class Labels:
    """The labels of one episode after all changes.

    Attributes:
        success: None if the recorded one stands.
        success_source: Who gave `success`.
        stage: Name of the stage reached; None if nobody said.
        discard: Whether the episode is set aside.
    """

    success: bool | Literal["unknown"] | None = None
    success_source: str | None = None
    stage: str | None = None
    discard: bool = False

    def after(self, change: LabelChange) -> Labels:
        """Return the labels with `change` applied."""
        changed = self
        if change.success is not None:
            changed = dataclasses.replace(changed, success=change.success, success_source=change.source)
        if change.stage is not None:
            changed = dataclasses.replace(changed, stage=change.stage)
        if change.discard is not None:
            changed = dataclasses.replace(changed, discard=change.discard)
        return changed


NO_LABELS = Labels()


def append_labels(path: Path, changes: Iterable[tuple[str, LabelChange]]) -> None:
    """Append changes, each with the identity of its episode, and force them to the disk.

    Raises:
        DataError: The log is damaged or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            wait_for(descriptor)
            found = scan(path.read_bytes())
            if found.damage is not None:
                raise _damaged(path, found.damage)
            os.ftruncate(descriptor, found.end)
            try:
                for sequence, (uid, change) in enumerate(changes, start=len(found.records)):
                    body = pack({"episode": uid, **dataclasses.asdict(change)}, {})
                    write_all(descriptor, frame(_CHANGE, sequence, body))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, found.end)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(f"cannot write labels to '{path}': {error}; check space and permissions") from error


def read_labels(path: Path) -> dict[str, Labels]:
    """Return the labels of all episodes that were ever changed, by their identity.

    A record that another process is just appending is left for the next time.

    Raises:
        DataError: The log is damaged; no label is served then, as a later one might be missing.
    """
    found = scan(path.read_bytes() if path.exists() else b"")
    if found.damage is not None:
        raise _damaged(path, found.damage)
    return _applied([unpack(record.body)[0] for record in found.records])


def label_damage(path: Path) -> str | None:
    """Return what is wrong with the log, or None."""
    return scan(path.read_bytes() if path.exists() else b"").damage


def rewrite_labels(path: Path, aside: Path) -> int:
    """Keep a damaged log as `aside` and write its whole records anew; return their number."""
    content = path.read_bytes()
    bodies = [record.body for record in salvage(content)]
    aside.write_bytes(content)
    with whole_file(path) as temporary, temporary.open("xb") as file:
        for sequence, body in enumerate(bodies):
            file.write(b"".join(frame(_CHANGE, sequence, [body])))
    return len(bodies)


def _applied(changes: list[dict]) -> dict[str, Labels]:
    labels: dict[str, Labels] = {}
    for values in changes:
        uid = values.pop("episode")
        labels[uid] = labels.get(uid, NO_LABELS).after(LabelChange(**values))
    return labels


def _damaged(path: Path, damage: str) -> DataError:
    return DataError(f"the labels in '{path}' are damaged: {damage}; run 'serfn data repair'")
