from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from serfn.core.spec import ActionSpec
from serfn.data.replay import ChunkReplay
from serfn.data.store.labels import LabelChange
from serfn.data.store.loading import add_stored
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter

SPEC = ActionSpec((-1.0, -1.0), (1.0, 1.0))


def test_a_replay_follows_a_store_that_grows(folder: Path, toys: Any) -> None:
    replay, store = ChunkReplay(SPEC, 3, 3, 100), EpisodeStore(folder)
    assert add_stored(replay, store) == -1
    with StoreWriter(folder) as writer:
        for seed in range(3):
            writer.add(toys.random(seed, success=seed == 0, success_source="environment"))
        store.refresh()
        store.relabel(1, LabelChange(source="operator", discard=True))
        store.relabel(2, LabelChange(source="operator", success=True))
        assert add_stored(replay, store) == 2
        assert (replay.num_episodes, len(replay), replay.num_imitable_steps) == (2, 14, 14)
        writer.add(toys.random(3, success=None, success_source=None))
        store.refresh()
        assert add_stored(replay, store, after=2) == 3
    assert (replay.num_episodes, replay.num_imitable_steps) == (3, 14)
    item = toys.random(3)
    batch = replay.windows(np.array([14]))
    np.testing.assert_array_equal(batch.actions[0], SPEC.normalize(item.actions[:3]))
    np.testing.assert_array_equal(batch.interventions[0], item.interventions[:3])
