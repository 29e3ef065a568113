from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
import pytest

from serfn.core.errors import SerfnError
from serfn.data.episode import Episode
from serfn.rollout.environments import make_env
from serfn.rollout.guarded import GuardedEnv
from serfn.rollout.rollouts import evaluation_result, rollout
from tests.counter import RandomActor


def envs(count: int, **kwargs: Any) -> list:
    return [make_env("test/Counter-v0", **kwargs) for _ in range(count)]


def same(first: list[Episode], second: list[Episode]) -> bool:
    return all(
        np.array_equal(a.observations, b.observations)
        and np.array_equal(a.actions, b.actions)
        and np.array_equal(a.rewards, b.rewards)
        for a, b in zip(first, second, strict=True)
    )


def test_one_episode_per_seed_in_order(random_actor) -> None:  # noqa: ANN001
    episodes = rollout(envs(2), random_actor, seeds=[5, 6, 7, 8, 9])
    assert [episode.seed for episode in episodes] == [5, 6, 7, 8, 9]
    assert [episode.length for episode in episodes] == [3, 4, 5, 6, 7]
    assert [episode.success for episode in episodes] == [False, True, False, True, False]
    assert random_actor.resets == [5]


def test_actor_always_sees_the_same_batch_size(random_actor) -> None:  # noqa: ANN001
    rollout(envs(3), random_actor, seeds=[0, 1, 2, 3])
    assert {batch.shape for batch in random_actor.batches} == {(3, 3)}


def test_finished_environments_repeat_their_last_observation(random_actor) -> None:  # noqa: ANN001
    short, long = 0, 4  # 3 and 7 steps: the short one is over within the first chunk of 4
    episodes = rollout(envs(2), random_actor, seeds=[short, long])
    assert np.array_equal(random_actor.batches[1][0], episodes[0].observations[-1])


def test_recorded_steps_are_what_happened(random_actor) -> None:  # noqa: ANN001
    (episode,) = rollout(envs(1), random_actor, seeds=[4], policy_version=3)
    assert episode.observations[:, 0].tolist() == list(range(8))
    assert np.array_equal(episode.rewards, episode.actions[:, 0])
    assert episode.chunk_starts.tolist() == [True, False, False, False, True, False, False]
    assert (episode.terminated, episode.truncated, episode.policy_version) == (True, False, 3)
    assert episode.metrics == {"score": 7.0, "late": 1.0}


def test_fewer_steps_than_a_chunk_can_be_executed(random_actor) -> None:  # noqa: ANN001
    random_actor.n_action_steps = 2
    (episode,) = rollout(envs(1), random_actor, seeds=[4])
    assert episode.chunk_starts.tolist() == [True, False] * 3 + [True]


def test_time_limit_truncates(random_actor) -> None:  # noqa: ANN001
    (episode,) = rollout(envs(1, endless=True), random_actor, seeds=[0])
    assert (episode.length, episode.terminated, episode.truncated) == (20, False, True)


def test_threads_do_not_change_the_result(random_actor, monkeypatch) -> None:  # noqa: ANN001
    one = rollout(envs(3), random_actor, seeds=range(7))
    delays, step = np.random.default_rng(0), GuardedEnv.step

    def late(env: GuardedEnv, action: np.ndarray) -> Any:
        time.sleep(delays.uniform(0, 0.002))
        return step(env, action)

    monkeypatch.setattr(GuardedEnv, "step", late)
    assert same(one, rollout(envs(3), random_actor, seeds=range(7), threads=3))


def test_where_an_episode_ends_the_next_one_begins(random_actor) -> None:  # noqa: ANN001
    """Lengths 7, 3, 4, 5 in chunks of 4 steps: the second environment runs three while the first runs one."""
    rollout(envs(2), random_actor, seeds=[4, 0, 1, 2])
    steps_before = [[int(row[0]) for row in batch] for batch in random_actor.batches]
    assert steps_before == [[0, 0], [4, 0], [0, 4], [4, 4]]


def test_the_first_episodes_do_not_depend_on_those_after_them(random_actor) -> None:  # noqa: ANN001
    alone = rollout(envs(2), random_actor, seeds=[4, 0])
    assert same(alone, rollout(envs(2), random_actor, seeds=[4, 0, 1, 2])[:2])


