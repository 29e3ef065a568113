"""Whether a policy, a configuration and a robot go together; asked before anything connects or moves."""

from __future__ import annotations

import time

import numpy as np

from serfn.core.agreement import compare, settle
from serfn.core.errors import ConfigError
from serfn.core.protocols import ChunkActor
from serfn.core.sides import Finding, Quantity, Side
from serfn.core.spec import TaskSpec
from serfn.robot.chunk_buffer import ExecutionConfig
from serfn.robot.contract import Referee, Robot, SceneReset
from serfn.robot.limits import SafetyLimits, default_limits, load_limits
from serfn.robot.parts.registry import build_referee, find_workspace
from serfn.robot.safety import Workspace
from serfn.sessions.config import RobotRunConfig

_DECISIONS = 5
"""Decisions that are timed before a session; their median counts."""


def check_fit(task: TaskSpec, robot: Robot, *, control_hz: float | None = None) -> tuple[Finding, ...]:
    """Return what people should know before a policy for `task` acts on `robot`.

    Args:
        task: Task of the policy.
        robot: The robot.
        control_hz: Commands per second that were asked for; None is what the robot is meant for.

    Raises:
        ConfigError: They do not agree in size, rate, names, units or bounds; see `serfn.core.agreement`.
    """
    info = robot.info
    side = Side(
        name=f"robot '{info.name}'",
        control_hz=control_hz or info.control_hz,
        observation=info.observation,
        action=info.action,
        accepts=info.accepts,
    )
    # Who sets the rate of a session by hand knows it: a policy may be run more slowly on purpose.
    asked: frozenset[Quantity] = frozenset() if control_hz is None else frozenset({"control rate"})
    found = settle(compare(Side.of_task("the policy", task), side, "robot", accepted=asked))
    if control_hz is None or control_hz == info.control_hz:
        return found
    words = (
        f"control rate: the session {control_hz:g} steps per second, robot '{info.name}' is meant for "
        f"{info.control_hz:g}; an environment that steps with the commands runs at another speed than its own"
    )
    return (*found, Finding("control rate", words))


def check_latency(
    actor: ChunkActor, execution: ExecutionConfig, obs_dim: int, control_hz: float, name: str
) -> list[Finding]:
    """Return what people should know about the time that a decision takes, measured on this machine.

    Args:
        actor: What acts; its random stream is used.
        execution: How its chunks are executed.
        obs_dim: Dimensions of an observation.
        control_hz: Commands per second.
        name: Name of the robot.
    """
    observation = np.zeros((1, obs_dim), np.float32)
    seconds = []
    # The first call may compile.
    for _ in range(1 + _DECISIONS):
        begin_s = time.perf_counter()
        actor.act(observation)
        seconds.append(time.perf_counter() - begin_s)
    policy = Side(name="the policy", chunk_size=actor.chunk_size, decision_s=float(np.median(seconds[1:])))
    robot = Side(name=f"robot '{name}'", control_hz=control_hz, lead_steps=execution.lead_steps)
    return compare(policy, robot, "robot")


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
