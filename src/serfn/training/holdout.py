"""Is a policy better, where nothing can be tried out? Asked of recorded episodes that it did not learn from.

Held-out *episodes*, not windows: neighbouring windows of one episode are all but copies. None of the figures
proves that a policy will succeed; a gate on them only keeps what shows harm.

- NLL per action dimension of the held-out chunks: how well the policy imitates;
- error of sampled chunks: their root mean square distance from the recorded ones, in normalised units;
- calibration: correlation of the critic's values of recorded chunks with the recorded discounted returns;
- AUC: how well the value at a third, a half and two thirds of an episode tells success from failure;
- gain in value: what the critic gives to the policy's chunks at held-out states beyond what it gives to those
  of the policy at the stage's start, with a bootstrap interval over episodes (fitted-Q evaluation, Le et al.
  2019, arXiv 1903.08738, with the critic as it is).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from serfn.core.config import to_dict
from serfn.core.seeding import generator, torch_seed
from serfn.core.words import number
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.policies.base import ChunkPolicy
from serfn.training.agent import Agent
from serfn.training.batch import TensorBatch
from serfn.training.losses import imitation_loss

LEAST_EPISODES = 5
"""Episodes below which none is held out: each is needed to learn from."""

SHARE = 0.1
MAX_NLL_GROWTH = 0.5
"""Nats per action dimension by which held-out chunks may become less likely."""

_MOMENTS = (1 / 3, 1 / 2, 2 / 3)
_SAMPLES = 4
_RESAMPLES = 2000


def split(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return which of `count` episodes are learnt from and which are held out: a tenth, at least two."""
    if count < LEAST_EPISODES:
        return list(range(count)), []
    held = max(2, round(SHARE * count))
    drawn = set(generator(seed, "held-out").permutation(count)[:held].tolist())
    return [index for index in range(count) if index not in drawn], sorted(drawn)


@dataclass(frozen=True)
class Figures:
    """What held-out episodes say of a policy; None where they cannot say.

    Attributes:
        episodes: Number of held-out episodes.
        nll: Mean NLL per action dimension (or the policy's own imitation loss).
        chunk_error: Root mean square distance of sampled from recorded chunks, normalised units.
        calibration: Correlation of values with recorded returns, in [-1, 1].
        auc: Of the value for success, at a third, a half and two thirds of the episodes.
        gain: Mean gain in value over the policy at the stage's start.
        gain_low: Lower end of its 95 % interval.
        gain_high: Upper end.
        nll_growth: How much less likely held-out chunks are than under that policy, per dimension.
    """

    episodes: int
    nll: float
    chunk_error: float
    calibration: float | None
    auc: tuple[float | None, ...]
    gain: float
    gain_low: float
    gain_high: float
    nll_growth: float

    def to_dict(self) -> dict[str, object]:
        """Return a mapping that JSON can write."""
        return to_dict(self)

    @property
    def harm(self) -> str | None:
        """Return in words what shows harm; None if nothing does."""
        if not np.isfinite([self.nll, self.gain]).all():
            return "likelihoods or values are not finite"
        if self.nll_growth > MAX_NLL_GROWTH:
            return (
                f"held-out chunks are {number(self.nll_growth)} nats per dimension less likely, more than "
                f"{MAX_NLL_GROWTH:g}"
            )
        if self.gain_high < 0:
            return f"the critic values it less: {self._gain}"
        return None

    @property
    def imitation_words(self) -> str:
        """What needs no critic, in one line."""
        return (
            f"on {self.episodes} held-out episodes: NLL {number(self.nll)} per dimension; sampled chunks "
            f"{number(self.chunk_error)} off the recorded ones"
        )

    @property
    def words(self) -> str:
        """All figures in one line."""
        parts = [self.imitation_words, f"gain in value {self._gain}"]
        if self.calibration is not None:
            parts.append(f"values correlate {self.calibration:.2f} with returns")
        known = [value for value in self.auc if value is not None]
        if known:
            parts.append("AUC for success " + ", ".join(f"{value:.2f}" for value in known))
        return "; ".join(parts)

    @property
    def _gain(self) -> str:
        return f"{number(self.gain)} ({number(self.gain_low)} to {number(self.gain_high)})"


