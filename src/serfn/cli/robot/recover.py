"""`serfn robot recover`: clear what a robot's motors have latched."""

from __future__ import annotations

import sys

from rich.console import Console

from serfn.cli.overrides import override
from serfn.cli.train import Assignments
from serfn.core.errors import ConfigError, DataError


def recover(*, robot: str, yes: bool = False, assignments: Assignments = ()) -> None:
    """Ask a robot's driver for the faults of its motors, and clear them after a person's confirmation.

    Remove the cause first: relieve the joint, let a hot motor cool. Motors that are cleared lose their
    torque, so support what the robot holds. Nothing is commanded to move.

    Args:
        robot: Which robot, such as orca.
        yes: Confirm without being asked, as in a script.
        assignments: Change one option, such as --set robot_options.mock=true.
    """
    from serfn.robot.clock import MonotonicClock
    from serfn.robot.health import Recovers, describe, health_of, unfit
    from serfn.sessions.config import RobotRunConfig
    from serfn.sessions.robots import make_robot

    settings = override(RobotRunConfig(robot=robot), assignments)
    device = make_robot(settings.robot, settings.robot_options, MonotonicClock(), seed=settings.seed)
    console = Console(highlight=False, soft_wrap=True)
    device.connect(calibrate=False)
    try:
        health = health_of(device, complete=True)
        if not health:
            raise ConfigError(f"robot '{robot}' says nothing about its motors; see its own tools")
        bad = unfit(health)
        for joint, known in health.items():
            if known.state != "ok":
                console.print(describe(joint, known, robot), markup=False)
        if not bad:
            console.print(f"no motor of '{robot}' reports a fault that stops it", markup=False)
            return
        if not isinstance(device, Recovers):
            raise ConfigError(f"the driver of '{robot}' clears no faults; see its own tools")
        if not (yes or _confirmed(len(bad))):
            raise ConfigError("nothing was cleared: confirm with 'yes', or with --yes in a script")
        for sentence in device.recover(list(bad)):
            console.print(sentence, markup=False)
        left = unfit(health_of(device, complete=True))
    finally:
        device.disconnect()
    if left:
        raise DataError(f"{len(left)} of {len(bad)} joints still report a fault: {', '.join(left)}")
    console.print("all motors are well", markup=False)


def _confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        return False
    question = f"clear the faults of {count} motors? they lose their torque; type 'yes': "
    return input(question).strip() == "yes"
