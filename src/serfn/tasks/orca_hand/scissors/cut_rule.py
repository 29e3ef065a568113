"""When the tape parts: a pure state machine fed with one measurement per simulation step.

The tape is cut only between two edges that close on it:

1. *Armed.* The tape crosses the plane of the scissors inside the open V: between the blades, near its own
   middle, where the edges stand at least `open_half_gap_m` off the bisector. It stays armed while it lies
   within the length of the blades; leaving them, beyond the tips or sideways, disarms. Blades that were
   closed before they met the tape can therefore never cut it.
2. *Cut.* For `hold_steps` steps in a row either both edges load the tape from opposite sides with more than
   `force_n` while their gap is below `gap_m` (squeezed), or both have loaded it since it was armed and have
   passed each other by `passed_m` (sheared).

Coordinates are those of the scissors frame (see `geometry`): -x towards the tips, z opening.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.scissors.geometry import SCISSORS, ScissorsGeometry


@dataclass(frozen=True)
class CutRuleConfig:
    """Thresholds of the rule.

    Attributes:
        open_half_gap_m: distance of each edge from the bisector that arms.
        tip_margin_m, pivot_margin_m: parts of the blades at tip and pivot that do not cut.
        zone_m: how far from its middle the tape may be cut, measured along the tape.
        force_n: load of each edge on the tape that squeezes it.
        gap_m: gap of the edges at the tape when squeezed; about its thickness.
        touch_n: load that counts as contact of an edge with the tape.
        passed_m: overlap of the edges at the tape that shears it.
        sheared_height_m: how far off the bisector the tape may then lie.
        hold_steps: simulation steps in a row for which the condition must hold.
    """

    open_half_gap_m: float = 0.004
    tip_margin_m: float = 0.005
    pivot_margin_m: float = 0.012
    zone_m: float = 0.025
    force_n: float = 0.4
    gap_m: float = 0.0015
    touch_n: float = 0.1
    passed_m: float = 0.001
    sheared_height_m: float = 0.006
    hold_steps: int = 5

    def __post_init__(self) -> None:
        if self.hold_steps < 1 or min(self.open_half_gap_m, self.force_n, self.zone_m) <= 0:
            raise ConfigError(f"hold_steps, open_half_gap_m, force_n and zone_m must be positive, got {self}")


@dataclass(frozen=True)
class Crossing:
    """Where the tape crosses the scissors' plane: (x, z) in the scissors frame, and along the tape, in m."""

    x_m: float
    z_m: float
    from_middle_m: float


@dataclass(frozen=True)
class EdgeLoads:
    """Loads of the edges on the tape in N, each positive in its own cutting direction."""

    thumb_n: float = 0.0
    finger_n: float = 0.0


UNLOADED = EdgeLoads()


def tape_crossing(nodes_m: np.ndarray) -> Crossing | None:
    """Return where the tape crosses the plane of the scissors, or None if it does not.

    Args:
        nodes_m: points along the tape [2 n + 1, 3] in the scissors frame; the middle one is its middle.
    """
    y = nodes_m[:, 1]
    crossed = np.nonzero(y[:-1] * y[1:] <= 0)[0]
    if not len(crossed):
        return None
    lengths = np.linalg.norm(np.diff(nodes_m, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    index = min(crossed, key=lambda i: abs(along[i] - along[len(y) // 2]))
    share = y[index] / (y[index] - y[index + 1]) if y[index] != y[index + 1] else 0.0
    point = nodes_m[index] + share * (nodes_m[index + 1] - nodes_m[index])
    from_middle = along[index] + share * lengths[index] - along[len(y) // 2]
    return Crossing(float(point[0]), float(point[2]), float(from_middle))


class CutRule:
    """The state machine: armed or not, which edges have touched the tape, and for how long it is loaded.

    Attributes:
        armed: the tape lies between the blades, which were open around it.
        cut: the tape has been cut; it stays so until `reset`.
        peak_n: largest load so far that both edges exerted at the same time.
    """

    def __init__(self, config: CutRuleConfig | None = None, geometry: ScissorsGeometry = SCISSORS) -> None:
        """Start unarmed."""
        self.config, self._geometry = config or CutRuleConfig(), geometry
        self.reset()

    def reset(self) -> None:
        """Begin with a whole tape."""
        self.armed = self.cut = False
        self.peak_n = 0.0
        self._disarm()

    def update(self, crossing: Crossing | None, angle_rad: float, loads: EdgeLoads = UNLOADED) -> bool:
        """Take the measurement of one simulation step and return whether the tape is cut.

        Args:
            crossing: where the tape crosses the scissors' plane, or None.
            angle_rad: opening angle of the scissors.
            loads: what the edges exert on the tape.
        """
        if self.cut:
            return True
        config = self.config
        self.peak_n = max(self.peak_n, min(loads.thumb_n, loads.finger_n))
        if crossing is None or not self._between_blades(crossing):
            self.armed = False
            self._disarm()
            return False
        gap = self._geometry.edge_gap(-crossing.x_m, max(angle_rad, 0.0))
        if gap / 2 >= config.open_half_gap_m and abs(crossing.z_m) <= gap / 2 + self._geometry.edge_m:
            self.armed = True
        if not self.armed:
            return False
        self._touched[0] |= loads.thumb_n > config.touch_n
        self._touched[1] |= loads.finger_n > config.touch_n
        squeezed = min(loads.thumb_n, loads.finger_n) > config.force_n and gap < config.gap_m
        level = abs(crossing.z_m) < config.sheared_height_m
        sheared = all(self._touched) and gap < -config.passed_m and level
        self._held = self._held + 1 if squeezed or sheared else 0
        self.cut = self._held >= config.hold_steps
        return self.cut

    def _between_blades(self, crossing: Crossing) -> bool:
        config, distance = self.config, -crossing.x_m
        reach = self._geometry.blade_length_m - config.tip_margin_m
        return config.pivot_margin_m < distance < reach and abs(crossing.from_middle_m) < config.zone_m

    def _disarm(self) -> None:
        self._touched = [False, False]
        self._held = 0
