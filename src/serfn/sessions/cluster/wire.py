"""Episodes and session folders as bytes, to be sent between machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serfn.core.errors import DataError
from serfn.core.files import whole_file
from serfn.data.episode import Episode
from serfn.data.episode_bytes import decode_episodes, encode_episodes
from serfn.sessions.folder import RobotFolder


def encode_episode(episode: Episode) -> bytes:
    """Return an episode with everything that it holds."""
    return encode_episodes([episode])


def decode_episode(content: bytes) -> Episode:
    """Inverse of `encode_episode`; the episode is validated like any other.

    Raises:
        DataError: The bytes are not one episode.
    """
    episodes = decode_episodes(content)
    if len(episodes) != 1:
        raise DataError(f"{len(episodes)} episodes were sent, not one; use the same version everywhere")
    return episodes[0]


def _files(folder: RobotFolder) -> tuple[Path, ...]:
    # The task's file last: it makes the folder a session.
    return (folder.format_file, folder.robot, folder.config, folder.probes, folder.task_file)


def pack_session(folder: RobotFolder) -> dict[str, bytes]:
    """Return what a robot on another machine needs of a session besides snapshots, by file name."""
    return {path.name: path.read_bytes() for path in _files(folder) if path.is_file()}


def unpack_session(folder: RobotFolder, files: Mapping[str, bytes]) -> None:
    """Write what `pack_session` returned into the folder of a robot's own machine; existing files stay.

    Raises:
        DataError: A name is foreign, or the folder cannot be written.
    """
    targets = {path.name: path for path in _files(folder)}
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
