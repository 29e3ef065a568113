"""A robot behind its safety supervisor: the one place that sends commands, and the way to a safe end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, Self

import numpy as np

from serfn.robot.clock import Clock
from serfn.robot.contract import Observation, Robot, RobotError, read_vector
from serfn.robot.health import describe, health_of, unfit
from serfn.robot.limits import describe_limits
from serfn.robot.safety import Intervention, SafetySupervisor
from serfn.robot.timing import Pace

RestState = Literal["closed", "holding", "parked", "moving"]

_ARRIVED = 1e-6


class SupervisedRobot:
    """Opens a robot, moves it through its supervisor, and leaves it in a defined state whatever happens.

    States: `closed` (motors as `disconnect` leaves them), `holding` (at rest, where it stopped), `parked` (at
    rest in the rest pose), `moving`. As a context manager it opens on entry; on exit it parks and closes.

    Args:
        robot: The robot.
        supervisor: Its supervisor.
        clock: Clock of the loop.
        control_hz: Commands per second while it comes to rest and parks.
        announce: Called with the limits as text before anything can move.
        settle_s: How long coming to rest may take.
        park_s: How long parking may take.
    """

    def __init__(
        self,
        robot: Robot,
        supervisor: SafetySupervisor,
        clock: Clock,
        control_hz: float,
        announce: Callable[[str], None],
        *,
        settle_s: float = 1.0,
        park_s: float = 5.0,
    ) -> None:
        self.robot = robot
        self.supervisor = supervisor
        self.clock = clock
        self.control_hz = control_hz
        self._announce = announce
        self._settle_steps = max(1, round(settle_s * control_hz))
        self._park_steps = max(1, round(park_s * control_hz))
        self._names = robot.info.action.names
        self._state: RestState = "closed"
        self._closed_from: RestState = "closed"
        self._started = self._shown = False
        self._sent = np.zeros(len(self._names))
        self.measured: Observation = {}
        self.observation = np.zeros(robot.info.observation.dim, np.float32)
        self.images: Mapping[str, np.ndarray] = {}

    @property
    def state(self) -> RestState:
        """Where the robot has been left."""
        return self._state

    @property
    def closed_from(self) -> RestState:
        """State in which it was before it was closed last."""
        return self._closed_from

    def show_limits(self) -> None:
        """Announce what the robot is and its limits, once; nothing is connected."""
        if self._shown:
            return
        info = self.robot.info
        what = "a simulation: nothing real moves" if info.simulated else "hardware: it moves for real"
        self._announce(f"Robot {info.name} is {what}\n{describe_limits(self.supervisor.limits)}")
        self._shown = True

    def open(self) -> None:
        """Show the limits, connect, and check that the robot is calibrated.

        Connecting moves nothing, unless a robot that is an environment resets itself.

        Raises:
            RobotError: It cannot be reached or is not calibrated.
        """
        self.show_limits()
        if not self.robot.is_connected:
            self.robot.connect(calibrate=False)
        if not self.robot.is_calibrated:
            self.robot.disconnect()
            raise RobotError(f"robot '{self.robot.name}' is not calibrated; calibrate it first")
        self._state, self._started = "holding", False

    def start(self) -> None:
        """Begin to move from where the robot is.

        Raises:
            RobotError: It does not answer, is stopped, stands outside its limits, or its driver reports a
                fault.
        """
        if bad := unfit(health_of(self.robot, complete=True)):
            joint, health = next(iter(bad.items()))
            raise RobotError(describe(joint, health, self.robot.info.name))
        observation = self.robot.get_observation()
        state = read_vector(observation, self.robot.info.state_keys)
        if not np.isfinite(state).all():
            raise RobotError(
                f"robot '{self.robot.name}' measures values that are not finite; check its sensors"
            )
        self._sent = self.supervisor.start(observation, self.clock.now())
        self._started = True
        self._keep(observation, state)

    def read(self, now_s: float) -> bool:
        """Measure into `observation` and `images`, which keep the last sound measurement.

        Returns:
            Whether the measurement is new and sound.
        """
        try:
            observation = self.robot.get_observation()
            self._look_at_health(now_s)
            fresh = self.supervisor.observe(observation, now_s)
        except RobotError as error:
            # Before the robot counts as silent: one motor that is gone takes the answers of all with it.
            self._look_at_health(now_s)
            self.supervisor.not_read(error, now_s)
            return False
        if fresh:
            self._keep(observation, read_vector(observation, self.robot.info.state_keys))
        return fresh

    def send(self, wanted: np.ndarray | None, now_s: float) -> tuple[np.ndarray, Intervention]:
        """Send `wanted` `[action]` as far as it is safe; None holds, and counts as a missing proposal.

        Returns:
            What was executed `[action]` and what the supervisor changed.
        """
        command, bits = self.supervisor.command(wanted, now_s)
        return self._transmit(command, now_s), bits

    def hold(self, now_s: float) -> tuple[np.ndarray, Intervention]:
        """Brake and hold on purpose, as in a pause."""
        command, bits = self.supervisor.hold(now_s)
        return self._transmit(command, now_s), bits

    def come_to_rest(self) -> None:
        """Brake at the control rate until the command stands still; under overload, yield to the load.

        A robot that was never started is not commanded.
        """
        if not self._started:
            return
        pace = Pace(self.clock, 1.0 / self.control_hz)
        overload = self.supervisor.cause is not None and self.supervisor.cause.overload
        for _ in range(self._settle_steps):
            _, now_s = pace.wait()
            self.read(now_s)
            self.hold(now_s)
            if self.supervisor.at_rest and not overload:
                break
        self._state = "holding"

    def park(self) -> None:
        """Move to the rest pose within the limits; a robot that is stopped or has none stays where it is."""
        self.come_to_rest()
        rest = self.robot.info.rest
        if rest is None or not self._started or self.supervisor.cause is not None:
            return
        target = np.array(rest)
        pace = Pace(self.clock, 1.0 / self.control_hz)
        for _ in range(self._park_steps):
            _, now_s = pace.wait()
            self.read(now_s)
            self._transmit(self.supervisor.approach(target, now_s), now_s)
            if self.supervisor.cause is not None:
                self.come_to_rest()
                return
            if self.supervisor.at_rest and np.abs(self.supervisor.position - target).max() < _ARRIVED:
                self._state = "parked"
                return
        self.come_to_rest()

    def close(self) -> None:
        """Park if the robot may move, and disconnect in any case."""
        try:
            if self.robot.is_connected:
                self.park()
        finally:
            self._closed_from, self._state = self._state, "closed"
            self.robot.disconnect()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look_at_health(self, now_s: float) -> None:
        try:
            self.supervisor.check_health(health_of(self.robot), now_s)
        except RobotError:
            self.supervisor.counts["robot:health_not_read"] += 1

    def _keep(self, observation: Observation, state: np.ndarray) -> None:
        self.observation = state.astype(np.float32)
        self.images = {key: observation[key] for key in self.robot.info.image_keys}
        self.measured = observation

    def _transmit(self, command: np.ndarray, now_s: float) -> np.ndarray:
        """Send a command and return what was sent; a robot that does not answer keeps its last target."""
        self._state = "moving"
        try:
            sent = self.robot.send_action(dict(zip(self._names, command.tolist(), strict=True)))
            self._sent = read_vector(sent, self._names)
        except RobotError as error:
            self.supervisor.not_sent(error, now_s)
        else:
            self.supervisor.sent(now_s)
        return self._sent
