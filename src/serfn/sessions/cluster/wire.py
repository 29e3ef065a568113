"""Episodes and session folders as bytes, to be sent between machines: safetensors and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from serfn.core.errors import DataError
from serfn.core.files import whole_file
from serfn.data.episode import EPISODE_COLUMNS, Episode
from serfn.sessions.folder import RobotFolder

_IMAGES = "images/"
_DTYPES = {"F32": np.float32, "F64": np.float64, "BOOL": np.bool_, "U8": np.uint8}
_VALUES = (
    "terminated",
    "truncated",
    "success",
    "success_source",
    "seed",
    "policy_version",
    "task",
    "metrics",
    "interrupted",
)


def encode_episode(episode: Episode) -> bytes:
    """Return an episode with everything that it holds as one safetensors file."""
    arrays = {name: getattr(episode, name) for name in EPISODE_COLUMNS}
    arrays |= {_IMAGES + name: images for name, images in episode.images.items()}
    values = {name: getattr(episode, name) for name in _VALUES}
    present = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    return save(present, metadata={"episode": json.dumps(values, default=dict)})


def decode_episode(content: bytes) -> Episode:
    """Inverse of `encode_episode`; the episode is validated like any other.

    Raises:
        DataError: The bytes are no episode.
    """
    try:
        # The header is an 8-byte length and JSON; the library's reader of bytes does not return its metadata.
        length = int.from_bytes(content[:8], "little")
        values = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["episode"])
        if set(values) != set(_VALUES):
            raise DataError(f"an episode has the values {sorted(values)}; expected {sorted(_VALUES)}")
        arrays = {
            name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in deserialize(content)
        }
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"what was sent is no episode: {error}; both sides need the same version") from error
    images = {
        name.removeprefix(_IMAGES): arrays.pop(name) for name in list(arrays) if name.startswith(_IMAGES)
    }
    if unknown := set(arrays) - set(EPISODE_COLUMNS):
        raise DataError(
            f"an episode brings unknown arrays {sorted(unknown)}; use the same version everywhere"
        )
    try:
        return Episode(**arrays, **values, images=images)
    except TypeError as error:
        raise DataError(f"what was sent is no whole episode: {error}") from error


def pack_session(folder: RobotFolder) -> dict[str, bytes]:
    """Return what a robot on another machine needs of a session besides snapshots, by file name."""
    files = (folder.robot, folder.config, folder.probes, folder.task_file)
    return {path.name: path.read_bytes() for path in files if path.is_file()}


def unpack_session(folder: RobotFolder, files: Mapping[str, bytes]) -> None:
    """Write what `pack_session` returned into the folder of a robot's own machine; existing files stay.

    Raises:
        DataError: A name is foreign, or the folder cannot be written.
    """
    targets = {path.name: path for path in (folder.robot, folder.config, folder.probes, folder.task_file)}
    if foreign := set(files) - set(targets):
        raise DataError(f"a session brings {sorted(foreign)}; its files are {sorted(targets)}")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if not targets[name].exists():
                with whole_file(targets[name]) as temporary:
                    temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"cannot write '{folder.path}': {error}; check space and permissions") from error
