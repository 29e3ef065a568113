"""Versions of what is kept on disk: older ones are migrated or refused with the way out, newer ones refused.

A `Format` is one kind of file or folder. Its number rises by one when a reader of before would misread what
is written now. Whoever reads asks `check` first and migrates what is older, if the format allows that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serfn.core.errors import SerfnError
from serfn.core.files import write_atomically

FILE = "format.json"
"""File of a folder whose other files have no place for a version."""


@dataclass(frozen=True)
class Format:
    """One kind of file or folder.

    Attributes:
        name: Its name on disk, such as `serfn-policy`.
        kind: Its name in messages, such as `policy bundle`.
        version: Version that is written.
        oldest: Oldest version that is read.
        remedy: What to do with an older one.
        error: What is raised.
    """

    name: str
    kind: str
    version: int
    oldest: int
    remedy: str
    error: type[SerfnError]

    def stamp(self) -> dict[str, Any]:
        """Return the entries that say what a document is."""
        return {"format": self.name, "version": self.version}

    def check(self, document: Mapping[str, Any], where: Path) -> int:
        """Return the version of a document that is read; one without a version is of version 1.

        Args:
            document: Document with the entries of `stamp`, as read.
            where: File or folder, for the message.

        Raises:
            SerfnError: As `error`: it is newer than this code, older than what it reads, or no version.
        """
        found = document.get("version", 1)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise self.error(f"'{where}' has format version {found!r}, a number is expected; restore it")
        if found > self.version:
            raise self.error(
                f"'{where}' is a {self.kind} of format {found}, this serfn knows up to {self.version}; "
                "install a newer serfn"
            )
        if found < self.oldest:
            raise self.error(
                f"'{where}' is a {self.kind} of format {found}, this serfn goes on with {self.oldest} and "
                f"later; {self.remedy}"
            )
        return found

    def write(self, folder: Path) -> None:
        """Write the version into a folder as a file of its own."""
        write_atomically(folder / FILE, json.dumps(self.stamp()))

    def check_folder(self, folder: Path) -> int:
        """Return the version that `write` left in a folder; see `check`.

        Raises:
            SerfnError: See `check`; or the file is damaged, or of another format.
        """
        path = folder / FILE
        try:
            document: Any = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise self.error(f"'{path}' is damaged: {error}; restore it") from error
        if not isinstance(document, dict) or document.get("format", self.name) != self.name:
            raise self.error(f"'{folder}' is no {self.kind}; check the path")
        return self.check(document, folder)
