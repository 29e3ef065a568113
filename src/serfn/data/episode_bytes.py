"""Episodes as bytes, with everything that they hold: one safetensors file, never pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from serfn.core.errors import DataError
from serfn.data.episode import EPISODE_COLUMNS, EPISODE_VALUES, Episode, episode_values

_IMAGES = "images/"
_DTYPES = {"F32": np.float32, "F64": np.float64, "BOOL": np.bool_, "U8": np.uint8}


def encode_episodes(episodes: Sequence[Episode]) -> bytes:
    """Return episodes as one safetensors file; the arrays of the first are `0/actions` and so on."""
    arrays: dict[str, np.ndarray] = {}
    for number, episode in enumerate(episodes):
        found = {name: getattr(episode, name) for name in EPISODE_COLUMNS}
        found |= {_IMAGES + name: images for name, images in episode.images.items()}
        arrays |= {
            f"{number}/{name}": np.ascontiguousarray(array)
            for name, array in found.items()
            if array is not None
        }
    values = [episode_values(episode) for episode in episodes]
    return save(arrays, metadata={"episodes": json.dumps(values)})


def decode_episodes(content: bytes) -> list[Episode]:
    """Inverse of `encode_episodes`; the episodes are validated like any other.

    Raises:
        DataError: The bytes are no episodes, or bring fields that an episode does not have.
    """
    try:
        # The header is an 8-byte length and JSON; the library's reader of bytes does not return its metadata.
        length = int.from_bytes(content[:8], "little")
        values = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["episodes"])
        arrays: list[dict[str, np.ndarray]] = [{} for _ in values]
        for key, entry in deserialize(content):
            number, _, name = key.partition("/")
            array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            arrays[int(number)][name] = array
        return [_episode(own, about) for own, about in zip(arrays, values, strict=True)]
    except DataError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"these are no whole episodes: {error}; both sides need the same version") from error


def _episode(arrays: dict[str, np.ndarray], values: dict[str, object]) -> Episode:
    if set(values) != set(EPISODE_VALUES):
        raise DataError(
            f"an episode has the values {sorted(values)}, expected are {sorted(EPISODE_VALUES)}; use the "
            "same version everywhere"
        )
    images = {
        name.removeprefix(_IMAGES): arrays.pop(name) for name in list(arrays) if name.startswith(_IMAGES)
    }
    if unknown := set(arrays) - set(EPISODE_COLUMNS):
        raise DataError(
            f"an episode brings unknown arrays {sorted(unknown)}; use the same version everywhere"
        )
    return Episode(**arrays, **values, images=images)  # pyright: ignore[reportArgumentType]
