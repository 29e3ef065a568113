"""Whether a policy, a configuration and a robot go together; asked before anything connects or moves."""

from __future__ import annotations

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.spec import TaskSpec
from serfn.robot.contract import Referee, Robot, SceneReset
from serfn.robot.limits import SafetyLimits, default_limits, load_limits
from serfn.robot.parts.registry import build_referee, find_workspace
from serfn.robot.safety import Workspace
from serfn.sessions.config import RobotRunConfig

_ROUND_OFF = 1e-4


def check_fit(task: TaskSpec, robot: Robot) -> None:
    """Raise unless a policy for `task` can act on `robot`.

    Raises:
        ConfigError: Other dimensions, or actions beyond the robot's bounds.
    """
    info = robot.info
    if (task.observation.dim, task.action.dim) != (info.observation.dim, info.action.dim):
        raise ConfigError(
            f"the policy maps {task.observation.dim} observations to {task.action.dim} actions, robot "
            f"'{info.name}' has {info.observation.dim} and {info.action.dim}; use a policy trained for it"
        )
    accepted = info.accepts or info.action
    low, high = np.array(accepted.low), np.array(accepted.high)
    slack = _ROUND_OFF * (high - low)
    if (np.array(task.action.low) < low - slack).any() or (np.array(task.action.high) > high + slack).any():
        raise ConfigError(
            f"the policy's actions reach beyond the bounds of robot '{info.name}'; use a policy trained for "
            "it, in the same unit"
        )


def session_limits(config: RobotRunConfig, robot: Robot) -> SafetyLimits:
    """Return the limits of the session.

    Raises:
        ConfigError: Real hardware without a limits file, or a file that does not fit.
    """
    if config.limits is not None:
        return load_limits(config.limits, robot.info)
    if not robot.info.simulated:
        raise ConfigError(
            f"robot '{robot.info.name}' is not known to be a simulation and needs a limits file; write one "
            f"with 'serfn robot limits --robot {config.robot} --out limits.toml', read it and narrow it"
        )
    return default_limits(robot.info)


def session_referee(config: RobotRunConfig, robot: Robot) -> Referee | None:
    """Return the judge that the configuration names; None if it names none.

    Raises:
        ConfigError: It cannot be found or made.
    """
    return None if config.reward is None else build_referee(config.reward, robot.info)


def session_workspace(config: RobotRunConfig) -> Workspace | None:
    """Return the rule on positions that the configuration names; None if it names none.

    Raises:
        ConfigError: It cannot be found.
    """
    return None if config.workspace is None else find_workspace(config.workspace)


def check_confirmation(robot: Robot, *, nobody: bool, confirmed: bool) -> None:
    """Raise unless the limits of hardware are, or can be, confirmed by a person before it moves.

    Args:
        robot: The robot.
        nobody: Whether no person is at the keys.
        confirmed: Whether a person has read the limits and said so.

    Raises:
        ConfigError: It is hardware, and nobody confirms.
    """
    if nobody and not confirmed and not robot.info.simulated:
        raise ConfigError(
            f"robot '{robot.info.name}' moves for real, and nobody is there to confirm its limits; run in a "
            "terminal, or read the limits and say so with --confirm-limits (in Python: confirmed=True)"
        )


def check_reset(config: RobotRunConfig, robot: Robot, *, nobody: bool) -> None:
    """Raise unless there is somebody, or something, that puts the scene back as configured.

    Raises:
        ConfigError: Nobody is there, or the robot cannot do it.
    """
    if config.reset == "person" and nobody:
        raise ConfigError("nobody is there to put the scene back; run in a terminal, or choose another reset")
    if config.reset == "scene" and not isinstance(robot, SceneReset):
        raise ConfigError(f"robot '{config.robot}' cannot put its scene back; choose reset person or none")
