"""Small pieces of a study's page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from serfn.reports.run_report import data_uri
from serfn.reports.study.plots import Schemes


def table(heads: Sequence[str], lines: Sequence[str]) -> str:
    """Return a table whose lines are made by the caller; it scrolls sideways on a narrow screen."""
    head = "".join(f"<th scope='col'>{escape(words)}</th>" for words in heads)
    return (
        f"<div class='scroll'><table class='compare'><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def cell(words: str, below: str = "", *, kind: str = "") -> str:
    """Return a cell with small words below the others; `kind` is a class of the style sheet."""
    small = f"<small>{escape(below)}</small>" if below else ""
    mark = f" class='{kind}'" if kind else ""
    return f"<td><span{mark}>{escape(words)}</span>{small}</td>"


def head_cell(words: str, below: str) -> str:
    """Return the cell that names a line."""
    return f"<th scope='row'>{escape(words)}<small>{escape(below)}</small></th>"


def picture(schemes: Schemes, words: str) -> str:
    """Return an image that follows the page's colour scheme; `words` describe it to who cannot see it."""
    light, dark = (data_uri(schemes[scheme]) for scheme in ("light", "dark"))
    return (
        f"<picture><source media='(prefers-color-scheme: dark)' srcset='{dark}'>"
        f"<img src='{light}' alt='{escape(words)}'></picture>"
    )


def facet(title: str, below: str, image: str) -> str:
    """Return a small figure with its title above."""
    caption = f"<figcaption>{escape(title)}<small>{escape(below)}</small></figcaption>"
    return f"<figure>{caption}{image}</figure>"


def note(text: str) -> str:
    """Return a paragraph of small print."""
    return f"<p class='note'>{escape(text)}</p>"


def notes(head: str, items: Sequence[str]) -> str:
    """Return a list in small print."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"{note(head)}<ul class='note'>{lines}</ul>"


def plural(count: int, word: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "method"), plural(3, "method")
    ('1 method', '3 methods')
    """
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
