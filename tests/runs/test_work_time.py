"""Every moment of a run belongs to one part of the work."""

import numpy as np
import pytest

from serfn.runs.work_time import LEARNING, WorkTime


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Actor:
    """Takes a quarter of a second for a decision."""

    chunk_size = n_action_steps = 2

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def act(self, observations: np.ndarray) -> np.ndarray:
        self.clock.now += 0.25
        return observations

    def reset(self, seed: int) -> None:
        self.seed = seed


def test_parts_nest_and_add_up_to_what_passed() -> None:
    clock = Clock()
    watch = WorkTime(clock)
    clock.now += 1.0
    actor = watch.acting(Actor(clock), "acting")
    with watch.spent_on("simulation"):
        clock.now += 2.0
        actor.act(np.zeros((1, 3)))
        clock.now += 0.5
    with pytest.raises(KeyError), watch.spent_on("films"):
        clock.now += 3.25
        raise KeyError
    clock.now += 1.0
    assert watch.seconds == {LEARNING: 2.0, "simulation": 2.5, "acting": 0.25, "films": 3.25}
    assert watch.summary()["simulation"] == {"seconds": 2.5, "share": 0.3125}
    assert sum(part["share"] for part in watch.summary().values()) == pytest.approx(1.0, abs=1e-3)


def test_an_interrupted_run_counts_on() -> None:
    clock = Clock()
    watch = WorkTime(clock)
    clock.now += 7.0
    watch.begin({LEARNING: 1.0, "simulation": 4.0})
    clock.now += 2.0
    assert watch.seconds == {LEARNING: 3.0, "simulation": 4.0}


def test_a_timed_actor_acts_as_the_one_it_times() -> None:
    own = Actor(Clock())
    actor = WorkTime(Clock()).acting(own, "acting")
    actor.reset(7)
    assert (own.seed, actor.chunk_size, actor.n_action_steps) == (7, 2, 2)
