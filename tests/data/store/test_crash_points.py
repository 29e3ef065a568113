"""A process may die between any two calls to the operating system, and in the middle of a write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serfn.data.store.check import check_store
from serfn.data.store.chunks import chunks_of, start_of
from serfn.data.store.journal import read_journal
from serfn.data.store.labels import LabelChange
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter

CALLS = ("writev", "fsync", "replace", "rename", "unlink", "ftruncate", "open", "mkdir")


class KilledError(BaseException):
    """The process is gone; nothing that it would do afterwards reaches the disk."""


class Mortal:
    """Counts calls to the operating system, and dies at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.dies_at: int | None = None
        self._descriptors: set[int] = set()
        self._close = os.close
        patch.setattr(os, "close", self._closing)
        for name in CALLS:
            patch.setattr(os, name, self._counting(name, getattr(os, name)))

    def bury(self) -> None:
        """Close what the process had open, and so let go of its locks."""
        for descriptor in self._descriptors:
            self._close(descriptor)

    def _closing(self, descriptor: int) -> None:
        self._descriptors.discard(descriptor)
        self._close(descriptor)

    def _counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.dies_at is not None and self.calls >= self.dies_at:
                if name == "writev" and self.calls == self.dies_at:
                    whole = b"".join(arguments[1])
                    real(arguments[0], [whole[: len(whole) // 2]])
                raise KilledError
            result = real(*arguments, **options)
            if name == "open":
                self._descriptors.add(result)
            return result

        return call


class Session:
    """One robot session: an episode chunk by chunk, a whole one, and another chunk by chunk, then a label."""

    def __init__(self, folder: Path, toys: Any) -> None:
        self.folder = folder
        self.toys = toys
        self.items = [toys.random(seed) for seed in range(3)]
        self.acknowledged = [0, 0, 0]
        self.finished = [False, False, False]
        self.labelled = False

    def run(self) -> None:
        writer = StoreWriter(self.folder)
        self._record(writer, 0)
        writer.add(self.items[1])
        self.acknowledged[1], self.finished[1] = self.items[1].length, True
        self._record(writer, 2)
        EpisodeStore(self.folder).relabel(0, LabelChange(source="operator", success=False))
        self.labelled = True
        writer.close()

    def _record(self, writer: StoreWriter, index: int) -> None:
        item = self.items[index]
        recording = writer.record(start_of(item))
        for chunk in chunks_of(item):
            recording.append(chunk)
            self.acknowledged[index] += chunk.length
        recording.end(**self.toys.ending_of(item))
        self.finished[index] = True
        recording.commit()

    def verify(self) -> None:
        with StoreWriter(self.folder) as writer:
            last = writer.add(self.toys.random(3))
        assert not [finding for finding in check_store(self.folder) if finding.damage]
        store = EpisodeStore(self.folder)
        found = {store.summary(number).seed: store.episode(number) for number in store.numbers}
        assert store.numbers == tuple(range(last + 1)) and len(found) == len(store)
        for index, item in enumerate(self.items):
            steps = self.acknowledged[index]
            if index not in found:
                assert steps == 0
                continue
            episode = found[index]
            assert episode.length >= steps
            whole = episode.length == item.length and not episode.interrupted
            assert whole or not self.finished[index]
            expected = item if whole else self.toys.cut(item, episode.length)
            self.toys.assert_equal(episode, expected, scalars=index > 0)
        if self.labelled:
            assert found[0].success is False
        assert not list((self.folder / "journal").iterdir())
        assert not [path for path in (self.folder / "episodes").iterdir() if path.name[0] == "."]


def test_a_process_may_die_at_every_call(
    make_store: Callable[[str], Path], toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(make_store("rehearsal"), toys)
    with monkeypatch.context() as patch:
        mortal = Mortal(patch)
        session.run()
        calls = mortal.calls
    assert calls > 30
    for point in range(1, calls + 1):
        session = Session(make_store(f"{point}"), toys)
        with monkeypatch.context() as patch:
            mortal = Mortal(patch)
            mortal.dies_at = mortal.calls + point
            with pytest.raises(KilledError):
                session.run()
            mortal.bury()
        session.verify()


def test_recovery_may_die_at_every_call(
    make_store: Callable[[str], Path], toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing = 23

    def crashed(name: str) -> Session:
        session = Session(make_store(name), toys)
        with monkeypatch.context() as patch:
            mortal = Mortal(patch)
            mortal.dies_at = committing
            with pytest.raises(KilledError):
                session.run()
            mortal.bury()
        return session

    session = crashed("rehearsal")
    # Dead in the middle of a commitment, when the images were there and the episode was not.
    assert len(list(session.folder.glob("episodes/*.images.arrow"))) == 1
    assert len(list(session.folder.glob("episodes/0*.arrow"))) == 1
    with monkeypatch.context() as patch:
        mortal = Mortal(patch)
        StoreWriter(session.folder).close()
        calls = mortal.calls
    for point in range(1, calls + 1):
        session = crashed(f"{point}")
        with monkeypatch.context() as patch:
            mortal = Mortal(patch)
            mortal.dies_at = mortal.calls + point
            with pytest.raises(KilledError):
                StoreWriter(session.folder)
            mortal.bury()
        session.verify()


def test_a_journal_may_be_cut_at_every_byte(folder: Path, toys: Any) -> None:
    item = toys.random(0, images={})
    chunks = chunks_of(item)
    writer = StoreWriter(folder)
    recording, ends = writer.record(start_of(item)), []
    (journal,) = (folder / "journal").iterdir()
    for chunk in chunks:
        recording.append(chunk)
        ends.append((journal.stat().st_size, recording.steps))
    recording.end(**toys.ending_of(item))
    whole = journal.read_bytes()
    recording.discard()
    writer.close()
    journal.write_bytes(whole)
    for size in reversed(range(len(whole))):
        os.truncate(journal, size)
        content = read_journal(journal)
        steps = max((steps for end, steps in ends if end <= size), default=0)
        assert content.damage is None and content.steps == steps
        if steps and size % 41 == 0:
            toys.assert_equal(content.episode(), toys.cut(item, steps))


def test_a_flipped_bit_in_a_journal_is_named_and_kept_aside(folder: Path, toys: Any) -> None:
    item = toys.random(0)
    writer = StoreWriter(folder)
    recording = writer.record(start_of(item))
    (journal,) = (folder / "journal").iterdir()
    recording.append(chunks_of(item)[0])
    size = journal.stat().st_size
    recording.append(chunks_of(item)[1])
    damaged = bytearray(journal.read_bytes())
    damaged[size + 200] ^= 4
    journal.write_bytes(damaged)
    assert any("is damaged" in finding.text for finding in check_store(folder) if finding.damage)
    recording.abandon()
    writer.close()
    with StoreWriter(folder) as writer:
        (note,) = writer.recovery.notes
    assert "record 2 at byte" in note and "3 steps before it are kept" in note
    assert (folder / "quarantine" / journal.name).read_bytes() == damaged
    toys.assert_equal(EpisodeStore(folder).episode(0), toys.cut(item, 3))
