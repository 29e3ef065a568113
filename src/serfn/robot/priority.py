"""Real-time priority for the threads that a robot waits for, where the operating system permits it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from serfn.core.errors import ConfigError

CONTROL_PRIORITY, INFERENCE_PRIORITY = 20, 10
"""Levels of the control thread and of the inference beside it: above everything ordinary."""


@contextmanager
def real_time_priority(level: int | None) -> Iterator[bool]:
    """Run the body with the calling thread in the first-in-first-out real-time class.

    A learner, a browser or a backup on the same machine then cannot delay it. Linux permits this to root and
    to users with an `rtprio` limit. Threads and processes that the body starts do not inherit it.

    Args:
        level: Priority from 1 to 99; None changes nothing.

    Yields:
        Whether the thread has real-time priority.

    Raises:
        ConfigError: The level is out of range.
    """
    if level is not None and not 1 <= level <= 99:
        raise ConfigError(f"the real-time priority is {level}; it must be between 1 and 99")
    if level is None or not hasattr(os, "sched_setscheduler"):
        yield False
        return
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(level))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, before, parameters)