class Holdout:
    """Episodes that nothing is learnt from.

    Args:
        agent: Moves batches to its device.
        episodes: With learning rewards.
        replay: Makes an empty replay of this many steps.
        discount: γ per control step.
        seed: Seed of the draws, which are the same at every look.
    """

    def __init__(
        self,
        agent: Agent,
        episodes: Sequence[Episode],
        replay: Callable[[int], ChunkReplay],
        discount: float,
        seed: int,
    ) -> None:
        self._seed = seed
        self._batches: list[TensorBatch] = []
        self._returns: list[np.ndarray] = []
        self._successes = [episode.success for episode in episodes]
        for episode in episodes:
            windows = replay(episode.length)
            windows.add(episode)
            self._batches.append(agent.tensors(windows.windows(np.arange(len(windows)))))
            self._returns.append(_to_go(episode.rewards, discount))

    @torch.no_grad()
    def nll(self, policy: ChunkPolicy) -> float:
        """Return the mean over episodes of the NLL per dimension."""
        return float(np.mean([self._nll(policy, batch) for batch in self._batches]))

    @torch.no_grad()
    def figures(self, agent: Agent) -> Figures:
        """Return what the episodes say of the agent's policy, against its reference."""
        values, gains, errors, told = [], [], [], []
        for batch, returns in zip(self._batches, self._returns, strict=True):
            mine, own = self._samples(agent, agent.policy, batch)
            before, _ = self._samples(agent, agent.reference, batch)
            gains.append(float((mine - before).mean()))
            apart = (own - batch.actions[:, None]).square().mean((1, 3))
            errors.append(float(apart[batch.valid].mean()))
            recorded = agent.critic.value(batch.obs, batch.actions, batch.valid).cpu().numpy()
            values.append(recorded)
            told.append((recorded, returns))
        nll, before = self.nll(agent.policy), self.nll(agent.reference)
        low, high = _interval(np.array(gains), generator(self._seed, "held-out-bootstrap"))
        return Figures(
            episodes=len(self._batches),
            nll=nll,
            chunk_error=float(np.sqrt(np.mean(errors))),
            calibration=_correlation(told),
            auc=tuple(self._auc(values, moment) for moment in _MOMENTS),
            gain=float(np.mean(gains)),
            gain_low=low,
            gain_high=high,
            nll_growth=nll - before,
        )

    def _nll(self, policy: ChunkPolicy, batch: TensorBatch) -> float:
        noise = torch.Generator(batch.obs.device).manual_seed(torch_seed(self._seed, "held-out-nll"))
        return imitation_loss(policy, batch, generator=noise)[0].item()

    def _samples(
        self, agent: Agent, policy: ChunkPolicy, batch: TensorBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean value of the policy's chunks `[batch]`, and the chunks."""
        noise = torch.Generator(batch.obs.device).manual_seed(torch_seed(self._seed, "held-out-samples"))
        chunks = policy.sample_candidates(batch.obs, _SAMPLES, temperature=1.0, generator=noise)
        return agent.critic.candidate_values(batch.obs, chunks).mean(1), chunks

    def _auc(self, values: Sequence[np.ndarray], moment: float) -> float | None:
        """Return the probability that a success is valued more than a failure, at a share of its length."""
        pairs = [
            (success, value[int(moment * len(value))])
            for success, value in zip(self._successes, values, strict=True)
        ]
        good = [value for success, value in pairs if success]
        bad = [value for success, value in pairs if success is False]
        if not good or not bad:
            return None
        wins = [float(one > other) + 0.5 * float(one == other) for one in good for other in bad]
        return float(np.mean(wins))


def _to_go(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Return the discounted sum of the rewards from each step on `[T]`."""
    sums, total = np.zeros(len(rewards)), 0.0
    for step in range(len(rewards) - 1, -1, -1):
        total = float(rewards[step]) + discount * total
        sums[step] = total
    return sums


def _correlation(told: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    values = np.concatenate([value for value, _ in told])
    returns = np.concatenate([recorded for _, recorded in told])
    if values.std() == 0 or returns.std() == 0:
        return None
    return float(np.corrcoef(values, returns)[0, 1])


def _interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over episodes."""
    drawn = values[rng.integers(0, len(values), (_RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
