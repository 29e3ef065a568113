from __future__ import annotations

from pathlib import Path

from serfn.cli.options_page import page

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m serfn.cli.options_page"
