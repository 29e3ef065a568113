"""What a robot's own electronics say about the health of its motors.

Limits on currents and a stall are judged from measurements; a motor that has switched itself off looks like
one at rest. Drivers know better, where they can be asked: `ReportsHealth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

HealthState = Literal["ok", "overloaded", "rebooted", "hot", "offline", "fault"]

_REMEDIES: dict[HealthState, str] = {
    "ok": "",
    "overloaded": "relieve the joint, then: {recover}",
    "rebooted": "it has lost its settings and its torque: find out why its power failed, then: {recover}",
    "hot": "let it cool down, then: {recover}",
    "offline": "check its cable and its power, then open the robot again",
    "fault": "switch the robot off and check the motor, its cable and the supply",
}


@dataclass(frozen=True)
class JointHealth:
    """What is known about one joint's motor.

    Attributes:
        state: `ok`; `overloaded`, `hot`: it switched itself off for that; `rebooted`: it started anew and has
            lost its settings; `offline`: it does not answer; `fault`: anything else that the driver reports.
        motor: What the driver calls the motor.
        words: What the driver says, in its own words.
        drives: The motor goes on nevertheless, so that people are told and nothing is stopped.
    """

    state: HealthState
    motor: str = ""
    words: str = ""
    drives: bool = False


@runtime_checkable
class ReportsHealth(Protocol):
    """A robot whose driver says how its motors are."""

    def health(self, *, complete: bool = False) -> Mapping[str, JointHealth]:
        """Return what is known of the joints, by action name or other name of a joint.

        A joint that is left out is one about which nothing is known. Called once in a control step: it may
        ask the hardware for no more than a small part of a step, and return what was known before otherwise.

        Args:
            complete: Ask about every joint now; only at rest, as it may take longer than a step.

        Raises:
            RobotError: The robot cannot be asked.
        """
        ...


@runtime_checkable
class Recovers(Protocol):
    """A robot whose driver can clear what its motors have latched."""

    def recover(self, joints: Sequence[str]) -> Sequence[str]:
        """Clear the faults of `joints`; motors may lose their torque and sag.

        Returns:
            One sentence for each joint: what was done, or why nothing was.

        Raises:
            RobotError: The robot cannot be asked.
        """
        ...


def health_of(robot: object, *, complete: bool = False) -> Mapping[str, JointHealth]:
    """Return what a robot says about its joints; nothing from one that cannot say.

    Raises:
        RobotError: The robot cannot be asked.
    """
    return robot.health(complete=complete) if isinstance(robot, ReportsHealth) else {}


def unfit(health: Mapping[str, JointHealth]) -> dict[str, JointHealth]:
    """Return the joints that must not be driven."""
    return {joint: known for joint, known in health.items() if known.state != "ok" and not known.drives}


def describe(joint: str, health: JointHealth, robot: str) -> str:
    """Return one line for people: motor, joint, what the driver says, and what to do.

    >>> describe("index.pos", JointHealth("hot", "motor 3", "overheating (0x04)"), "orca")
    "motor 3 of joint 'index.pos' is hot, its driver says 'overheating (0x04)'; let it cool down, then: \
serfn robot recover --robot orca"
    """
    motor = f"{health.motor} of joint '{joint}'" if health.motor else f"the motor of joint '{joint}'"
    state = "reports a fault" if health.state == "fault" else f"is {health.state}"
    words = f", its driver says '{health.words}'" if health.words else ""
    recover = f"serfn robot recover --robot {robot.partition(':')[0]}"
    remedy = "it goes on" if health.drives else _REMEDIES[health.state].format(recover=recover)
    return f"{motor} {state}{words}; {remedy}"
