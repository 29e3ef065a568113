"""Numbered snapshots of what acts, handed from the learner to the actors.

Layout of a snapshot root::

    policies/
      00000012/                 one snapshot, named by its version
        policy/                 the policy as a bundle, see `serfn.policies.bundle`
        critic.safetensors      weights of the critic; missing where one sample is enough to act
        decision.onnx           the decision as a graph, if the publisher prepared it; PyTorch decides without
        snapshot.json           how to act, the architecture of the critic, digests of all files
      latest.json               pointer: {"folder": "00000012"}

A folder appears under its final name only when it is complete and flushed to disk, and the pointer is
replaced in one step: a reader in another process sees a whole snapshot or the one before, whoever is killed
in between. Versions count from 1 and are never reused; 0 stands for data that no policy made. Nothing is
pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import CheckpointError, ConfigError
from serfn.core.files import flush_to_disk, unused_path, write_atomically
from serfn.critics.base import ChunkCritic, CriticConfig
from serfn.critics.factory import make_critic
from serfn.policies.bundle import load_bundle, save_bundle
from serfn.training.acting import ActingConfig, BestOfNActor, sampling

_POLICY, _CRITIC, _GRAPH = "policy", "critic.safetensors", "decision.onnx"
_DOCUMENT, _LATEST = "snapshot.json", "latest.json"
_INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class SnapshotInfo:
    """What a snapshot says about itself.

    Attributes:
        version: Number of the snapshot.
        updates: Updates of the learner behind it.
        acting: How chunks are chosen.
        critic: Architecture of the critic; None if the snapshot acts without one.
        digests: SHA-256 of every file, by its path inside the folder.
    """

    version: int
    updates: int
    acting: ActingConfig
    critic: CriticConfig | None = None
    digests: Mapping[str, str] | None = None


class SnapshotStore:
    """The snapshots of one run; one process publishes, any number read.

    Args:
        root: Folder of the snapshots; made on the first publication.
        keep: Newest snapshots to keep; older ones are deleted when a new one is published, except those that
            are named as in use.

    Raises:
        ConfigError: `keep` is below 2: a reader needs the time of one publication to finish.
    """

    def __init__(self, root: Path, *, keep: int = 20) -> None:
        if keep < 2:
            raise ConfigError(f"keep is {keep}; at least 2 snapshots must stay")
        self.root = Path(root)
        self._keep = keep

    def publish(
        self,
        actor: BestOfNActor,
        *,
        updates: int,
        critic: CriticConfig | None = None,
    ) -> int:
        """Write what acts as the newest snapshot and return its version.

        Args:
            actor: Policy, critic and way of acting.
            updates: Updates of the learner so far.
            critic: Architecture of the actor's critic; needed if it has one.

        Raises:
            CheckpointError: The folder cannot be written.
            ConfigError: The actor has a critic whose architecture was not given.
        """
        if actor.critic is not None and critic is None:
            raise ConfigError("the actor has a critic; publish its configuration with it")
        version = (self.versions() or [0])[-1] + 1
        described = None if actor.critic is None else critic
        info = SnapshotInfo(version, updates, actor.acting, described)

        def fill(folder: Path) -> None:
            metadata = {**sampling(actor.acting), "updates": updates, "version": version}
            save_bundle(folder / _POLICY, actor.policy, actor.task, metadata)
            if actor.critic is not None:
                weights = {name: value.detach().cpu() for name, value in actor.critic.state_dict().items()}
                (folder / _CRITIC).write_bytes(save(weights))
            if actor.graph is not None:
                (folder / _GRAPH).write_bytes(actor.graph)
            document = {**to_dict(info), "digests": _digests(folder)}
            (folder / _DOCUMENT).write_text(json.dumps(document, indent=1), encoding="utf-8")

        self._install(version, fill)
        return version

    def latest(self) -> int | None:
        """Return the version that the pointer names, None before the first publication.

        Raises:
            CheckpointError: The pointer is damaged.
        """
        path = self.root / _LATEST
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["folder"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"'{path}' is damaged: {error}; delete it and publish again") from error

    def versions(self) -> list[int]:
        """Return the versions that are there, oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(int(path.name) for path in self.root.iterdir() if path.name.isdigit())

    def info(self, version: int) -> SnapshotInfo:
        """Return what a snapshot says about itself.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        path = self._folder(version) / _DOCUMENT
        try:
            info = from_dict(SnapshotInfo, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"no whole policy snapshot {version} in '{self.root}': {error}") from error
        if info.version != version:
            raise CheckpointError(f"'{path}' says version {info.version}; restore the folder")
        return info

    def load(self, version: int) -> BestOfNActor:
        """Read a snapshot, ready to act on the CPU.

        Raises:
            CheckpointError: It is missing, its digests do not match, or its files do not fit each other.
        """
        info, folder = self.info(version), self._folder(version)
        if info.digests is not None and _digests(folder) != dict(info.digests):
            raise CheckpointError(f"policy snapshot '{folder}' does not match its digests; use another one")
        bundle = load_bundle(folder / _POLICY)
        critic: ChunkCritic | None = None
        if info.critic is not None:
            dims = (bundle.spec.observation.dim, bundle.spec.action.dim, bundle.policy.chunk_size)
            critic = make_critic(info.critic, *dims, generator=torch.Generator()).eval()
            try:
                critic.load_state_dict(load_file(folder / _CRITIC))
            except (OSError, SafetensorError, RuntimeError) as error:
                raise CheckpointError(f"critic of policy snapshot '{folder}' is damaged: {error}") from error
            critic.requires_grad_(False)
        bundle.policy.requires_grad_(False)
        actor = BestOfNActor(bundle.policy, critic, bundle.spec, info.acting)
        if (folder / _GRAPH).is_file():
            # Exporting would hold the control thread up; loading does not. Without the runtime, PyTorch acts.
            actor.run_by((folder / _GRAPH).read_bytes())
        return actor

    def pack(self, version: int) -> dict[str, bytes]:
        """Return the files of a snapshot, by path inside its folder, to be sent to another machine."""
        self.info(version)
        folder = self._folder(version)
        return {name: (folder / name).read_bytes() for name in [*_files(folder), _DOCUMENT]}

    def unpack(self, version: int, files: Mapping[str, bytes]) -> None:
        """Store a snapshot that came from another machine, under the version it has there.

        Only the names that a snapshot has are written, so that what arrives decides no path.

        Raises:
            CheckpointError: A name is foreign, or the folder cannot be written.
        """
        known = {f"{_POLICY}/config.json", f"{_POLICY}/model.safetensors", _CRITIC, _GRAPH, _DOCUMENT}
        if foreign := set(files) - known:
            raise CheckpointError(
                f"a policy snapshot brings {sorted(foreign)}; its files are {sorted(known)}"
            )
        if self._folder(version).is_dir():
            return

        def fill(folder: Path) -> None:
            (folder / _POLICY).mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)

        self._install(version, fill)

    def prune(self, in_use: frozenset[int] = frozenset()) -> None:
        """Delete all but the newest snapshots and those in use."""
        for version in self.versions()[: -self._keep]:
            if version not in in_use:
                shutil.rmtree(self._folder(version), ignore_errors=True)

    def _install(self, version: int, fill: Callable[[Path], None]) -> None:
        staging = unused_path(self.root / _INCOMPLETE)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for left_by_a_kill in self.root.glob(f".{_INCOMPLETE}.*"):
                shutil.rmtree(left_by_a_kill, ignore_errors=True)
            staging.mkdir()
            fill(staging)
            for name in _files(staging):
                flush_to_disk(staging / name)
            flush_to_disk(staging / _DOCUMENT)
            os.replace(staging, self._folder(version))
            flush_to_disk(self.root)
            write_atomically(self.root / _LATEST, json.dumps({"folder": self._folder(version).name}))
        except OSError as error:
            raise CheckpointError(
                f"cannot write a policy snapshot to '{self.root}': {error}; check space and permissions"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _folder(self, version: int) -> Path:
        return self.root / f"{version:08d}"


def _files(folder: Path) -> list[str]:
    """Return the files of a snapshot by path inside its folder, without the document that describes them."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if name != _DOCUMENT)


def _digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _files(folder)}
