from __future__ import annotations

import pytest

from serfn.core.errors import ConfigError
from serfn.core.seeding import generator, torch_seed


def test_streams_are_reproducible_and_stable_over_releases() -> None:
    assert generator(3, "replay", 1).integers(1 << 30) == generator(3, "replay", 1).integers(1 << 30)
    # A change of these numbers breaks every recorded run.
    assert torch_seed(0) == 947885871575259729
    assert torch_seed(7, "online", 3) == 626812014067234215


def test_streams_differ_by_seed_and_by_path() -> None:
    paths = [(), ("a",), ("b",), ("a", "b"), ("ab",), (1,), ("1",), ("a", 1), (1, "a")]
    seeds = {torch_seed(seed, *path) for path in paths for seed in range(20)}
    assert len(seeds) == 20 * len(paths)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed is -1"):
        generator(-1)
