"""How the policies of a study imitate what can be done in several ways: mode coverage and likelihood."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serfn.evaluation.statistics import Interval, mean_t_interval
from serfn.evaluation.study_record import Measures, StudyRecord, Ways

Path = tuple[tuple[tuple[float, float], ...], bool]
"""Points of an episode, and whether it succeeded."""

OTHER, FAILED = "another way", "failed"
"""What a bar of ways says besides the ways themselves."""


@dataclass(frozen=True)
class WayShares:
    """Which way a policy goes, over all seeds.

    Attributes:
        episodes: Episodes of all seeds.
        shares: Share of all episodes that succeed by each way.
        other: Share that succeeds by none of them.
        failed: Share that fails.
        coverage: Mean over seeds of `Ways.coverage`; its t interval is cut to [0, 1].
    """

    episodes: int
    shares: Mapping[str, float]
    other: float
    failed: float
    coverage: Interval

    def bars(self) -> list[tuple[str, float]]:
        """Return all shares with their names, in the order of a stacked bar."""
        return [*self.shares.items(), (OTHER, self.other), (FAILED, self.failed)]


@dataclass(frozen=True)
class PolicyPanel:
    """One class of policies after imitation, all seeds together.

    Attributes:
        label: Its name, with a method where several policies share it.
        methods: Methods that start from it.
        chunk_size: Control steps that it decides at once; likelihoods of others do not compare.
        seeds: Number of seeds.
        likelihood: Log-likelihood of unseen demonstrations per action dimension; None without a density.
        ways: Which way it goes; None where that was not measured.
        paths: Paths of one seed from one start.
        circles: Obstacles `(x, y, radius)` to draw with them.
    """

    label: str
    methods: tuple[str, ...]
    chunk_size: int
    seeds: int
    likelihood: Interval | None
    ways: WayShares | None
    paths: tuple[Path, ...]
    circles: tuple[tuple[float, float, float], ...]


def policy_panels(record: StudyRecord, task: str) -> list[PolicyPanel]:
    """Return what the methods of a task imitate with, one entry per distinct shared imitation.

    Methods belong together if they share the imitation of every seed.
    """
    groups: dict[tuple[str | None, ...], list[str]] = {}
    found: dict[tuple[str | None, ...], list[Measures]] = {}
    chunk_sizes: dict[tuple[str | None, ...], int] = {}
    for method in record.methods:
        runs = [run for run in record.of(task, method) if run.imitated is not None]
        if not runs:
            continue
        key = tuple(run.measures.shared for run in runs)
        groups.setdefault(key, []).append(method)
        chunk_sizes[key] = int(runs[0].run.config.get("chunk_size", 1))
        found[key] = [run.imitated for run in runs if run.imitated is not None]
    words = [policy_words(measures[0].policy) for measures in found.values()]
    return [
        _panel(
            word if words.count(word) == 1 else f"{word} ({record.methods[methods[0]].label})",
            tuple(methods),
            chunk_sizes[key],
            found[key],
            record.tasks[task].circles,
        )
        for word, (key, methods) in zip(words, groups.items(), strict=True)
    ]


def policy_words(name: str) -> str:
    """Return the name of a policy class as people write it.

    >>> policy_words("FlowMatchingPolicy")
    'Flow matching'
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*", name.removesuffix("Policy"))
    return " ".join(words).capitalize() or name


def _panel(
    label: str,
    methods: tuple[str, ...],
    chunk_size: int,
    measures: Sequence[Measures],
    circles: tuple[tuple[float, float, float], ...],
) -> PolicyPanel:
    likelihoods = [-measure.nll for measure in measures if measure.nll is not None]
    ways = [measure.ways for measure in measures if measure.ways is not None]
    return PolicyPanel(
        label=label,
        methods=methods,
        chunk_size=chunk_size,
        seeds=len(measures),
        likelihood=mean_t_interval(likelihoods) if likelihoods else None,
        ways=_shares(ways) if ways else None,
        paths=ways[0].paths if ways else (),
        circles=circles,
    )


def _shares(ways: Sequence[Ways]) -> WayShares:
    episodes = sum(one.episodes for one in ways)
    coverage = mean_t_interval([one.coverage for one in ways])
    return WayShares(
        episodes=episodes,
        shares={name: sum(one.counts[name] for one in ways) / episodes for name in ways[0].counts},
        other=sum(one.other for one in ways) / episodes,
        failed=sum(one.failed for one in ways) / episodes,
        coverage=Interval(coverage.mean, max(0.0, coverage.low), min(1.0, coverage.high), coverage.n),
    )
