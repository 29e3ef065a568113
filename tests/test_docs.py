"""The documents: every link leads somewhere, and everything public is explained."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from serfn.api import Serfn

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)|(?:src|srcset|href)=\"([^\"]+)\"")


def prose(page: Path) -> str:
    """Text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> Iterator[str]:
    """Links of a page into this repository."""
    for match in LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(page))):
        link = match[1] or match[2]
        if not re.match(r"[a-z]+:", link):
            yield link


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as they are made where the page is shown."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 1
        base = anchor
        while anchor in found:
            anchor, number = f"{base}-{number}", number + 1
        found.add(anchor)
    return found


def broken_links(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    """The check itself: files, headings, repeated headings and code."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two & `three`\n## Limits\n## Limits\n[a](#one-two--three) [b](page.md#limits-1) "
        "[c](other.md) [d](#four) [e](https://example.org/x) ![f](plot.png)\n```\n"
        "[g](nowhere.md)\n```\n`[h](code.md)`\n"
    )
    assert broken_links(page) == ["other.md", "#four", "plot.png"]


def public_methods() -> list[str]:
    return [name for name in vars(Serfn) if not name.startswith("_")]


@pytest.mark.parametrize("name", public_methods())
def test_public_methods_say_what_they_do(name: str) -> None:
    assert inspect.getdoc(getattr(Serfn, name)), f"Serfn.{name} has no docstring"


@pytest.mark.parametrize("name", public_methods())
def test_public_methods_are_in_the_documents(name: str) -> None:
    used = re.compile(rf"(\.|\b){name}\(|`(Serfn\.)?{name}`|\.{name}\b")
    assert any(used.search(page.read_text(encoding="utf-8")) for page in PAGES), f"no page shows Serfn.{name}"
