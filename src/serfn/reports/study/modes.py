"""How the policies of a study imitate what can be done in several ways: mode coverage and likelihood."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serfn.reports.statistics import Interval, mean_t_interval
from serfn.reports.study.record import Measures, StudyRecord, StudyRunRecord, Ways

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

    Methods belong together if they share the imitation of every seed that both have run.
    """
    groups: list[tuple[list[str], dict[int, StudyRunRecord]]] = []
    for method in record.methods:
        runs = {run.seed: run for run in record.of(task, method) if run.imitated is not None}
        if not runs:
            continue
        methods, known = next((group for group in groups if _share_imitation(group[1], runs)), ([], {}))
        if not methods:
            groups.append((methods, known))
        methods.append(method)
        known.update(runs)
    words = [policy_words(next(iter(known.values())).measures.policy) for _, known in groups]
    return [
        _panel(
            word if words.count(word) == 1 else f"{word} ({record.methods[methods[0]].label})",
            tuple(methods),
            int(next(iter(known.values())).run.config.get("chunk_size", 1)),
            [run.imitated for _, run in sorted(known.items()) if run.imitated is not None],
            record.tasks[task].circles,
        )
        for word, (methods, known) in zip(words, groups, strict=True)
    ]


def _share_imitation(one: Mapping[int, StudyRunRecord], other: Mapping[int, StudyRunRecord]) -> bool:
    common = one.keys() & other.keys()
    return bool(common) and all(one[seed].measures.shared == other[seed].measures.shared for seed in common)


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
