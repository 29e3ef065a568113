"""Policies on disk: a folder with `config.json` and `model.safetensors`. No pickle, nothing executable.

`config.json` holds the policy's type and configuration, the task's specification, the chunk size and free
metadata; the weights include the fitted statistics.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from serfn.core.config import from_dict, to_dict
from serfn.core.errors import CheckpointError, ConfigError
from serfn.core.files import unused_path
from serfn.core.spec import TaskSpec
from serfn.policies.base import ChunkPolicy, PolicyConfig
from serfn.policies.bundle_versions import BUNDLE, migrated
from serfn.policies.factory import make_policy

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class PolicyBundle:
    """A policy, the task it was made for, and whatever its maker noted."""

    policy: ChunkPolicy
    spec: TaskSpec
    metadata: dict[str, Any] = field(default_factory=dict)


def save_bundle(
    folder: str | os.PathLike[str],
    policy: ChunkPolicy,
    task_spec: TaskSpec,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the bundle; a reader sees the old folder or the new one, never half of it.

    Args:
        folder: target; an earlier bundle there is replaced, any other folder is refused.
        policy: policy from `make_policy`.
        task_spec: the task it acts in; its dimensions must be the policy's.
        metadata: values that JSON can write.

    Raises:
        CheckpointError: the specification does not fit the policy, or the target is something else than a
        bundle.
    """
    folder = Path(folder).resolve()
    _check_fit(policy.obs_dim, policy.action_dim, task_spec)
    if folder.exists() and not (folder / CONFIG_FILE).is_file() and not _is_empty_folder(folder):
        raise CheckpointError(f"{folder} exists and is not a policy bundle: choose another folder")
    config = _config_of(policy)
    document = {
        **BUNDLE.stamp(),
        "type": config.type,
        "policy": to_dict(config),
        "chunk_size": policy.chunk_size,
        "task": task_spec.to_dict(),
        "metadata": dict(metadata or {}),
    }
    try:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"metadata cannot be written as JSON ({error}): pass plain values") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = unused_path(folder)
    try:
        staging.mkdir()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
        # As bytes: the library's own files could be read by their owner only.
        (staging / MODEL_FILE).write_bytes(save(tensors))
        (staging / CONFIG_FILE).write_text(text, encoding="utf-8")
        _replace_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_bundle(folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> PolicyBundle:
    """Read a bundle; the policy is on `device` in evaluation mode.

    Raises:
        CheckpointError: a file is missing or damaged, the type or version is unknown, or shapes do not match.
    """
    folder = Path(folder)
    document = _read_document(folder)
    kind = document["type"]
    try:
        PolicyConfig.registry.find(kind)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder} holds a policy of type '{kind}', which does not load here: {error}"
        ) from error
    try:
        config = from_dict(PolicyConfig, {**document["policy"], "type": kind}, "policy")
        spec = TaskSpec.from_dict(document["task"])
        policy = make_policy(config, spec.observation.dim, spec.action.dim, document["chunk_size"])
    except ValueError as error:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: {error}; restore the file or load it with the version that wrote it"
        ) from error
    try:
        tensors = load_file(folder / MODEL_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read {folder / MODEL_FILE} ({error}): copy the whole bundle again"
        ) from error
    _check_tensors(folder, policy, tensors)
    policy.load_state_dict(tensors)
    return PolicyBundle(policy.to(device).eval(), spec, document["metadata"])


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"no policy bundle at {folder} ({error}): pass the folder of a saved policy"
        ) from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy the whole bundle again") from error
    if not isinstance(document, dict) or document.get("format") != BUNDLE.name:
        raise CheckpointError(f"{path} does not describe a serfn policy: pass the folder of a saved policy")
    document = migrated(document, path)
    expected = {"type": str, "policy": dict, "chunk_size": int, "task": dict, "metadata": dict}
    for key, kind in expected.items():
        if not isinstance(document.get(key), kind):
            raise CheckpointError(f"{path} lacks a valid entry {key!r}: copy the whole bundle again")
    if document["chunk_size"] < 1:
        raise CheckpointError(f"{path} has chunk_size {document['chunk_size']}: copy the whole bundle again")
    return document


def _check_tensors(folder: Path, policy: ChunkPolicy, tensors: Mapping[str, torch.Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{folder / MODEL_FILE} does not match {CONFIG_FILE} in {len(wrong)} tensors, first {name!r}: "
            f"expected {expected.get(name, 'none')}, found {found.get(name, 'none')}; "
            "both files must be from one save"
        )
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{folder / MODEL_FILE} holds NaN or infinity in {broken[0]!r}: use an earlier save"
        )


def _check_fit(obs_dim: int, action_dim: int, spec: TaskSpec) -> None:
    if (spec.observation.dim, spec.action.dim) != (obs_dim, action_dim):
        raise CheckpointError(
            f"task {spec.id!r} has {spec.observation.dim} observations and {spec.action.dim} actions, "
            f"the policy {obs_dim} and {action_dim}: save it with the task it was built for"
        )


def _config_of(policy: ChunkPolicy) -> PolicyConfig:
    config = getattr(policy, "config", None)
    if not isinstance(config, PolicyConfig):
        raise CheckpointError(
            f"a {type(policy).__name__} cannot be saved: it keeps no PolicyConfig as `config`; build "
            "policies with make_policy"
        )
    return config


def _is_empty_folder(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _replace_folder(staging: Path, folder: Path) -> None:
    """Move `staging` to `folder`; a rename cannot replace a full folder, so the old one steps aside."""
    if not folder.exists() or _is_empty_folder(folder):
        os.replace(staging, folder)
        return
    retired = unused_path(folder)
    os.replace(folder, retired)
    try:
        os.replace(staging, folder)
    except OSError:
        os.replace(retired, folder)
        raise
    shutil.rmtree(retired)
