"""Packages that only some work needs: what they are for, and one line where one is missing.

::

    with extra("report"):
        from matplotlib.figure import Figure
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal, get_args

from serfn.core.errors import ConfigError

Extra = Literal[
    "sim",
    "report",
    "tensorboard",
    "formats",
    "orca",
    "ray",
    "teacher",
    "robotics",
    "onnx",
    "teleop",
]
"""Names of the optional dependencies, as in `pip install 'serfn[sim]'`."""

PACKAGES: dict[Extra, tuple[str, ...]] = {
    "sim": ("mujoco", "orca_sim"),
    "report": ("matplotlib",),
    "tensorboard": ("tensorboard",),
    "formats": ("av", "h5py"),
    "orca": ("orca_core",),
    "ray": ("ray",),
    "teacher": ("stable_baselines3",),
    "robotics": ("gymnasium_robotics",),
    "onnx": ("onnx", "onnxruntime"),
    "teleop": ("pyspacemouse", "zmq"),
}
"""Packages of each extra, as they are imported."""

_PURPOSES: dict[Extra, str] = {
    "sim": "the simulated tasks of the ORCA hand need",
    "report": "the plots of a report need",
    "tensorboard": "curves for TensorBoard need",
    "formats": "HDF5 files, and images in PNG, JPEG or video files, need",
    "orca": "the ORCA hand needs its driver,",
    "ray": "a cluster needs",
    "teacher": "training a teacher needs",
    "robotics": "the tasks of Gymnasium-Robotics need",
    "onnx": "decisions in a fraction of the time need",
    "teleop": "SpaceMouse and streams of joint targets need",
}


class MissingExtraError(ConfigError):
    """An optional package is not installed; the message names the extra that brings it."""


@contextmanager
def extra(name: Extra) -> Generator[None]:
    """Import packages of an extra in the body.

    Args:
        name: The extra that brings them.

    Raises:
        MissingExtraError: One cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(_message(name, error.name, error)) from error


def installed(name: Extra) -> bool:
    """Return whether the packages of an extra can be found, without importing them."""
    return all(find_spec(package) is not None for package in PACKAGES[name])


def extra_of(package: str | None) -> Extra | None:
    """Return the extra that brings an importable package, or None.

    >>> extra_of("orca_sim"), extra_of("numpy")
    ('sim', None)
    """
    return next((name for name in get_args(Extra) if package in PACKAGES[name]), None)


def _message(name: Extra, package: str | None, error: ImportError) -> str:
    missing = isinstance(error, ModuleNotFoundError)
    found = f"'{package}', which is not installed" if missing else f"a package that fails to import ({error})"
    return f"{_PURPOSES[name]} {found}; pip install 'serfn[{name}]'"
