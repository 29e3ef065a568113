"""Independent random streams from one seed, named by a path such as `("online", "replay", 3)`.

Streams depend on the seed and the path only, never on the order in which they are made, so that adding a
consumer of randomness does not change the draws of the others.
"""

from __future__ import annotations

import hashlib

import numpy as np

from serfn.core.errors import ConfigError


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return the numpy generator of the stream `path` under `seed`.

    Args:
        seed: Seed of the run, at least 0.
        *path: Names and numbers that identify the stream; `"1"` and `1` are different.

    Raises:
        ConfigError: `seed` is negative.
    """
    return np.random.default_rng(_sequence(seed, path))


def torch_seed(seed: int, *path: str | int) -> int:
    """Return a seed in [0, 2^63) for `torch.Generator.manual_seed`, for the stream `path` under `seed`."""
    return int(_sequence(seed, path).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, path: tuple[str | int, ...]) -> np.random.SeedSequence:
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
    # Python's own hash() of strings changes from process to process; length prefixes keep ("ab",) and
    # ("a", "b") apart.
    digest = hashlib.blake2b(digest_size=16)
    for part in path:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    words = np.frombuffer(digest.digest(), dtype="<u4")
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(int(word) for word in words))
