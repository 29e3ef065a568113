from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.core.errors import DataError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.labels import LabelChange
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter
from serfn.sessions.cluster.shipping import Exchange, LinkError, Shipper
from serfn.sessions.cluster.wire import decode_episode, encode_episode
from serfn.sessions.folder import RobotFolder

TASK = TaskSpec("t", ObservationSpec(3), ActionSpec((-1.0, -1.0), (1.0, 1.0)), 20.0, 10)


def episode(seed: int, **changes: Any) -> Episode:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "observations": rng.normal(size=(6, 3)),
        "actions": rng.uniform(-1, 1, (5, 2)),
        "rewards": rng.normal(size=5),
        "terminated": False,
        "truncated": True,
        "chunk_starts": [True, False, True, False, True],
        "seed": seed,
        "policy_version": 7,
        "metrics": {"score": 1.5},
    }
    return Episode(**{**values, **changes})


def same(a: Episode, b: Episode) -> None:
    for name in a.__dataclass_fields__:
        mine, other = getattr(a, name), getattr(b, name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype
        elif name != "images":
            assert mine == other


def test_episodes_travel_unchanged() -> None:
    full = episode(
        1,
        success=True,
        success_source="operator",
        task="drehe den Würfel",
        proposed_actions=np.zeros((5, 2)),
        interventions=np.arange(5) > 2,
        timestamps_s=np.arange(6.0),
        images={"palm": np.full((6, 4, 5, 3), 9, np.uint8)},
    )
    for sent in (full, episode(2)):
        same(sent, decode_episode(encode_episode(sent)))
    np.testing.assert_array_equal(decode_episode(encode_episode(full)).images["palm"], full.images["palm"])


@pytest.mark.parametrize("position", [0, 9, 60, -1])
def test_damaged_bytes_never_become_an_episode(position: int) -> None:
    content = bytearray(encode_episode(episode(3)))
    cut = bytes(content[: position or 4]) if position >= 0 else b""
    with pytest.raises(DataError):
        decode_episode(cut)


class Cable:
    """A link that can be cut, before or after the other side has heard."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.cut_before = self.cut_after = False

    def push(self, robot: str, uid: str, episode: bytes) -> None:
        if self.cut_before:
            raise LinkError("cut")
        self.exchange.push(robot, uid, episode)
        if self.cut_after:
            raise LinkError("cut before the answer")

    def pull(self, known: int) -> tuple[int, dict[str, bytes]] | None:
        return self.exchange.pull(known)


@pytest.fixture
def there(tmp_path: Path) -> RobotFolder:
    folder = RobotFolder(tmp_path / "there")
    folder.path.mkdir()
    folder.write_task(TASK)
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    EpisodeStore.create(path, TASK)
    return path


def add(store: Path, *seeds: int) -> None:
    with StoreWriter(store, flush="never") as writer:
        for seed in seeds:
            writer.add(episode(seed))


def seeds(folder: RobotFolder) -> list[int | None]:
    return [item.seed for item in EpisodeStore(folder.store("left")).episodes()]


def test_everything_arrives_once_however_the_link_is_cut(
    here: Path, there: RobotFolder, tmp_path: Path
) -> None:
    cable = Cable(Exchange(there))

    def shipper() -> Shipper:
        return Shipper("left", here, tmp_path / "sent.json", cable)

    add(here, 0, 1)
    assert shipper().ship() == 2
    add(here, 2, 3)
    cable.cut_before = True
    with pytest.raises(LinkError):
        shipper().ship()
    cable.cut_before, cable.cut_after = False, True
    # The other side has committed the episode, but the robot's machine does not know.
    with pytest.raises(LinkError):
        shipper().ship()
    cable.cut_after = False
    assert shipper().ship() == 2
    assert shipper().ship() == 0
    assert seeds(there) == [0, 1, 2, 3]
    assert EpisodeStore(there.store("left")).uids == EpisodeStore(here).uids


def test_the_exchange_may_be_killed_and_started_again(here: Path, there: RobotFolder, tmp_path: Path) -> None:
    first = Exchange(there)
    cable = Cable(first)
    add(here, 0)
    cable.cut_after = True
    shipper = Shipper("left", here, tmp_path / "sent.json", cable)
    with pytest.raises(LinkError):
        shipper.ship()
    first.close()
    cable.exchange, cable.cut_after = Exchange(there), False
    assert shipper.ship() == 1
    assert seeds(there) == [0]


def test_discarded_episodes_stay_where_they_are(here: Path, there: RobotFolder, tmp_path: Path) -> None:
    add(here, 0, 1)
    EpisodeStore(here).relabel(0, LabelChange(source="operator", discard=True))
    assert Shipper("left", here, tmp_path / "sent.json", Cable(Exchange(there))).ship() == 1
    assert seeds(there) == [1]


def test_the_thread_reconnects_by_itself(here: Path, there: RobotFolder, tmp_path: Path) -> None:
    cable, notes = Cable(Exchange(there)), []
    cable.cut_before = True
    shipper = Shipper("left", here, tmp_path / "sent.json", cable, note=notes.append)
    add(here, 0)
    shipper.start()
    until_s = time.monotonic() + 30
    while not notes and time.monotonic() < until_s:
        time.sleep(0.01)
    add(here, 1)
    cable.cut_before = False
    while len(notes) < 2 and time.monotonic() < until_s:
        time.sleep(0.01)
    shipper.close()
    assert "the link is cut" in notes[0]
    assert "the link is back" in notes[1]
    assert seeds(there) == [0, 1]


def test_two_robots_send_at_once(tmp_path: Path, there: RobotFolder) -> None:
    exchange = Exchange(there)
    threads = []
    for name in ("left", "right"):
        store = tmp_path / name
        EpisodeStore.create(store, TASK)
        add(store, *range(5))
        shipper = Shipper(name, store, tmp_path / f"{name}.json", Cable(exchange))
        threads.append(threading.Thread(target=shipper.ship))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("left", "right"):
        assert len(EpisodeStore(there.store(name))) == 5


@pytest.mark.parametrize(
    ("uid", "content"), [("../x", None), ("", None), ("ok", b"no"), ("ok", encode_episode(episode(0))[:-3])]
)
def test_nonsense_from_the_network_is_refused(there: RobotFolder, uid: str, content: bytes | None) -> None:
    exchange = Exchange(there)
    with pytest.raises(DataError):
        exchange.push("left", uid, encode_episode(episode(0)) if content is None else content)
    other = episode(0, observations=np.zeros((6, 4)))
    with pytest.raises(DataError):
        exchange.push("left", "a1", encode_episode(other))
