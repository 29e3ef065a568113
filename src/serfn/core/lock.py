"""One process at a time: the lock of a file, which the system frees however its holder ends."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from serfn.core.errors import SerfnError


class FileLock:
    """Holds a lock until it is released or the process ends; a context manager too.

    Args:
        path: Lock file; it stays, and says who held it last.
        busy: What the second one is told; `{holder}` becomes who holds it.
        error: What is raised.

    Raises:
        SerfnError: As `error`: another process holds it, or the file system cannot lock.
    """

    def __init__(self, path: Path, busy: str, error: type[SerfnError]) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as problem:
            raise error(f"cannot write '{path}': {problem}; check the path and its permissions") from problem
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise error(busy.replace("{holder}", holder or "another process")) from None
        except OSError as problem:
            os.close(self._descriptor)
            raise error(f"'{path}' cannot be locked: {problem}; use a local file system") from problem
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError:
            # On a full disk the name of the holder is the least that is missing.
            return

    def release(self) -> None:
        """Let another process in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        """Return the lock, which is held already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""
        self.release()


def wait_for(descriptor: int) -> None:
    """Lock an open file, waiting for whoever holds it; closing the file frees it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
