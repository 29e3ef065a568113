"""A record of figures with the machine and the commit, and what became slower since the last one."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bench.timing import Group, Setting
from serfn.core.files import write_atomically

MACHINE = ("cpu", "cores", "gpu", "threads", "device")
"""What two records must have in common to be compared."""

SLOWER = 1.25
"""Ratio of least times from which a group counts as slower, and a contestant beside its group.

Contestants of a group took turns: how busy the machine was changes all of them.
"""

_PACKAGES = ("torch", "numpy", "mujoco", "onnxruntime")


def provenance(setting: Setting) -> dict[str, Any]:
    """Return the machine, the libraries and the commit that figures belong to."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if setting.device.startswith("cuda") else None,
        "threads": torch.get_num_threads(),
        "device": setting.device,
        "quick": setting.quick,
        "load": round(os.getloadavg()[0], 1),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git.stdout.strip() or "unknown",
        "python": platform.python_version(),
        **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


def save(record: dict[str, Any], folder: Path) -> Path:
    """Write a record under its time and commit."""
    folder.mkdir(parents=True, exist_ok=True)
    moment = str(record["time"])[:16].replace(":", "")
    path = folder / f"{moment}-{record['commit']}.json"
    write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def last_record(folder: Path, like: dict[str, Any]) -> dict[str, Any] | None:
    """Return the newest record of the same machine, or None."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    same = [record for record in records if all(record.get(name) == like[name] for name in MACHINE)]
    return max(same, key=lambda record: record["time"], default=None)


def ratios(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield group, contestant, and how many times longer the least time is than in an older record."""
    for name, group in new["groups"].items():
        before = old["groups"].get(name, {})
        for contestant, figures in group.items():
            least = before.get(contestant, {}).get("least_ms")
            if least and "least_ms" in figures:
                yield name, contestant, figures["least_ms"] / least


def show(record: dict[str, Any], old: dict[str, Any] | None, console: Console) -> None:
    """Print a table of each group, and what became slower."""
    compared = {} if old is None else {(name, who): ratio for name, who, ratio in ratios(old, record)}
    for name, group in record["groups"].items():
        console.print(_table(name, group, compared))
    about = ", ".join(f"{key} {record[key]}" for key in ("cpu", "threads", "load", "commit"))
    console.print(f"{about}. Milliseconds; contestants take turns.")
    if old is None:
        console.print("No earlier record of this machine to compare with.")
        return
    console.print(f"Slower than {old['commit']} of {old['time']}:")
    for line in slower(compared) or ["nothing"]:
        console.print(f"  {line}")


def slower(compared: dict[tuple[str, str], float]) -> list[str]:
    """Return what became slower, of ratios by group and contestant: whole groups, then single contestants."""
    typical = {
        name: float(np.median([ratio for (group, _), ratio in compared.items() if group == name]))
        for name, _ in compared
    }
    groups = [f"×{ratio:.2f}  all of: {name}" for name, ratio in typical.items() if ratio >= SLOWER]
    return groups + [
        f"×{ratio:.2f}  {name}: {who} (its group ×{typical[name]:.2f})"
        for (name, who), ratio in compared.items()
        if ratio >= SLOWER * typical[name]
    ]


def _table(name: str, group: Group, compared: dict[tuple[str, str], float]) -> Table:
    columns = list(dict.fromkeys(key for figures in group.values() for key in figures))
    table = Table(title=name, title_justify="left")
    table.add_column("")
    for column in [*columns, *(["× last record"] if compared else [])]:
        table.add_column(column.removesuffix("_ms").replace("_", " "), justify="right")
    for contestant, figures in group.items():
        cells = [f"{figures[key]:.3g}" if key in figures else "–" for key in columns]
        if compared:
            ratio = compared.get((name, contestant))
            cells.append("–" if ratio is None else f"{ratio:.2f}")
        table.add_row(contestant, *cells)
    return table


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")
