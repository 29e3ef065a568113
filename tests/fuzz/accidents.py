"""What happens to files: cut, flipped bits, pieces overwritten, moved or repeated, odd values, files gone.

`make fuzz` sets `SERFN_FUZZ`, a factor on the number of accidents; without it a few seconds are enough.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

ODD_VALUES = [None, True, -1, 0, 10**30, 1e308, "", "x", "9" * 400, [], [[]], {}, {"a": 1}, float("nan")]


def accidents(usual: int) -> int:
    """Return how many inputs to try, where `usual` are tried without a word."""
    return usual * int(os.environ.get("SERFN_FUZZ", "1"))


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the content of a file after one accident."""
    kind = rng.integers(6)
    size = len(data)
    if kind == 0:
        return data[: rng.integers(size + 1)]
    changed = bytearray(data)
    if kind == 1:
        for position in rng.integers(size, size=rng.integers(1, 9)):
            changed[position] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        start = int(rng.integers(size))
        changed[start : start + int(rng.integers(1, 65))] = rng.bytes(int(rng.integers(0, 65)))
    elif kind == 3:
        start = int(rng.integers(size))
        changed[start : start + 8] = bytes([0xFF if rng.integers(2) else 0]) * 8
    elif kind == 4:
        start, length = int(rng.integers(size)), int(rng.integers(1, 200))
        changed[start:start] = changed[start : start + length]
    else:
        changed = bytearray(rng.bytes(int(rng.integers(0, 300))))
    return bytes(changed)


def with_odd_value(text: str, rng: np.random.Generator) -> str:
    """Return a JSON text with one of its values, at any depth, replaced or taken away."""
    tree = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    node, key = places[int(rng.integers(len(places)))]
    if rng.integers(4) == 0:
        del node[key]
    else:
        node[key] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    return json.dumps(tree)


def damage(path: Path, rng: np.random.Generator) -> str:
    """Let one accident happen to a data set, and say which."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    file = files[int(rng.integers(len(files)))]
    if file.suffix == ".json" and rng.integers(2):
        file.write_text(with_odd_value(file.read_text(encoding="utf-8"), rng), encoding="utf-8")
        return f"{file.name}: {file.read_text(encoding='utf-8')[:300]}"
    if len(files) > 1 and rng.integers(12) == 0:
        file.unlink()
        return f"{file.name} is missing"
    file.write_bytes(damaged(file.read_bytes(), rng))
    return f"{file.name} is damaged"
