"""The methods of a study: by their name in the literature, or defined by the study file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serfn.studies.config import OwnMethod, with_options
from serfn.studies.methods import method as find_method
from serfn.training.config import TrainConfig
from serfn.training.stages.state import StageName


@dataclass(frozen=True)
class ResolvedMethod:
    """A method, ready to be applied to a task.

    Attributes:
        label: What the report calls it.
        summary: What it is, in one sentence.
        citation: Where it comes from.
        stages: Stages that it runs.
        configure: Turns the configuration of a task into this method's.
    """

    label: str
    summary: str
    citation: str
    stages: tuple[StageName, ...]
    configure: Callable[[TrainConfig], TrainConfig]


def resolve_method(name: str, own: Mapping[str, OwnMethod]) -> ResolvedMethod:
    """Return the method called `name`: one of the study's own, or one of the literature.

    Raises:
        ConfigError: There is none of this name, or it is defined by itself.
    """
    if name not in own:
        known = find_method(name)
        return ResolvedMethod(known.label, known.summary, known.citation, known.stages, known.configure)
    method = own[name]
    base = resolve_method(method.base, {key: value for key, value in own.items() if key != name})
    return ResolvedMethod(
        label=method.label or name,
        summary=method.summary or base.summary,
        citation=method.citation or base.citation,
        stages=method.stages or base.stages,
        configure=lambda config: with_options(base.configure(config), method.options, f"own.{name}.options"),
    )
