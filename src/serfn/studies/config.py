"""The study file: which methods are compared on which tasks, with which seeds and budgets.

A study file is TOML::

    title = "Around an obstacle"
    methods = ["ours", "gaussian_step_critic", "gentle"]   # by name, or from [own] below
    ablations = ["gentle"]                                 # shown as variants of the reference
    seeds = [0, 1, 2, 3, 4]

    [tasks.diagnostic]
    budget = "demo"
    threshold = 0.9
    options.online.episodes = 64              # as in a training configuration, only what differs

    [own.gentle]                              # a method of this study
    base = "ours"
    label = "ours, larger penalty"
    options.online.improvement.coefficient = 1.0
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serfn.core.config import from_dict, load_config, to_dict
from serfn.core.errors import ConfigError
from serfn.runs.presets import Budget
from serfn.training.config import TrainConfig
from serfn.training.stages.state import STAGES, StageName


@dataclass(frozen=True)
class ModeProbe:
    """Repeated episodes from one start, to see which ways the policy goes where it could go several.

    Attributes:
        metric: Episode metric that tells the way.
        values: What the metric says for each way, by the way's name.
        episodes: Number of episodes.
        seed: Seed of the start.
        plant: Variant of the task to act in; None is the one of training.
        plane: Indices of two observation dimensions in which the paths are drawn; None draws none.
        circles: Obstacles `(x, y, radius)` to draw with them.

    Raises:
        ConfigError: Fewer than two ways, or a number out of range.
    """

    metric: str
    values: dict[str, float]
    episodes: int = 64
    seed: int = 7000
    plant: str | None = None
    plane: tuple[int, int] | None = None
    circles: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ConfigError(f"modes.values are {self.values}; name at least two ways")
        if self.episodes < 2 or self.seed < 0:
            raise ConfigError(
                f"modes.episodes is {self.episodes} and modes.seed {self.seed}; use at least 2 and at least 0"
            )
        if self.plane is not None and min(self.plane) < 0:
            raise ConfigError(f"modes.plane is {self.plane}; give two observation indices, 0 or more")


@dataclass(frozen=True)
class StudyTask:
    """One task of a study. Its training configuration is the preset of the budget with `options` on top.

    Attributes:
        task: Name of one of our tasks; None takes the name of the table, unless `env` is given.
        env: Any Gymnasium environment instead; it needs `demos`.
        label: What the report calls it; empty takes the name of the table.
        budget: Preset to start from.
        demos: NPZ file of demonstrations for all seeds; None records new ones for each seed.
        held_out: NPZ file of demonstrations for measuring likelihoods; None records them (our tasks only).
        held_out_episodes: How many to record.
        threshold: Score whose first reaching is reported; None leaves it out.
        modes: Where the task can be solved in several ways.
        options: Changes to the training configuration, for all methods.
        method_options: Further changes by method, so that each can be tuned to the task.

    Raises:
        ConfigError: Contradicting or missing choices.
    """

    task: str | None = None
    env: str | None = None
    label: str = ""
    budget: Budget = "demo"
    demos: Path | None = None
    held_out: Path | None = None
    held_out_episodes: int = 20
    threshold: float | None = None
    modes: ModeProbe | None = None
    options: dict[str, Any] = field(default_factory=dict)
    method_options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.env is not None and self.task is not None:
            raise ConfigError(f"task '{self.task}' and env '{self.env}' exclude each other; give one of them")
        if self.env is not None and self.demos is None:
            raise ConfigError(f"env '{self.env}' needs demos, an NPZ file of demonstrations")
        if self.held_out_episodes < 0:
            raise ConfigError(f"held_out_episodes is {self.held_out_episodes}; it must be 0 or more")


@dataclass(frozen=True)
class OwnMethod:
    """A method that the study file defines by what differs from a named one.

    Attributes:
        base: Method that it starts from.
        label: What the report calls it; empty takes its name.
        summary: What it is, in one sentence.
        citation: Where it comes from.
        stages: Stages that it runs; none leaves those of the base.
        options: Changes to the training configuration of the base.
    """

    base: str = "ours"
    label: str = ""
    summary: str = ""
    citation: str = ""
    stages: tuple[StageName, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [name for name in self.stages if name not in STAGES]
        if unknown:
            raise ConfigError(f"stages are {list(self.stages)}; choose from {', '.join(STAGES)}")


@dataclass(frozen=True)
class StudyConfig:
    """Tasks × methods × seeds.

    Attributes:
        title: What is studied.
        tasks: Tasks by name.
        methods: Names of the methods, in the order of the report.
        seeds: Seeds; each decides demonstrations, weights and episodes of one run per method.
        reference: Method that the others are compared with.
        ablations: Methods that are the reference with one part changed; the report shows them apart.
        own: Methods that this study defines.

    Raises:
        ConfigError: Names that do not fit together, or numbers out of range.
    """

    title: str
    tasks: dict[str, StudyTask]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: str = "ours"
    ablations: tuple[str, ...] = ()
    own: dict[str, OwnMethod] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in (("tasks", self.tasks), ("methods", self.methods), ("seeds", self.seeds)):
            if not values:
                raise ConfigError(f"{name} is empty; a study needs at least one")
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} has {list(values)}; name each once")
        if min(self.seeds) < 0:
            raise ConfigError(f"seeds are {list(self.seeds)}; they must be 0 or more")
        for name in (*self.tasks, *self.methods):
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ConfigError(f"name '{name}' becomes a folder; use letters, digits, '_' and '-'")
        if self.reference not in self.methods:
            raise ConfigError(f"reference '{self.reference}' is not among methods {list(self.methods)}")
        strangers = [name for name in self.ablations if name not in self.methods or name == self.reference]
        if strangers:
            raise ConfigError(f"ablations {strangers} must be among methods and not the reference")
        for task, entry in self.tasks.items():
            for name in entry.method_options:
                if name not in self.methods:
                    raise ConfigError(f"tasks.{task}.method_options has '{name}', which is not among methods")


def load_study(path: str | Path) -> StudyConfig:
    """Read a study file; paths in it are relative to its folder.

    Raises:
        ConfigError: It is missing, cannot be parsed, or does not fit.
    """
    config = load_config(StudyConfig, path)
    folder = Path(path).resolve().parent
    tasks = {
        name: dataclasses.replace(
            task,
            demos=None if task.demos is None else folder / task.demos,
            held_out=None if task.held_out is None else folder / task.held_out,
        )
        for name, task in config.tasks.items()
    }
    return dataclasses.replace(config, tasks=tasks)


def with_options(config: TrainConfig, options: Mapping[str, Any], path: str) -> TrainConfig:
    """Return `config` with nested options replaced, as strictly as in a configuration file.

    Args:
        config: Training configuration.
        options: Nested tables with only what differs.
        path: Where the options stand in the study file, for messages.

    Raises:
        ConfigError: An unknown option or a value of the wrong type.
    """
    try:
        return from_dict(TrainConfig, _merged(to_dict(config), options))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(tree)
    for name, value in changes.items():
        below = result.get(name)
        if not (isinstance(value, Mapping) and isinstance(below, Mapping)):
            result[name] = value
        elif value.get("type", below.get("type")) != below.get("type"):
            # Another part has options of its own.
            result[name] = dict(value)
        else:
            result[name] = _merged(below, value)
    return result
