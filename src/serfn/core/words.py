"""Numbers as people write them, and the name that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def number(value: float, *, signed: bool = False) -> str:
    """Return three significant digits, without an exponent for everyday sizes.

    >>> number(6.8312), number(1234.5), number(162.0), number(2.5, signed=True)
    ('6.83', '1234', '162', '+2.5')
    """
    sign = "+" if signed else ""
    text = f"{value:{sign}.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:{sign}.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
