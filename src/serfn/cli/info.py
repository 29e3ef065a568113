"""`serfn info`: what is installed, what a file or folder holds."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from serfn.cli.options import optional
from serfn.core.errors import ConfigError, DataError
from serfn.core.extras import extra_of

_PACKAGES = (
    "serfn",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "orca_sim",
    "orca_core",
    "matplotlib",
    "tensorboard",
    "av",
    "h5py",
    "ray",
    "gymnasium-robotics",
    "stable-baselines3",
)


def info(
    path: Annotated[Path | None, tyro.conf.Positional, optional("PATH", "the installation")] = None,
) -> None:
    """Describe this installation, or a run, a policy bundle or a file of demonstrations.

    Args:
        path: Folder of a run or a policy, or .npz file; without it, versions, device and tasks are listed.
    """
    console = Console(highlight=False, soft_wrap=True)
    if path is None:
        _installation(console)
    elif not path.exists():
        raise DataError(f"'{path}' does not exist; give a run folder or a .npz file of demonstrations")
    elif (path / "model.safetensors").is_file():
        _policy(console, path)
    elif path.is_dir():
        _run(console, path)
    else:
        _demonstrations(console, path)


def _installation(console: Console) -> None:
    import torch

    from serfn.tasks.registry import tasks

    console.print(
        f"python {platform.python_version()} on {platform.machine()}, {torch.get_num_threads()} threads"
    )
    for package in _PACKAGES:
        try:
            console.print(f"{package} {version(package)}")
        except PackageNotFoundError:
            name = extra_of(package.replace("-", "_"))
            console.print(f"{package} not installed (pip install 'serfn[{name}]')", markup=False)
    cuda = torch.cuda.is_available()
    console.print(f"device: {torch.cuda.get_device_name() if cuda else 'cpu'}")
    for name in tasks.names():
        try:
            task = tasks.find(name)
            console.print(f"task {name}: {task.summary}, {task.env_id}", markup=False)
        except ConfigError as error:
            console.print(f"task {name}: {error}", markup=False)


def _run(console: Console, path: Path) -> None:
    from serfn.cli.tables import print_run
    from serfn.reports.run_record import load_run

    record = load_run(path)
    state = (
        "complete" if record.status.get("complete") else f"in stage {record.status.get('stage', 'unknown')}"
    )
    console.print(f"run {path}: {state}, {len(record.evaluations)} evaluations")
    print_run(console, record)


def _policy(console: Console, path: Path) -> None:
    from serfn.policies.bundle import load_bundle

    bundle = load_bundle(path)
    task = bundle.spec
    parameters = sum(parameter.numel() for parameter in bundle.policy.parameters())
    console.print(
        f"policy {path}: {type(bundle.policy).__name__}, {parameters} parameters, chunks of "
        f"{bundle.policy.chunk_size} steps"
    )
    console.print(f"trained for {task.id}: {task.observation.dim} observations, {task.action.dim} actions")


def _demonstrations(console: Console, path: Path) -> None:
    from serfn.data.datasets import load_demonstrations

    demonstrations = load_demonstrations(path)
    episodes = demonstrations.episodes
    known = [episode.success for episode in episodes if episode.success is not None]
    success = f"{sum(known)} of {len(known)} successful" if known else "success unknown"
    console.print(f"demonstrations {path}: {len(episodes)} episodes, {demonstrations.steps} steps, {success}")
    lengths = sorted(episode.length for episode in episodes)
    console.print(f"episode length {lengths[0]} to {lengths[-1]}, median {lengths[len(lengths) // 2]}")
    console.print(f"observations {demonstrations.obs_dim}, actions {demonstrations.action_spec.dim}")
    for note in demonstrations.notes:
        console.print(note, markup=False)
