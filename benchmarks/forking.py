"""Children that are forked to be killed: what the crash harnesses share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def start_child(work: Callable[[], Any]) -> int:
    """Run `work` in a forked child and return its process id; after an error it says so and exits with 1."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)
