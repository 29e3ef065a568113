"""The configuration of a run in its folder, and the version of the folder's layout."""

from __future__ import annotations

import json
from pathlib import Path

from serfn.core.config import load_config, to_dict
from serfn.core.errors import ConfigError
from serfn.core.files import write_atomically
from serfn.core.format_version import Format
from serfn.training.config import TrainConfig

CONFIG_FILE = "config.json"
RUN = Format(
    name="serfn-run",
    kind="run",
    version=2,
    oldest=2,
    remedy="its options have other names since: finish it with the serfn that wrote it, or start anew with "
    "its data (--demos; 'serfn data convert' reads its folder 'experience')",
    error=ConfigError,
)


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write the configuration of a run; from then on the folder holds one."""
    RUN.write(folder)
    write_atomically(folder / CONFIG_FILE, json.dumps(to_dict(config), indent=1))


def stored_config(folder: Path) -> TrainConfig:
    """Return the configuration of the run in `folder`.

    Raises:
        ConfigError: There is no run, or it is of a version that cannot be resumed.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"there is no run to resume in '{folder}' (no config.json); start one with --out")
    RUN.check_folder(folder)
    return load_config(TrainConfig, path)
