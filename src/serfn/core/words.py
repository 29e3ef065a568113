"""Numbers as people write them."""

from __future__ import annotations


def number(value: float, *, signed: bool = False) -> str:
    """Return three significant digits, without an exponent for everyday sizes.

    >>> number(6.8312), number(1234.5), number(162.0), number(2.5, signed=True)
    ('6.83', '1234', '162', '+2.5')
    """
    sign = "+" if signed else ""
    text = f"{value:{sign}.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:{sign}.3g}"
    return text.replace("-", "\N{MINUS SIGN}")
