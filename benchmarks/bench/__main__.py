"""Measure the speed of all parts, keep a record, and say what became slower.

make bench
    PYTHONPATH=src python -m benchmarks.bench --only acting updates
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.bench.record import last_record, provenance, save, show
from benchmarks.bench.timing import Group, Setting

PARTS = {
    "acting": "networks:acting",
    "updates": "networks:updates",
    "replay": "experience:replay",
    "recording": "experience:recording",
    "simulation": "simulation:control_steps",
    "rollouts": "simulation:rollouts",
    "control": "control:control_loop",
}
"""Parts and what measures them; a machine that lacks what a part needs can leave it out."""

RESULTS = Path(__file__).parents[1] / "results"


def main(words: Sequence[str] | None = None) -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=(__doc__ or "")[:77])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="once on tiny networks; keeps no record")
    parser.add_argument("--device", default="cpu", help="where networks run")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each contestant in the control loop")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(words)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device: use --device cpu")
    setting = Setting(options.quick, options.device, options.seconds)
    console, about = Console(), provenance(setting)
    groups: dict[str, Group] = {}
    for part in options.only:
        console.print(f"{part} ...")
        module, _, function = PARTS[part].partition(":")
        measure: Callable[[Setting], dict[str, Group]] = getattr(
            import_module(f"benchmarks.bench.{module}"), function
        )
        groups |= measure(setting)
    record = {**about, "groups": groups}
    show(record, None if setting.quick else last_record(options.results, record), console)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if not setting.quick:
        console.print(f"Record: {save(record, options.results)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
