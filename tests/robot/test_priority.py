from __future__ import annotations

import os

import pytest

from serfn.core.errors import ConfigError
from serfn.robot.priority import real_time_priority


def test_no_level_changes_nothing() -> None:
    with real_time_priority(None) as granted:
        assert not granted


@pytest.mark.parametrize("level", [0, 100, -3])
def test_impossible_levels_are_refused(level: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and 99"), real_time_priority(level):
        pass


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs the schedulers of Linux")
def test_the_thread_gets_its_class_back() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(RuntimeError), real_time_priority(1) as granted:
        assert (os.sched_getscheduler(0) & os.SCHED_FIFO != 0) is granted
        raise RuntimeError
    assert os.sched_getscheduler(0) == before


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs the schedulers of Linux")
def test_a_refusal_is_said_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with real_time_priority(5) as granted:
        assert not granted
