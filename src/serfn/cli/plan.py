"""`serfn plan`: what training would choose for demonstrations, and why."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from serfn.cli.options import optional
from serfn.cli.progress import foreign_output_to_stderr


def plan(
    demos: Annotated[Path, tyro.conf.Positional],
    *,
    env: Annotated[str | None, optional("ID", "none")] = None,
    budget: Literal["smoke", "demo", "full"] = "demo",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Show the configuration that demonstrations suggest, without training; 'serfn train --env' uses it.

    Args:
        demos: Demonstrations in any format that 'serfn data convert' reads.
        env: Gymnasium id; the environment of a task of ours has a preset of its own.
        budget: How much work, as in 'serfn train'.
        as_json: Print one JSON object and nothing else: facts, reasons and the whole configuration.
    """
    from serfn.core.config import to_dict
    from serfn.data.datasets import load_demonstrations
    from serfn.runs.derive import derive
    from serfn.runs.facts import facts
    from serfn.runs.presets import has_preset, preset_for_environment

    # Importing an environment's package may print.
    with foreign_output_to_stderr() if as_json else nullcontext():
        found = facts(load_demonstrations(demos, skip_bad=True))
        chosen = derive(found, budget)
        config, reasons = dataclasses.replace(chosen.config, demos=demos), chosen.reasons
        if env is not None:
            config = preset_for_environment(env, budget, demos)
            if has_preset(env):
                reasons = (reasons[0], f"{env} has a preset of its own, which is used instead")
    if as_json:
        told = {"facts": dataclasses.asdict(found), "reasons": reasons, "config": to_dict(config)}
        print(json.dumps(told))
        return
    console = Console(highlight=False, soft_wrap=True)
    for reason in reasons:
        console.print(reason, markup=False)
