"""Whatever stores, sends or converts episodes keeps every field of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.datasets import open_source
from serfn.data.episode import EPISODE_COLUMNS, EPISODE_VALUES, Episode, EpisodeBuilder
from serfn.data.episode_bytes import decode_episodes, encode_episodes
from serfn.data.formats.lerobot_write import LeRobotOptions, write_lerobot
from serfn.data.formats.npz import load_npz, save_npz
from serfn.data.store.chunks import Ending, chunks_of, start_of
from serfn.data.store.journal import Journal, read_journal
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter

FIELDS = [field.name for field in dataclasses.fields(Episode)]
ACTIONS = ActionSpec((-1.0, -1.0), (1.0, 1.0))
TASK = TaskSpec("turn", ObservationSpec(3), ACTIONS, 20.0, 10)


def full_episode(steps: int, seed: int) -> Episode:
    """An episode that has everything, nothing of it at its default."""
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(steps + 1, 3)),
        actions=rng.uniform(-1, 1, (steps, 2)),
        rewards=rng.normal(size=steps),
        terminated=False,
        truncated=True,
        success=False,
        success_source="operator",
        seed=seed,
        policy_version=7,
        task="turn the cube",
        metrics={"turns": 1.5 + seed},
        chunk_starts=np.arange(steps) % 3 == 0,
        proposed_actions=rng.uniform(-1, 1, (steps, 2)),
        interventions=np.arange(steps) % 2 == 0,
        timestamps_s=np.cumsum(rng.random(steps + 1)),
        images={"palm": rng.integers(256, size=(steps + 1, 4, 5, 3), dtype=np.uint8)},
        interrupted=True,
    )


def by_npz(episodes: list[Episode], folder: Path) -> list[Episode]:
    save_npz(folder / "episodes.npz", episodes)
    return list(load_npz(folder / "episodes.npz").episodes)


def by_store(episodes: list[Episode], folder: Path) -> list[Episode]:
    EpisodeStore.create(folder / "store", TASK)
    with StoreWriter(folder / "store") as writer:
        for episode in episodes:
            writer.add(episode)
    return list(EpisodeStore(folder / "store").episodes())


def by_journal(episodes: list[Episode], folder: Path) -> list[Episode]:
    found = []
    for number, episode in enumerate(episodes):
        journal = Journal(folder / f"{number}.journal", start_of(episode), flush=False)
        for chunk in chunks_of(episode):
            journal.append(chunk)
        journal.end(Ending(**{field.name: getattr(episode, field.name) for field in ENDING}))
        journal.close()
        content = read_journal(journal.path)
        pieces = list(content.frames())
        images = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        found.append(dataclasses.replace(content.episode(), images=images))
    return found


ENDING = [field for field in dataclasses.fields(Ending) if field.name in FIELDS]


def by_lerobot(episodes: list[Episode], folder: Path) -> list[Episode]:
    write_lerobot(folder / "lerobot", episodes, LeRobotOptions(fps=20.0), ACTIONS)
    return list(open_source(folder / "lerobot").read())


def by_bytes(episodes: list[Episode], folder: Path) -> list[Episode]:
    return decode_episodes(encode_episodes(episodes))


def by_builder(episodes: list[Episode], folder: Path) -> list[Episode]:
    found = []
    for episode in episodes:
        builder = EpisodeBuilder(
            3, 2, seed=episode.seed, policy_version=episode.policy_version, task=episode.task
        )
        assert episode.proposed_actions is not None and episode.interventions is not None
        assert episode.timestamps_s is not None
        for step in range(episode.length):
            builder.append(
                episode.observations[step],
                episode.actions[step],
                float(episode.rewards[step]),
                chunk_start=bool(episode.chunk_starts[step]),
                proposed_action=episode.proposed_actions[step],
                intervention=bool(episode.interventions[step]),
                timestamp_s=float(episode.timestamps_s[step]),
                images={name: images[step] for name, images in episode.images.items()},
            )
        built = builder.finish(
            episode.observations[-1],
            terminated=episode.terminated,
            truncated=episode.truncated,
            success=episode.success,
            success_source=episode.success_source,
            metrics=episode.metrics,
            timestamp_s=float(episode.timestamps_s[-1]),
            images={name: images[-1] for name, images in episode.images.items()},
        )
        # Only who finds the traces of a crash says that an episode was interrupted.
        found.append(dataclasses.replace(built, interrupted=episode.interrupted))
    return found


def test_the_tables_name_every_field_once() -> None:
    assert sorted([*EPISODE_COLUMNS, *EPISODE_VALUES, "images"]) == sorted(FIELDS)


@pytest.mark.parametrize("way", [by_npz, by_store, by_journal, by_lerobot, by_bytes, by_builder])
def test_no_field_is_lost(tmp_path: Path, way: Callable[[list[Episode], Path], list[Episode]]) -> None:
    episodes = [full_episode(5, seed=1), full_episode(8, seed=2)]
    found = way(episodes, tmp_path)
    assert len(found) == len(episodes)
    for copy, original in zip(found, episodes, strict=True):
        for name in FIELDS:
            mine, other = getattr(copy, name), getattr(original, name)
            if name in EPISODE_COLUMNS:
                assert mine.dtype == other.dtype, name
                np.testing.assert_array_equal(mine, other, err_msg=name)
            elif name == "images":
                assert mine.keys() == other.keys()
                np.testing.assert_array_equal(mine["palm"], other["palm"])
            else:
                assert mine == other and type(mine) is type(other), name
