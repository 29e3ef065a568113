"""Checkpoints as folders of safetensors and JSON, written atomically, read back bit for bit.

Layout of a checkpoint root::

    checkpoints/
      00003500/                 one checkpoint, named by the number of updates before it
        state.json              the tree of values, tensors replaced by their names
        state.safetensors       the tensors
        config.json             the configuration of the run, and checksums of both files
      episodes/                 online episodes, one file per round, where the surroundings have no store for
                                them, see `serfn.training.episode_log`
      last.json  best.json      pointers: {"folder": "00003500"}

A folder appears under its final name only when it is complete and flushed to disk, and a pointer is replaced
in one step, so a process killed at any moment leaves a checkpoint that can be resumed from. Nothing is
pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from serfn.core.errors import CheckpointError
from serfn.core.files import flush_to_disk, unused_path, write_atomically
from serfn.core.format_version import Format

CHECKPOINT = Format(
    name="serfn-checkpoint",
    kind="checkpoint",
    version=2,
    oldest=2,
    remedy="use the serfn that wrote it, or the bundle 'policy' of its run, which is read",
    error=CheckpointError,
)
Pointer = Literal["last", "best"]
Tree = dict[str, Any]
"""Nested dictionaries with string keys; leaves are tensors, numpy arrays or values that JSON can write."""

_TENSOR, _ARRAY = "__tensor__", "__array__"
_SHOWN_DIFFERENCES = 8


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        root: Folder of the checkpoints; made on the first save.
        config: Configuration of the run as plain values. Loading refuses a checkpoint of another
            configuration.
        hints: Keys of the configuration whose values say where something lies, not what it is: two different
            ones are no other configuration. What lies there must be compared by whoever resumes.
        keep: Number of newest checkpoints to keep besides those that a pointer names.

    Raises:
        CheckpointError: `keep` is below 1.
    """

    def __init__(
        self, root: Path, config: Mapping[str, Any], *, hints: Sequence[str] = (), keep: int = 1
    ) -> None:
        if keep < 1:
            raise CheckpointError(f"keep is {keep}; at least 1 checkpoint must stay")
        self.root = Path(root)
        self._config = as_stored(config)
        self._hints = hints
        self._keep = keep

    def save(self, step: int, tree: Tree, *, best: bool = False) -> Path:
        """Write `tree` as the newest checkpoint and point `last` (and `best`, if asked) to it.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            folder = self._write(step, tree)
            self._point("last", folder)
            if best:
                self._point("best", folder)
        except OSError as error:
            raise CheckpointError(
                f"cannot write a checkpoint to '{self.root}': {error}; check space and permissions"
            ) from error
        self._prune()
        return folder

    def load(self, pointer: Pointer = "last", *, device: torch.device | str = "cpu") -> Tree:
        """Read the checkpoint that `pointer` names.

        Raises:
            CheckpointError: There is none, it is damaged, or it belongs to another configuration (the message
                lists the keys that differ).
        """
        folder = resolve(self.root, pointer)
        stored = read_config(folder)
        here = {name: self._config[name] for name in self._hints if self._config.get(name) is not None}
        moved = {name: value for name, value in here.items() if stored.get(name) is not None}
        differing = differing_keys({**stored, **moved}, self._config)
        if differing:
            shown = "; ".join(differing[:_SHOWN_DIFFERENCES])
            more = (
                f"; and {len(differing) - _SHOWN_DIFFERENCES} more"
                if len(differing) > _SHOWN_DIFFERENCES
                else ""
            )
            raise CheckpointError(
                f"checkpoint '{folder}' was written with another configuration ({shown}{more}); "
                "resume with the same options or choose a new run folder"
            )
        return read_tree(folder, device=device)

    def _write(self, step: int, tree: Tree) -> Path:
        tensors: dict[str, Tensor] = {}
        plain = _extract(tree, "", tensors)
        temporary = unused_path(self.root / "incomplete")
        try:
            temporary.mkdir()
            # As bytes: the library's own files could be read by their owner only.
            (temporary / "state.safetensors").write_bytes(save(tensors))
            (temporary / "state.json").write_text(json.dumps(plain), encoding="utf-8")
            about = {
                **CHECKPOINT.stamp(),
                "hash": config_hash(self._config),
                "checksums": {file.name: _checksum(file) for file in temporary.iterdir()},
                "config": self._config,
            }
            (temporary / "config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
            for file in temporary.iterdir():
                flush_to_disk(file)
            folder = self._free_name(step)
            os.replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush_to_disk(self.root)
        return folder

    def _free_name(self, step: int) -> Path:
        # An existing checkpoint is never overwritten: `last` may point to it until the new one is complete.
        folder, number = self.root / f"{step:08d}", 1
        while folder.exists():
            folder, number = self.root / f"{step:08d}-{number}", number + 1
        return folder

    def _point(self, pointer: Pointer, folder: Path) -> None:
        write_atomically(self.root / f"{pointer}.json", json.dumps({"folder": folder.name}))

    def _prune(self) -> None:
        folders = [path for path in self.root.iterdir() if path.is_dir() and path.name[0].isdigit()]
        folders.sort(key=lambda path: path.stat().st_mtime_ns)
        pointed = {target(self.root, "last"), target(self.root, "best")}
        for folder in folders[: -self._keep]:
            if folder not in pointed:
                shutil.rmtree(folder, ignore_errors=True)


def resolve(root: Path, pointer: Pointer) -> Path:
    """Return the folder that `pointer` names under the checkpoint root.

    Raises:
        CheckpointError: There is no such pointer or its folder is gone.
    """
    folder = target(root, pointer)
    if folder is None:
        raise CheckpointError(f"no '{pointer}' checkpoint in '{root}'; train first or check the path")
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint '{folder}' named by '{pointer}' is missing; restore the folder")
    return folder


def target(root: Path, pointer: Pointer) -> Path | None:
    """Return the folder that `pointer` names, or None if the pointer was never written."""
    path = Path(root) / f"{pointer}.json"
    if not path.is_file():
        return None
    try:
        return Path(root) / json.loads(path.read_text(encoding="utf-8"))["folder"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint pointer '{path}' is damaged: {error}; restore or delete it"
        ) from error


def read_tree(folder: Path, *, device: torch.device | str = "cpu") -> Tree:
    """Read the values of one checkpoint folder, after comparing them with their checksums.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    try:
        about = _read_about(folder)
        for name, expected in about["checksums"].items():
            if (found := _checksum(folder / name)) != expected:
                raise CheckpointError(
                    f"checkpoint '{folder}' is damaged: {name} has checksum {found}; use an older one"
                )
        plain = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors", device=str(device))
        return _insert(plain, tensors)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"checkpoint '{folder}' is damaged: {error}; use an older one") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration stored in one checkpoint folder.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    return _read_about(folder)["config"]


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        CHECKPOINT.check(about, folder)
        return {"checksums": about["checksums"], "config": about["config"]}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint '{folder}' has no readable config.json: {error}") from error


def as_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values as they come back from disk: tuples as lists."""
    return json.loads(json.dumps(values))


def config_hash(config: Mapping[str, Any]) -> str:
    """Return a short hash of plain configuration values that does not depend on the order of keys."""
    return hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=8).hexdigest()


def differing_keys(stored: Mapping[str, Any], current: Mapping[str, Any], path: str = "") -> list[str]:
    """Return one line per dotted key whose value differs between two plain configurations."""
    lines: list[str] = []
    for key in sorted({*stored, *current}):
        dotted = f"{path}.{key}" if path else key
        before, now = stored.get(key), current.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            lines += differing_keys(before, now, dotted)
        elif before != now:
            lines.append(f"{dotted}: stored {before!r}, now {now!r}")
    return lines


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _extract(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Copy the tensors of a tree into `tensors` and return the rest, with references in their place."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.ascontiguousarray(value)).clone()
        return {_ARRAY: name}
    if isinstance(value, Mapping):
        return {
            str(key): _extract(item, f"{name}/{key}" if name else str(key), tensors)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_extract(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _insert(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        if value.keys() == {_ARRAY}:
            return tensors[value[_ARRAY]].cpu().numpy()
        return {key: _insert(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_insert(item, tensors) for item in value]
    return value
