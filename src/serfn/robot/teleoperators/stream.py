"""Joint targets from anywhere, such as a glove, as a stream of JSON messages over ZeroMQ.

The sender publishes (a PUB socket that binds) one message per reading, at any rate::

    {"joints": {"thumb_mcp": 0.3, "index_pip": 1.1}, "clutch": true}

`joints` are positions by the robot's names, in its unit; those left out keep their last command. `clutch` may
be left out; while it is false the robot holds. `examples/stream_joints.py` is a sender.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serfn.core.errors import ConfigError
from serfn.core.extras import extra
from serfn.robot.contract import Action, Feature, RobotError

STALE_S = 0.5
"""Age at which the newest message no longer moves the robot: the sender is gone, or the network is."""


class StreamTeleoperator:
    """Follows the newest message of a stream; never waits.

    Args:
        address: Where the sender publishes, such as `tcp://192.168.1.7:5555`.
        names: Names of the robot's commanded dimensions.
        clock: Returns seconds, to tell how old a message is.

    Raises:
        ConfigError: The address is none, or ZeroMQ is not installed.
    """

    def __init__(
        self, address: str, names: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if "://" not in address:
            raise ConfigError(f"'{address}' is no address of a stream; give one such as tcp://127.0.0.1:5555")
        with extra("teleop"):
            import zmq
        self._zmq = zmq
        self._address, self._names, self._clock = address, tuple(names), clock
        self._socket: Any = None
        self._joints: Action = {}
        self._received_s = -math.inf
        self.engaged = False

    @property
    def name(self) -> str:
        """Short name of the device."""
        return f"zmq:{self._address}"

    @property
    def action_features(self) -> Mapping[str, Feature]:
        """All dimensions of the robot; a message may leave some out."""
        return dict.fromkeys(self._names, float)

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open; whether anybody sends shows by the messages."""
        return self._socket is not None

    def connect(self, calibrate: bool = True) -> None:
        """Subscribe to the stream.

        Raises:
            ConfigError: ZeroMQ refuses the address.
        """
        socket = self._zmq.Context.instance().socket(self._zmq.SUB)
        # Only the newest message counts.
        socket.setsockopt(self._zmq.CONFLATE, 1)
        socket.setsockopt(self._zmq.LINGER, 0)
        socket.setsockopt(self._zmq.SUBSCRIBE, b"")
        try:
            socket.connect(self._address)
        except self._zmq.ZMQError as error:
            socket.close()
            raise ConfigError(f"cannot follow '{self._address}': {error}; check the address") from error
        self._socket = socket

    def get_action(self) -> Action:
        """Return the newest positions; empty while the clutch is open, or when nobody sends any more.

        Raises:
            RobotError: A message is not as described, or names a joint that the robot does not have.
        """
        if self._socket is not None:
            try:
                self._read(self._socket.recv(self._zmq.NOBLOCK))
            except self._zmq.Again:
                pass
        fresh = self._clock() - self._received_s <= STALE_S
        return dict(self._joints) if fresh and self.engaged else {}

    def send_feedback(self, feedback: Mapping[str, float]) -> None:
        """Ignore where the robot is: messages go one way."""

    def disconnect(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _read(self, message: bytes) -> None:
        try:
            document = json.loads(message)
            joints = {str(name): float(value) for name, value in document["joints"].items()}
            engaged = document.get("clutch", True)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RobotError(f"a message of '{self._address}' is no joint targets: {error}") from error
        foreign = sorted(set(joints) - set(self._names))
        if foreign:
            raise RobotError(
                f"'{self._address}' moves '{foreign[0]}', which the robot does not have; it has "
                f"{', '.join(self._names)}"
            )
        broken = [name for name, value in joints.items() if not math.isfinite(value)]
        if broken or not isinstance(engaged, bool):
            what = f"'{broken[0]}' is {joints[broken[0]]}" if broken else f"clutch is {engaged!r}"
            raise RobotError(f"a message of '{self._address}' cannot be followed: {what}")
        self._joints, self.engaged, self._received_s = joints, engaged, self._clock()
