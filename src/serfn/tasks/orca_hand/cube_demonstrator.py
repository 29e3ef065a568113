"""The demonstrator of cube rotation: two simulation teachers, one per direction, as plain NumPy networks.

The weights are trained by `serfn teacher` (see `runtime.teacher`) on the nominal simulation and ship with the
package. A demonstrator turns one way for a whole episode; the way is drawn per episode, so that a set of
demonstrations has two modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from serfn.core.errors import DataError
from serfn.tasks.orca_hand.cube_simulation import GRASP_RAD, OBSERVATION_NAMES
from serfn.tasks.orca_hand.cube_teacher_env import ACTION_LIMIT, teacher_targets
from serfn.tasks.orca_hand.model import NUM_JOINTS

DIRECTIONS = ("ccw", "cw")
NOISE_LEVELS = (0.0, 0.5, 1.0)
_WEIGHTS = Path(__file__).parent / "weights"
_TARGETS = slice(OBSERVATION_NAMES.index("joint_target.thumb_mcp"), None)
_CLIP = 6.0


@dataclass(frozen=True)
class TeacherNetwork:
    """A small ELU network from normalised observations to changes of the joint targets.

    Attributes:
        mean, std: observation statistics [95].
        layers: (weight [out, in], bias [out]) per layer.
        action_std: exploration noise of the end of training [16], in units of the action.
    """

    mean: np.ndarray
    std: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    action_std: np.ndarray

    @classmethod
    def load(cls, path: Path) -> TeacherNetwork:
        """Read weights that `serfn teacher` wrote.

        Raises:
            DataError: the file is missing.
        """
        if not path.is_file():
            raise DataError(
                f"no teacher weights at {path}; train them with: serfn teacher --out {path.parent}"
            )
        arrays = load_file(path)
        count = sum(name.endswith(".weight") for name in arrays)
        layers = tuple((arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"]) for i in range(count))
        return cls(arrays["observation_mean"], arrays["observation_std"], layers, arrays["action_std"])

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Return the mean action [16] for an observation [95]."""
        x = np.clip((observation - self.mean) / self.std, -_CLIP, _CLIP)
        for index, (weight, bias) in enumerate(self.layers):
            x = weight @ x + bias
            if index < len(self.layers) - 1:
                x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        return np.clip(x, -ACTION_LIMIT, ACTION_LIMIT)


class CubeDemonstrator:
    """One episode's demonstrator: a direction and a noise level, memoryless otherwise."""

    def __init__(
        self, direction: str, noise: float, rng: np.random.Generator, weights: Path = _WEIGHTS
    ) -> None:
        """Choose a teacher; `noise` scales the teacher's own exploration noise."""
        self.direction, self.noise, self._rng = direction, noise, rng
        self._network = _load(weights / f"cube_{direction}.safetensors")

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return joint targets [16] in rad for an environment observation [96]."""
        features = observation[: len(OBSERVATION_NAMES)].astype(np.float64)
        action = self._network(features)
        if self.noise:
            action = action + self.noise * self._network.action_std * self._rng.standard_normal(len(action))
        targets = np.concatenate([GRASP_RAD[:1], features[_TARGETS][: NUM_JOINTS - 1]])
        return teacher_targets(targets, action)[1:]


def make_demonstrator(rng: np.random.Generator) -> CubeDemonstrator:
    """Draw the demonstrator of one episode: direction and noise level, each with equal probability."""
    direction = DIRECTIONS[rng.integers(len(DIRECTIONS))]
    return CubeDemonstrator(direction, NOISE_LEVELS[rng.integers(len(NOISE_LEVELS))], rng)


@lru_cache(maxsize=4)
def _load(path: Path) -> TeacherNetwork:
    return TeacherNetwork.load(path)
