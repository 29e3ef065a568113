"""One writer at a time, and a clear word for the second one."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from serfn.core.errors import DataError


class WriterLock:
    """Holds the lock of a store until it is released or the process ends, however it ends.

    Args:
        path: Lock file; it stays, and says who held it last.

    Raises:
        DataError: Another writer holds it, or the file system cannot lock.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DataError(f"cannot write '{path}': {error}; check the path and its permissions") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise DataError(
                f"'{path.parent}' is being written by {holder or 'another process'}; a store has one writer "
                "at a time: wait for it, stop it, or use another store"
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise DataError(f"'{path}' cannot be locked: {error}; use a local file system") from error
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError:
            # On a full disk the name of the holder is the least that is missing.
            return

    def release(self) -> None:
        """Let another writer in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
