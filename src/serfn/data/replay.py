"""Replay of chunk windows: short pieces of stored episodes that never cross an episode's end.

Layout. Steps live in ring arrays: step number n, counted from 0 since the start and never reused, lies in row
`n % capacity`. Episodes are contiguous in step numbers and are evicted whole, oldest first, so that the
stored steps are always one interval `[first, next)`. Each row knows how many steps of its episode remain and
the number of its episode; terminal observations lie in a table of their own, indexed in the same way by
episode number. A window is then index arithmetic without rejection, and a batch costs O(batch · chunk)
whatever the size of the storage.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec
from serfn.data.arrays import ArraySpace
from serfn.data.chunk_batch import ChunkBatch, of_one_plan
from serfn.data.episode import Episode

WindowStarts = Literal["all", "imitable", "replans"]
"""Steps that may start a window: all, those of imitable episodes, or those where the policy replanned."""

_INITIAL_EPISODES = 16


class ChunkReplay:
    """First-in-first-out store of episodes that samples chunk windows uniformly over steps.

    Every stored step may start a window. Actions are normalised once, when they are added.

    Args:
        action_spec: Bounds by which actions are normalised; actions outside are clipped to them on entry.
        obs_dim: Size of an observation.
        chunk_size: Steps H of a window.
        capacity_steps: Steps kept; when a new episode does not fit, the oldest are evicted whole.
        return_steps: Steps N ≥ H whose rewards a window carries; None carries those of the window itself.
        space: Where the steps are kept; None keeps them in memory.

    Raises:
        DataError: A size is below 1, `return_steps` below the chunk, or there is no space.
    """

    def __init__(
        self,
        action_spec: ActionSpec,
        obs_dim: int,
        chunk_size: int,
        capacity_steps: int,
        *,
        return_steps: int | None = None,
        space: ArraySpace | None = None,
    ) -> None:
        for name, value in (
            ("obs_dim", obs_dim),
            ("chunk_size", chunk_size),
            ("capacity_steps", capacity_steps),
        ):
            if value < 1:
                raise DataError(f"{name} of the replay is {value}; it must be at least 1")
        if return_steps is not None and return_steps < chunk_size:
            raise DataError(
                f"return_steps of the replay is {return_steps}; it must be at least the chunk of {chunk_size}"
            )
        self.action_spec = action_spec
        self.obs_dim = obs_dim
        self.chunk_size = chunk_size
        self.return_steps = chunk_size if return_steps is None else return_steps
        self.capacity_steps = capacity_steps
        self._offsets = np.arange(self.return_steps)
        space = space or ArraySpace()
        # Memory is taken as rows are written. What a window needs more than once comes first, the widest
        # last, as a budget that does not suffice leaves the last ones on disk.
        self._remaining = space.empty((capacity_steps,), np.int64)
        self._episode_of_step = space.empty((capacity_steps,), np.int64)
        # Numbers of steps that may start windows, in rings of their own with the same order.
        self._imitable_steps = space.empty((capacity_steps,), np.int64)
        self._replan_steps = space.empty((capacity_steps,), np.int64)
        self._chunk_starts = space.empty((capacity_steps,), np.bool_)
        self._interventions = space.empty((capacity_steps,), np.bool_)
        self._rewards = space.empty((capacity_steps,), np.float32)
        self._actions = space.empty((capacity_steps, action_spec.dim), np.float32)
        self._observations = space.empty((capacity_steps, obs_dim), np.float32)
        self._first_step = self._next_step = 0
        self._allocate_episodes(_INITIAL_EPISODES)
        self._first_episode = self._next_episode = 0
        self._first_imitable = self._next_imitable = 0
        self._first_replan = self._next_replan = 0

    def __len__(self) -> int:
        """Number of stored steps, which is the number of windows."""
        return self._next_step - self._first_step

    @property
    def num_episodes(self) -> int:
        """Number of stored episodes."""
        return self._next_episode - self._first_episode

    @property
    def num_imitable_steps(self) -> int:
        """Number of stored steps that belong to imitable episodes."""
        return self._next_imitable - self._first_imitable

    @property
    def num_replans(self) -> int:
        """Number of stored steps at which the policy replanned."""
        return self._next_replan - self._first_replan

    def add(self, episode: Episode) -> None:
        """Store one episode, evicting the oldest ones if it does not fit.

        Args:
            episode: Episode to store; it is imitable if it succeeded.

        Raises:
            DataError: The episode is longer than the capacity or has other dimensions.
        """
        obs_dim, action_dim = episode.observations.shape[1], episode.actions.shape[1]
        if (obs_dim, action_dim) != (self.obs_dim, self.action_spec.dim):
            raise DataError(
                f"the episode has {obs_dim} observation and {action_dim} action dimensions; the replay "
                f"stores {self.obs_dim} and {self.action_spec.dim}"
            )
        self._append(
            observations=episode.observations[:-1],
            actions=np.clip(self.action_spec.normalize(episode.actions), -1.0, 1.0),
            rewards=episode.rewards,
            interventions=episode.interventions,
            chunk_starts=episode.chunk_starts,
            terminal_observation=episode.observations[-1],
            terminated=episode.terminated,
            imitable=bool(episode.success),
        )

    def sample(
        self,
        batch: int,
        rng: np.random.Generator,
        *,
        starts: WindowStarts = "all",
        window_observations: bool = False,
    ) -> ChunkBatch:
        """Draw windows with replacement, uniformly over the steps that may start them.

        Args:
            batch: Number of windows.
            rng: Source of the draws.
            starts: Which stored steps may start a window.
            window_observations: Also return `window_obs`.

        Raises:
            DataError: There is no step to draw from.
        """
        if starts == "all":
            ring, first, stored = None, self._first_step, len(self)
        elif starts == "imitable":
            ring, first, stored = self._imitable_steps, self._first_imitable, self.num_imitable_steps
        else:
            ring, first, stored = self._replan_steps, self._first_replan, self.num_replans
        if stored == 0:
            kind = "" if starts == "all" else f" that are {starts}"
            raise DataError(f"the replay holds no steps{kind} (of {len(self)}); add such episodes first")
        drawn = first + rng.integers(stored, size=batch)
        steps = drawn if ring is None else ring[drawn % self.capacity_steps]
        return self._gather(steps, window_observations, starts == "replans")

    def windows(self, starts: np.ndarray, *, window_observations: bool = False) -> ChunkBatch:
        """Return the windows that start at given steps, for example all of them by `np.arange(len(replay))`.

        Args:
            starts: `[batch]` integers in `[0, len(replay))`; 0 is the oldest stored step.
            window_observations: Also return `window_obs`.

        Raises:
            DataError: A start is out of range.
        """
        starts = np.asarray(starts, np.int64)
        if starts.size and not (0 <= starts.min() and starts.max() < len(self)):
            raise DataError(
                f"window starts reach {starts.min()}..{starts.max()}; there are {len(self)} steps"
            )
        return self._gather(self._first_step + starts, window_observations, False)

    def _append(
        self,
        *,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        interventions: np.ndarray | None,
        chunk_starts: np.ndarray,
        terminal_observation: np.ndarray,
        terminated: bool,
        imitable: bool,
    ) -> None:
        length = len(actions)
        if length > self.capacity_steps:
            raise DataError(
                f"the episode has {length} steps, more than the replay's capacity of {self.capacity_steps}; "
                "raise capacity_steps"
            )
        while len(self) + length > self.capacity_steps:
            self._evict_oldest()
        if self.num_episodes == len(self._terminated):
            self._grow_episodes()
        steps = self._next_step + np.arange(length)
        rows = steps % self.capacity_steps
        self._observations[rows] = observations
        self._actions[rows] = actions
        self._rewards[rows] = rewards
        self._interventions[rows] = False if interventions is None else interventions
        self._chunk_starts[rows] = chunk_starts
        self._remaining[rows] = np.arange(length, 0, -1)
        self._episode_of_step[rows] = self._next_episode
        slot = self._next_episode % len(self._terminated)
        self._terminal_observations[slot] = terminal_observation
        self._terminated[slot] = terminated
        self._lengths[slot] = length
        self._imitable[slot] = imitable
        if imitable:
            self._imitable_steps[(self._next_imitable + np.arange(length)) % self.capacity_steps] = steps
            self._next_imitable += length
        replans = steps[chunk_starts]
        self._replan_steps[(self._next_replan + np.arange(len(replans))) % self.capacity_steps] = replans
        self._next_replan += len(replans)
        self._next_step += length
        self._next_episode += 1

    def _evict_oldest(self) -> None:
        slot = self._first_episode % len(self._terminated)
        length = int(self._lengths[slot])
        rows = np.arange(self._first_step, self._first_step + length) % self.capacity_steps
        self._first_replan += int(self._chunk_starts[rows].sum())
        self._first_step += length
        self._first_episode += 1
        if self._imitable[slot]:
            self._first_imitable += length

    def _gather(self, steps: np.ndarray, window_observations: bool, one_plan: bool) -> ChunkBatch:
        rows = steps % self.capacity_steps
        remaining = self._remaining[rows]
        slots = self._episode_of_step[rows] % len(self._terminated)
        chunk = self.chunk_size
        counted_steps = np.minimum(remaining, self.return_steps)
        counted = self._offsets < counted_steps[:, None]
        reach = steps[:, None] + np.minimum(self._offsets, counted_steps[:, None] - 1)
        rewards = np.where(counted, self._rewards[reach % self.capacity_steps], np.float32(0))
        valid, valid_steps = counted[:, :chunk], np.minimum(remaining, chunk)[:, None]
        window = reach[:, :chunk] % self.capacity_steps
        window_obs = None
        if window_observations:
            ahead = np.minimum(self._offsets[:chunk] + 1, valid_steps)
            window_obs = self._observations_after(steps[:, None], ahead, remaining[:, None], slots)
        later, person = self.return_steps > chunk, self._interventions[window]
        return ChunkBatch(
            obs=self._observations[rows],
            actions=self._actions[window],
            rewards=rewards[:, :chunk],
            valid=valid,
            next_obs=self._observations_after(steps, counted_steps, remaining, slots),
            terminated=self._terminated[slots] & (remaining == counted_steps),
            planned=valid & of_one_plan(self._chunk_starts[window], person) if one_plan else valid,
            interventions=valid & person,
            window_obs=window_obs,
            later_rewards=rewards[:, chunk:] if later else None,
            later_valid=counted[:, chunk:] if later else None,
        )

    def _observations_after(
        self, steps: np.ndarray, ahead: np.ndarray, remaining: np.ndarray, slots: np.ndarray
    ) -> np.ndarray:
        """Return the observation `ahead` steps after `steps`; at an episode's end it is the terminal one."""
        observations = self._observations[(steps + ahead) % self.capacity_steps]
        terminal = np.nonzero(ahead == remaining)
        observations[terminal] = self._terminal_observations[slots[terminal[0]]]
        return observations

    def _allocate_episodes(self, slots: int) -> None:
        self._terminal_observations = np.empty((slots, self.obs_dim), np.float32)
        self._terminated = np.empty(slots, np.bool_)
        self._lengths = np.empty(slots, np.int64)
        self._imitable = np.empty(slots, np.bool_)

    def _grow_episodes(self) -> None:
        episodes = np.arange(self._first_episode, self._next_episode)
        old = (self._terminal_observations, self._terminated, self._lengths, self._imitable)
        old_slots, new_slots = episodes % len(self._terminated), episodes % (2 * len(self._terminated))
        self._allocate_episodes(2 * len(self._terminated))
        new = (self._terminal_observations, self._terminated, self._lengths, self._imitable)
        for source, target in zip(old, new, strict=True):
            target[new_slots] = source[old_slots]


