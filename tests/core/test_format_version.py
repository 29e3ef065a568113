from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serfn.core.errors import DataError
from serfn.core.format_version import FILE, Format

CUPS = Format("cups", "set of cups", version=3, oldest=2, remedy="buy new ones", error=DataError)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    CUPS.write(tmp_path)
    assert CUPS.check_folder(tmp_path) == 3
    assert CUPS.check({"version": 2}, tmp_path) == 2


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"format": "cups", "version": 4}, "of format 4, this serfn knows up to 3; install a newer serfn"),
        ({"format": "cups", "version": 1}, "of format 1, this serfn goes on with 2 and later; buy new ones"),
        ({}, "of format 1, .*buy new ones"),
        ({"format": "cups", "version": "3"}, "format version '3', a number is expected"),
        ({"format": "cups", "version": True}, "format version True"),
        ({"format": "spoons", "version": 3}, "is no set of cups"),
        ([], "is no set of cups"),
    ],
)
def test_other_versions_are_refused_in_one_line(tmp_path: Path, document: Any, words: str) -> None:
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(DataError, match=words) as refusal:
        CUPS.check_folder(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_version_is_of_the_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of format 1"):
        CUPS.check_folder(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        CUPS.check_folder(tmp_path)
