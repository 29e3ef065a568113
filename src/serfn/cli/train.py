"""`serfn train`: from demonstrations to a better policy."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro
from rich.console import Console

from serfn.cli.options import optional, refuse_on_resume
from serfn.cli.overrides import override
from serfn.cli.progress import make_progress
from serfn.core.config import load_config
from serfn.core.errors import AbortedEpisodesError, ConfigError
from serfn.core.extras import installed

if TYPE_CHECKING:
    from serfn.runs.derive import Plan
    from serfn.runs.presets import Budget
    from serfn.training.config import TrainConfig

Assignments = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set", metavar="NAME=VALUE")
]


def train(
    *,
    task: Annotated[str | None, optional("NAME", "cube")] = None,
    budget: Annotated[Literal["smoke", "demo", "full"] | None, optional("{smoke,demo,full}", "demo")] = None,
    out: Annotated[Path | None, optional("FOLDER", "a new one below runs/")] = None,
    seed: Annotated[int | None, optional("INT", "0")] = None,
    stages: Annotated[str | None, optional("NAMES", "all four")] = None,
    resume: Annotated[Path | None, optional("FOLDER", "a new run")] = None,
    env: Annotated[str | None, optional("ID", "the task's")] = None,
    demos: Annotated[Path | None, optional("PATH", "recorded from the task's teacher")] = None,
    resample: Annotated[Literal["targets", "rates"] | None, optional("KIND", "refuse another rate")] = None,
    skip_bad: bool = False,
    plant: Annotated[str | None, optional("NAME", "field")] = None,
    config: Annotated[Path | None, optional("FILE", "none")] = None,
    assignments: Assignments = (),
) -> None:
    """Train in four stages (imitation, critic warm-up, offline, online) and write a report.

    Args:
        task: Task, see 'serfn info', or package.module:TASK. Demonstrations are recorded first. With --demos
            and neither --task nor --env there is no environment: recordings alone teach and judge.
        budget: How much work: smoke tries everything in two minutes, demo improves in about ten, full
            uses 105 minutes of robot time.
        out: Run folder to write.
        seed: Seed of everything random.
        stages: Stages to run, separated by commas: imitation, critic_warmup, offline, online.
        resume: Run folder to continue, with its own configuration, from the last checkpoint.
        env: Any Gymnasium environment instead of a task, such as gymnasium_robotics:AdroitHandDoor-v1; the
            package in front of the colon registers it.
        demos: Demonstrations in any format that 'serfn data convert' reads; needed with --env.
        resample: Bring demonstrations of another rate to that of the environment; their actions are targets
            (positions) or rates (velocities, forces).
        skip_bad: Leave out demonstrations that cannot be used, and say how many; see 'serfn data check'.
        plant: Variant of the task to fine-tune on, such as nominal, field or random:3;
            an unknown name lists all.
        config: TOML or JSON file with the whole configuration, instead of --task and --budget.
        assignments: Change one option, such as --set online.episodes=40; may be repeated.
    """
    from serfn.cli.tables import print_run
    from serfn.reports.run_record import load_run
    from serfn.runs.folder import stored_config
    from serfn.runs.train import train as run_training

    if resume is not None:
        if out is not None and out != resume:
            raise ConfigError(f"--resume {resume} continues in its folder; leave out --out {out}")
        ignored = {"task": task, "budget": budget, "env": env, "config": config}
        refuse_on_resume(f"run '{resume}'", ignored)
        settings, folder, reasons = stored_config(resume), resume, ()
    else:
        if task is not None and env is not None:
            raise ConfigError(f"--task {task} and --env {env} exclude each other; give one of them")
        budget, reasons = budget or "demo", ()
        if demos is not None and task is env is config is None:
            planned = _for_recordings(demos, budget, assignments)
            settings, reasons, task = planned.config, planned.reasons, demos.stem
        else:
            task = task or "cube"
            settings = _chosen(task, budget, env, config, demos)
        label = (task if env is None else env).rpartition(":")[2].replace("/", "-")
        folder = out or Path("runs") / f"{label}-{budget}-{datetime.now():%Y%m%d-%H%M%S}"
    given = {"seed": seed, "demos": demos, "plant": plant, "resample": resample}
    changes = {name: value for name, value in given.items() if value is not None}
    if skip_bad:
        changes["skip_bad"] = True
    settings = override(dataclasses.replace(settings, **changes), assignments)

    console = Console()
    if resume is None and config is None and env is not None and settings.demos is not None:
        _print_reasons(console, env, cast("Budget", budget), settings.demos)
    elif resume is None:
        for reason in reasons:
            console.print(reason, markup=False, highlight=False, soft_wrap=True)
    try:
        with make_progress() as progress:
            # Names that do not exist are refused by the stages themselves.
            names = cast(Any, None if stages is None else tuple(name.strip() for name in stages.split(",")))
            run_training(settings, folder, resume=resume is not None, stages=names, progress=progress)
    except KeyboardInterrupt:
        begun = (folder / "config.json").is_file()
        raise KeyboardInterrupt(
            f"resume with: serfn train --resume {folder}" if begun else "nothing was begun"
        ) from None
    except AbortedEpisodesError as error:
        again = f"serfn train --resume {folder}"
        raise AbortedEpisodesError(f"{error}; what was learnt is kept, go on with: {again}") from error
    print_run(console, load_run(folder))
    plain: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    if installed("report"):
        from serfn.reports.run_report import write_report

        console.print(f"report: {write_report(folder)}", **plain)
    else:
        how = f"pip install 'serfn[report]', then: serfn report {folder}"
        console.print(f"no report: matplotlib is not installed; {how}", **plain)


def _print_reasons(console: Console, env: str, budget: Budget, demos: Path) -> None:
    """Say what was chosen for a task without a preset; options given with --set come after it."""
    from serfn.runs.presets import has_preset, plan

    if not has_preset(env):
        for reason in plan(demos, budget).reasons:
            console.print(reason, markup=False, highlight=False, soft_wrap=True)


def _for_recordings(demos: Path, budget: Budget, assignments: tuple[str, ...]) -> Plan:
    """Return what suits demonstrations without an environment; a rate that was given decides it, too."""
    from serfn.runs.recordings import plan_for_recordings

    rates = [word.partition("=")[2] for word in assignments if word.startswith("control_hz=")]
    try:
        rate = float(rates[-1]) if rates else None
    except ValueError:
        raise ConfigError(f"control_hz is '{rates[-1]}'; give a number of steps per second") from None
    return plan_for_recordings(demos, budget, rate)


def _chosen(
    task: str, budget: Budget, env: str | None, config: Path | None, demos: Path | None
) -> TrainConfig:
    from serfn.runs.presets import preset, preset_for_environment
    from serfn.training.config import TrainConfig

    if config is not None:
        if env is not None:
            raise ConfigError(f"--env {env} and --config {config} exclude each other; set env in the file")
        return load_config(TrainConfig, config)
    return preset(task, budget) if env is None else preset_for_environment(env, budget, demos)