def mixed_batch(
    demonstrations: ChunkReplay,
    online: ChunkReplay,
    batch: int,
    online_fraction: float,
    rng: np.random.Generator,
    *,
    online_starts: WindowStarts = "all",
    window_observations: bool = False,
) -> ChunkBatch:
    """Draw a batch from demonstrations and online data in a fixed proportion.

    Reference: RLPD, arXiv 2302.02948, section 4.1 (symmetric sampling, there with a fraction of one half).

    Args:
        demonstrations: Demonstration buffer.
        online: Online data; while it is empty the whole batch comes from `demonstrations`.
        batch: Number of windows; the demonstrated ones come first.
        online_fraction: Share of online windows in [0, 1], rounded to a whole number of windows.
        rng: Source of the draws.
        online_starts: Which steps of online data may start a window.
        window_observations: Also return `window_obs`.

    Raises:
        DataError: The fraction is outside [0, 1], or the store drawn from is empty.
    """
    if not 0.0 <= online_fraction <= 1.0:
        raise DataError(f"online_fraction is {online_fraction}; it must lie in [0, 1]")
    from_online = round(batch * online_fraction) if len(online) else 0
    parts: list[ChunkBatch] = []
    if from_online < batch:
        parts.append(demonstrations.sample(batch - from_online, rng, window_observations=window_observations))
    if from_online > 0:
        parts.append(
            online.sample(from_online, rng, starts=online_starts, window_observations=window_observations)
        )
    return parts[0] if len(parts) == 1 else parts[0].joined(parts[1])