def test_no_seeds_are_no_episodes(random_actor) -> None:  # noqa: ANN001
    assert rollout(envs(2), random_actor, seeds=[]) == []


def test_reused_environments_do_not_change_the_result(random_actor) -> None:  # noqa: ANN001
    reused = envs(2)
    first = rollout(reused, random_actor, seeds=range(4))
    assert same(first, rollout(reused, random_actor, seeds=range(4)))


def test_episodes_are_announced_in_order(random_actor) -> None:  # noqa: ANN001
    seen: list[int | None] = []
    # The first one is the longest.
    rollout(envs(2), random_actor, seeds=[4, 0, 1], on_episode=lambda episode: seen.append(episode.seed))
    assert seen == [4, 0, 1]


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_nan_ends_the_episode_as_a_failure(random_actor, where: str) -> None:  # noqa: ANN001
    (episode,) = rollout(envs(1, nan_at=2, nan_where=where), random_actor, seeds=[1])
    assert episode.length == 2
    assert episode.terminated and episode.success is False
    assert episode.metrics["nan"] == 1.0 and episode.metrics["score"] == 2.0
    assert np.isfinite(episode.observations).all() and np.isfinite(episode.rewards).all()


def test_diverged_actor_is_an_error(random_actor) -> None:  # noqa: ANN001
    random_actor.act = lambda observations: np.full((len(observations), 4, 2), np.nan)
    with pytest.raises(SerfnError, match="not finite"):
        rollout(envs(1), random_actor, seeds=[0])


@pytest.mark.parametrize("steps", [0, 5])
def test_impossible_number_of_executed_steps(random_actor, steps: int) -> None:  # noqa: ANN001
    random_actor.n_action_steps = steps
    with pytest.raises(SerfnError, match=f"n_action_steps.*is {steps}.*between 1 and the chunk size 4"):
        rollout(envs(1), random_actor, seeds=[0])


def test_no_environments(random_actor) -> None:  # noqa: ANN001
    with pytest.raises(SerfnError, match="no environments"):
        rollout([], random_actor, seeds=[0])


def test_result_takes_the_score_of_the_task(random_actor) -> None:  # noqa: ANN001
    result = evaluation_result(rollout(envs(2), random_actor, seeds=[0, 1, 2]), control_hz=10.0)
    assert result.scores == (3.0, 4.0, 5.0)
    assert result.lengths == (3, 4, 5)
    assert result.metrics["late"] == (1.0, 1.0, 1.0)


class PassesThrough(gymnasium.Env):
    """The point is in its goal at step 2 alone; `says` is how info tells it, and `rule` what counts."""

    def __init__(self, says: str = "every", rule: str = "ever") -> None:
        self.metadata = {"render_fps": 10, "success_rule": rule}
        self.observation_space = gymnasium.spaces.Box(-1, 9, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(np.array([-1.0, 0.0]), np.array([1, 0.1]), dtype=np.float64)
        self.says = says

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        inside = self.steps == 2
        info = {"success": inside} if inside or self.says == "every" else {}
        return np.full(1, self.steps, np.float32), 0.0, False, self.steps == 4, info


@pytest.mark.parametrize(
    ("says", "rule", "success"),
    [("every", "ever", True), ("once", "ever", True), ("every", "final", False), ("once", "final", False)],
)
def test_success_is_what_the_environments_rule_says(
    says: str, rule: str, success: bool, random_actor: RandomActor
) -> None:
    env = GuardedEnv(PassesThrough(says, rule), "test/PassesThrough-v0")
    (episode,) = rollout([env], random_actor, seeds=[0])
    assert episode.success is success and episode.success_source == "environment"


def test_episodes_before_the_first_success_failed(random_actor: RandomActor) -> None:
    class Late(PassesThrough):
        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            *rest, info = super().step(action)
            self.tried = getattr(self, "tried", 0) + 1
            # The first episode has no success, and no word about it.
            return (*rest, info if self.tried > 4 else {})  # pyright: ignore[reportReturnType]

    env = GuardedEnv(Late("once"), "test/Late-v0")
    episodes = rollout([env], random_actor, seeds=[0, 1])
    assert [episode.success for episode in episodes] == [False, True]
