from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serfn.data.episode import Episode


def _make_episode(
    length: int,
    seed: int = 0,
    *,
    obs: int = 3,
    action: int = 2,
    cameras: dict[str, tuple[int, int, int]] | None = None,
    full: bool = True,
    **changes: Any,
) -> Episode:
    """Return an episode that carries everything an episode can, or only what it must."""
    rng = np.random.default_rng([seed, length])
    values: dict[str, Any] = {
        "observations": rng.normal(size=(length + 1, obs)),
        "actions": rng.uniform(-1, 1, size=(length, action)),
        "rewards": rng.normal(size=length),
        "terminated": seed % 2 == 0,
        "truncated": seed % 2 == 1,
        "chunk_starts": np.arange(length) % 3 == 0,
        "images": {
            name: rng.integers(0, 256, size=(length + 1, *shape), dtype=np.uint8)
            for name, shape in (cameras or {}).items()
        },
    }
    if full:
        values |= {
            "success": seed % 2 == 0,
            "success_source": "operator",
            "seed": 2**40 + seed,
            "policy_version": seed,
            "task": "dreh den Würfel 🎲",
            "metrics": {"rev": 1.5, "drops": float(seed)},
            "proposed_actions": rng.normal(size=(length, action)),
            "interventions": rng.uniform(size=length) < 0.3,
            "timestamps_s": np.cumsum(rng.uniform(0.04, 0.06, size=length + 1)),
        }
    return Episode(**(values | changes))


def _assert_same(before: Episode, after: Episode, *, but: tuple[str, ...] = ()) -> None:
    """Compare everything that two episodes carry, exactly."""
    assert before.images.keys() == after.images.keys()
    for name, value in vars(before).items():
        if name == "images":
            if name not in but:
                for camera, images in value.items():
                    np.testing.assert_array_equal(after.images[camera], images, err_msg=camera)
        elif name not in but:
            other = getattr(after, name)
            assert (value is None) == (other is None), name
            np.testing.assert_array_equal(other, value, err_msg=name)


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    return _make_episode


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    return _assert_same
