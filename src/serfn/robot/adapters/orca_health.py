"""The fault interface of the ORCA hand's driver, asked at a rate that the bus bears.

Status packets carry an alert bit, which the driver collects while it reads: that costs nothing. Beyond that,
one register of a few motors is read in each control step, so that all are asked twice a second: a round trip
each, about 1 ms. `poll_faults` of the driver is not used in motion: it reboots motors by itself, which holds
the bus for up to a second and gives torque back to a joint whose command has gone on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from serfn.robot.health import HealthState, JointHealth

_ROUND_S = 0.5
_COOL_MARGIN_C = 10.0
_STATES: tuple[tuple[str, HealthState], ...] = (("thermal", "hot"), ("excess_load", "overloaded"))


class OrcaHealth:
    """What the driver says about each motor; it must be called from the thread that moves the hand.

    Args:
        hand: The driver's object.
        joints: Name of the joint by number of the motor.
        control_hz: How often it is asked per second.
    """

    def __init__(self, hand: Any, joints: Mapping[int, str], control_hz: float) -> None:
        self._hand = hand
        self._joints = dict(joints)
        self._per_step = math.ceil(len(self._joints) / (_ROUND_S * control_hz))
        self._queue: deque[int] = deque(self._joints)
        self._stop_masks: Mapping[int, int | None] = {}
        self._known: dict[int, JointHealth] = {}
        self._silent: set[int] = set()

    def opened(self) -> None:
        """Forget everything, and read what does not change: which faults switch a motor off."""
        self._queue = deque(self._joints)
        self._known, self._silent = {}, set()
        self._stop_masks = self._hand.motor_client.read_stop_mask()

    def ask(self, *, complete: bool) -> dict[str, JointHealth]:
        """Ask the next few motors, or all, and return what is known by joint."""
        client = self._hand.motor_client
        for motor in client.take_hardware_alerts():
            self._ask_soon(int(motor))
        if complete:
            # Twice: a single lost answer does not make a motor silent.
            for motor in self._joints:
                self._ask_motor(client, motor)
            for motor in sorted(self._silent):
                self._ask_motor(client, motor)
        for _ in range(0 if complete else self._per_step):
            motor = self._queue.popleft()
            self._queue.append(motor)
            if not self._ask_motor(client, motor):
                # A silent motor costs the whole time-out of a packet: once in a step is enough.
                break
        return {self._joints[motor]: health for motor, health in self._known.items()}

    def recover(self, joints: Sequence[str]) -> list[str]:
        """Reboot the motors of `joints`, which leaves them without torque."""
        client, done = self._hand.motor_client, []
        temperatures = self._hand.get_motor_temp(as_dict=True)
        limits = client.read_temperature_limits()
        for motor, joint in self._joints.items():
            if joint not in joints:
                continue
            health, limit_c = self._known.get(motor), limits.get(motor)
            name = f"motor {motor} of joint '{joint}'"
            if health is not None and health.state == "offline":
                done.append(f"{name} does not answer: check its cable and power")
            elif not client.supports_reboot:
                done.append(f"{name} cannot be rebooted by its driver: switch the hand off and on")
            elif (
                health is not None
                and health.state == "hot"
                and limit_c is not None
                and temperatures.get(motor, math.inf) > limit_c - _COOL_MARGIN_C
            ):
                done.append(
                    f"{name} has {temperatures[motor]:.0f} °C: let it cool below "
                    f"{limit_c - _COOL_MARGIN_C:.0f} °C and try again"
                )
            else:
                client.reboot_motor(motor)
                self._hand.clear_fault_record(motor)
                self._known.pop(motor, None)
                done.append(f"{name} was rebooted; it has torque again when the robot is opened")
        return done

    def _ask_soon(self, motor: int) -> None:
        if motor in self._joints:
            self._queue.remove(motor)
            self._queue.appendleft(motor)

    def _ask_motor(self, client: Any, motor: int) -> bool:
        """Return whether it answered."""
        raw = client.read_hardware_error(motor)
        name = f"motor {motor}"
        before = self._known.get(motor)
        if raw is None:
            if motor in self._silent:
                self._known[motor] = JointHealth("offline", name, "no answer")
            else:
                self._silent.add(motor)
                self._ask_soon(motor)
            return False
        self._silent.discard(motor)
        if before is not None and before.state in ("offline", "rebooted"):
            # What was silent for good and answers again has lost its torque and its limits.
            self._known[motor] = JointHealth("rebooted", name, "answers again after a silence")
            return True
        if not raw:
            self._known[motor] = JointHealth("ok", name)
            return True
        flags = ", ".join(client.decode_hardware_error(raw) or ()) or "unknown"
        # Without a readable mask any fault may have stopped the motor.
        mask = self._stop_masks.get(motor)
        stopped = raw if mask is None else raw & mask
        conditions = client.canonical_faults(stopped or raw)
        states: list[HealthState] = [state for word, state in _STATES if word in conditions]
        drives = not stopped and "encoder" not in client.canonical_faults(raw)
        self._known[motor] = JointHealth(
            states[0] if states else "fault", name, f"{flags} (0x{raw:02X})", drives
        )
        return True
