"""Ctrl-C between updates instead of inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the user asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Return whether the user asked to stop."""
        return self.requested


@contextmanager
def deferred_interrupt() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C into a request for the next safe point; a second one stops at once.

    An interrupt inside an optimiser step would leave weights and moments of different steps behind. Outside
    the main thread, where Python delivers no signals, this does nothing.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
