"""Experience from a robot's machine to the learner's, and weights back, over a link that may be cut.

Episodes are durable on the robot's machine before they are sent, are sent in order, and count as sent once
the other side has committed them under the same identity: a cut, a kill or a repeated send on either side
neither loses nor doubles one. The robot never waits for the link.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from serfn.core.errors import DataError, SerfnError
from serfn.core.files import write_atomically
from serfn.data.store.store import EpisodeStore, is_store, open_or_create
from serfn.data.store.writer import StoreWriter
from serfn.sessions.cluster.wire import decode_episode, encode_episode
from serfn.sessions.folder import RobotFolder
from serfn.sessions.snapshots import SnapshotStore

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


class LinkError(SerfnError):
    """The learner's machine cannot be reached; what was to be sent is sent later."""


class Link(Protocol):
    """The way to the learner's machine; every method raises `LinkError` while it cannot be reached."""

    def push(self, robot: str, uid: str, episode: bytes) -> None:
        """Send an episode; returning means that the other side has committed it."""
        ...

    def pull(self, known: int) -> tuple[int, dict[str, bytes]] | None:
        """Return version and files of the newest snapshot if it is newer than `known`, else None."""
        ...


class LinkedSnapshots:
    """A `SnapshotSource` over a link.

    Args:
        link: Way to the learner's machine.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def fetch(self, snapshots: SnapshotStore) -> None:
        """Bring the newest snapshot here; see `SnapshotSource`."""
        pulled = self._link.pull(snapshots.latest() or 0)
        if pulled is not None:
            snapshots.unpack(*pulled)


class Shipper:
    """Sends the committed episodes of one store, oldest first, in a thread of its own.

    Args:
        robot: Name of the robot.
        store: Folder of its store.
        cursor: File that says how far it was sent.
        link: Way to the learner's machine.
        note: Takes one sentence for people.
    """

    def __init__(
        self,
        robot: str,
        store: Path,
        cursor: Path,
        link: Link,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._robot, self._store, self._cursor, self._link = robot, store, cursor, link
        self._note = note
        self._next = _read_cursor(cursor)
        self._wake = threading.Event()
        self._closed = False
        self._cut = False
        self._thread = threading.Thread(target=self._work, name="serfn-shipper", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """Say that an episode was committed; never waits."""
        self._wake.set()

    def close(self, timeout_s: float = 10.0) -> None:
        """Send what can still be sent within `timeout_s`; the rest is sent next time."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def ship(self) -> int:
        """Send all committed episodes that were not sent yet, and return how many.

        Raises:
            LinkError: The link is cut; those acknowledged so far count as sent.
            DataError: The store is damaged.
        """
        if not is_store(self._store):
            return 0
        store, sent = EpisodeStore(self._store), 0
        for number in store.numbers:
            if number < self._next:
                continue
            summary = store.summary(number)
            if not summary.discard:
                self._link.push(self._robot, summary.uid, encode_episode(store.episode(number)))
                sent += 1
            self._next = number + 1
            write_atomically(self._cursor, json.dumps({"next": self._next}))
        return sent

    def _work(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            closing = self._closed
            try:
                self.ship()
                if self._cut:
                    self._note("the link is back, and all experience was sent")
                self._cut, wait_s = False, _FIRST_WAIT_S
            except LinkError as error:
                if not self._cut:
                    self._note(f"the link is cut, experience is kept here: {error}")
                self._cut, wait_s = True, min(2 * wait_s, _LONGEST_WAIT_S)
            except Exception as error:
                # Whatever is wrong with sending, the robot goes on and its experience is on disk.
                self._note(f"experience cannot be sent: {type(error).__name__}: {error}")
                wait_s = _LONGEST_WAIT_S
            if closing:
                return
            self._wake.wait(wait_s if self._cut else None)
            self._wake.clear()


class Exchange:
    """The learner's end of all links: commits what arrives and hands out snapshots.

    Args:
        folder: Folder of the session on the learner's machine.
    """

    def __init__(self, folder: RobotFolder) -> None:
        self._folder = folder
        self._snapshots = SnapshotStore(folder.policies)
        self._writers: dict[str, StoreWriter] = {}
        self._known: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def push(self, robot: str, uid: str, episode: bytes) -> None:
        """Commit an episode; one that arrived before is acknowledged again.

        Raises:
            DataError: The bytes are no episode of this task, or cannot be written.
        """
        if not (uid.isalnum() and uid.isascii() and len(uid) <= 64):
            raise DataError(f"an episode has the identity {uid!r}; expected letters and digits")
        decoded = decode_episode(episode)
        with self._lock:
            writer = self._writer(robot)
            if uid not in self._known[robot]:
                writer.add(decoded, uid=uid)
                self._known[robot].add(uid)

    def pull(self, known: int) -> tuple[int, dict[str, bytes]] | None:
        """Return version and files of the newest snapshot if it is newer than `known`."""
        version = self._snapshots.latest()
        if version is None or version <= known:
            return None
        return version, self._snapshots.pack(version)

    def close(self) -> None:
        """Let other processes write the stores."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, robot: str) -> StoreWriter:
        if robot not in self._writers:
            path = self._folder.store(robot)
            store = open_or_create(path, self._folder.task())
            self._writers[robot] = StoreWriter(path, flush="episode")
            self._known[robot] = set(store.uids)
        return self._writers[robot]


def _read_cursor(path: Path) -> int:
    if not path.is_file():
        return 0
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["next"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"'{path}' is damaged: {error}; delete it, and all experience is sent again, once"
        ) from error
