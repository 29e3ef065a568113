"""Writing files and folders so that a reader sees all of them or nothing, with ordinary permissions."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

LEAST_FREE_BYTES = 500_000_000
"""Free space of a disk without which no further episode begins."""


@contextmanager
def whole_file(path: Path, *, flush: bool = True) -> Generator[Path]:
    """Yield a path to write to; on leaving, it replaces `path` in one step, flushed to disk.

    The folder must exist. When the body raises, what it wrote is deleted and `path` stays as it was. Without
    `flush`, a process may be killed at any moment, but a power cut may leave an empty file.
    """
    temporary = unused_path(path)
    try:
        yield temporary
        if flush:
            flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Replace the text of `path` in one step, flushed to disk."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def unused_path(path: Path) -> Path:
    """Return a hidden name beside `path` that nobody uses.

    Unlike those of `tempfile`, which only their owner may read, what is made under this name gets the
    permissions that the user's umask gives to any other file.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def flush_to_disk(path: Path) -> None:
    """Force the content of a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_room(path: Path) -> str | None:
    """Return in words that the disk of `path` has no room for another episode, or None if it has."""
    free = shutil.disk_usage(path).free
    if free >= LEAST_FREE_BYTES:
        return None
    return (
        f"the disk of '{path}' has {free / 1e6:.0f} MB left, and an episode with images may need "
        f"{LEAST_FREE_BYTES / 1e6:.0f}: make room, then go on"
    )
