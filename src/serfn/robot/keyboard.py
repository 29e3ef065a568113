"""A person at a keyboard: which key asks for what, without reading or printing anything.

Whoever reads the terminal calls `press`; the control loop polls from its own thread. Keys that jog the robot
go to a `KeyboardJog`, those that concern the session rather than the motion to `session_requests`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

from serfn.robot.contract import OperatorEvent
from serfn.robot.teleoperation import KeyboardJog

SessionRequest = Literal["start", "roll_back", "release", "quit"]

EVENT_KEYS: dict[str, OperatorEvent] = {
    " ": OperatorEvent("stop"),
    "p": OperatorEvent("pause"),
    "r": OperatorEvent("resume"),
    "t": OperatorEvent("take_over"),
    "h": OperatorEvent("hand_back"),
    "s": OperatorEvent("success"),
    "f": OperatorEvent("failure"),
    "d": OperatorEvent("discard"),
    **{str(stage): OperatorEvent("stage", stage) for stage in range(10)},
}

SESSION_KEYS: dict[str, SessionRequest] = {
    "\n": "start",
    "\r": "start",
    "b": "roll_back",
    "u": "release",
    "q": "quit",
}

HELP: tuple[tuple[str, str], ...] = (
    ("space", "stop at once, latched"),
    ("enter", "start"),
    ("u", "release the latch"),
    ("p / r", "pause / resume"),
    ("t / h", "take over / hand back"),
    ("s / f / d", "success / failure / discard, also soon after"),
    ("0-9", "stage"),
    ("[ ] - +", "jog: joint, down, up"),
    ("b", "earlier policy"),
    ("q", "quit after the episode"),
)
"""Keys and what they do, for a screen."""


class KeyboardOperator:
    """An `Operator` fed by single key presses; every key that means nothing is ignored.

    Args:
        jog: Teleoperator that the jog keys move; None leaves them without a meaning.
    """

    def __init__(self, jog: KeyboardJog | None = None) -> None:
        self.jog = jog
        # Appending and popping are atomic, so the reader's thread and the loop's need no lock.
        self._events: deque[OperatorEvent] = deque()
        self._requests: deque[SessionRequest] = deque()

    def press(self, key: str) -> None:
        """Take one key press, from any thread."""
        if key in EVENT_KEYS:
            self._events.append(EVENT_KEYS[key])
        elif key in SESSION_KEYS:
            self._requests.append(SESSION_KEYS[key])
        elif self.jog is not None:
            self.jog.press(key)

    def poll(self) -> Sequence[OperatorEvent]:
        """Return what was asked of the motion since the last call, oldest first; never waits."""
        return _drain(self._events)

    def session_requests(self) -> Sequence[SessionRequest]:
        """Return what was asked of the session since the last call, oldest first; never waits."""
        return _drain(self._requests)


def _drain(queue: deque) -> list:
    taken = []
    while queue:
        taken.append(queue.popleft())
    return taken
