"""Plants: how the machine that executes a policy differs from the simulation in which it was demonstrated.

Demonstrations are recorded on `nominal`; the others stand in for a real hand that the policy has never met.
They change the machine and its sensors only, never the task, the reward or the forces on the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from serfn.core.errors import ConfigError
from serfn.core.seeding import generator
from serfn.tasks.orca_hand.model import Collision
from serfn.tasks.random_plants import seed_of, unknown_plant

PUSH_FIELDS = ("push_rate_hz", "push_m", "push_rad", "push_grip_rad")
"""Fields of `Plant` that only tasks with `Pushes` heed."""

_PUSH_STEPS = (3, 9)


@dataclass(frozen=True)
class Plant:
    """Physical differences from the nominal simulation.

    Attributes:
        collision: contact geometry of the skin.
        motor_gain: factor on the motors' position gain (weak tendons, sagging supply).
        friction: factor on the sliding friction of skin and object.
        object_mass: factor on the mass of the object.
        hinge_friction: factor on the friction of an object's own hinge, where it has one.
        latency_s: delay between a command and its arrival at the motors, at most one control period.
        backlash_rad: width of the play between motor and joint (loose tendons): a joint's effective target
            follows the commanded one only outside this band.
        joint_noise_rad: standard deviation of the joint position sensor.
        joint_velocity_noise_rad_s: standard deviation of the joint velocity estimate.
        object_position_noise_m: standard deviation of the tracked object position.
        object_rotation_noise_rad: standard deviation of the tracked object orientation (small rotation
            vector).
        object_velocity_noise: factor by which the object's velocity estimate is noisy (m/s; ten times that in
            rad/s).
        push_rate_hz: how often the machine is pushed out of its way for a moment (see `Pushes`).
        push_m, push_rad: standard deviation of a push, for slides and hinges.
        push_grip_rad: furthest that a push closes what the hand holds, where the task says what that means;
            every second push does, by a uniform share of it.
    """

    collision: Collision = "capsules"
    motor_gain: float = 1.0
    friction: float = 1.0
    object_mass: float = 1.0
    hinge_friction: float = 1.0
    latency_s: float = 0.0
    backlash_rad: float = 0.0
    joint_noise_rad: float = 0.0
    joint_velocity_noise_rad_s: float = 0.0
    object_position_noise_m: float = 0.0
    object_rotation_noise_rad: float = 0.0
    object_velocity_noise: float = 0.0
    push_rate_hz: float = 0.0
    push_m: float = 0.0
    push_rad: float = 0.0
    push_grip_rad: float = 0.0

    def __post_init__(self) -> None:
        for name in ("motor_gain", "friction", "object_mass", "hinge_friction"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is a factor and must be positive, got {getattr(self, name)}")
        if any(value < 0 for key, value in asdict(self).items() if key != "collision"):
            raise ConfigError(f"latency, backlash and noise levels must not be negative, got {self}")


_FIELD_NOISE = {
    "joint_noise_rad": 0.005,
    "joint_velocity_noise_rad_s": 0.05,
    "object_position_noise_m": 0.0005,
    "object_rotation_noise_rad": 0.01,
    "object_velocity_noise": 0.005,
}

PLANTS: dict[str, Plant] = {
    "nominal": Plant(),
    "meshes": Plant(collision="meshes"),
    "weak": Plant(motor_gain=0.7),
    "delayed": Plant(latency_s=0.05),
    "field": Plant(
        collision="meshes",
        motor_gain=0.9,
        friction=1.3,
        latency_s=0.01,
        backlash_rad=0.02,
        **_FIELD_NOISE,
    ),
}


Range = tuple[float, float]


@dataclass(frozen=True)
class PlantFamily:
    """Machines that a lab could have: uniform ranges from which a seed draws one plant.

    Attributes:
        meshes: probability that the skin collides as meshes rather than capsules.
        motor_gain, friction, object_mass, hinge_friction: ranges of these factors of `Plant`.
        latency_s: range of the delay.
        backlash_rad: range of the play.
        noise: range of a factor on the sensor noise of the cube's `field`; one draw for all sensors.
    """

    meshes: float = 0.5
    motor_gain: Range = (0.6, 1.2)
    friction: Range = (0.7, 1.4)
    object_mass: Range = (0.7, 1.5)
    hinge_friction: Range = (1.0, 1.0)
    latency_s: Range = (0.0, 0.05)
    backlash_rad: Range = (0.0, 0.06)
    noise: Range = (0.0, 2.0)

    def draw(self, seed: int, without: Sequence[str] = ()) -> Plant:
        """Return the plant of `seed`, the same on every machine; fields in `without` stay neutral."""
        rng = generator(seed, "plant")
        mesh = rng.random() < self.meshes
        factors = ("motor_gain", "friction", "object_mass", "hinge_friction", "latency_s", "backlash_rad")
        values = {name: float(rng.uniform(*getattr(self, name))) for name in factors}
        noise = float(rng.uniform(*self.noise))
        values |= {name: noise * level for name, level in _FIELD_NOISE.items()}
        kept = {name: value for name, value in values.items() if name not in without}
        return Plant(collision="meshes" if mesh else "capsules", **kept)


CUBE_FAMILY = PlantFamily()


def plant(
    choice: str | Plant,
    plants: Mapping[str, Plant] = PLANTS,
    without: Sequence[str] = (),
    family: PlantFamily = CUBE_FAMILY,
) -> Plant:
    """Return a plant by name, or the given one unchanged.

    Args:
        choice: a name, `random:SEED`, or a plant.
        plants: the task's plants by name.
        without: fields that mean nothing in the task; they must keep their neutral value.
        family: what `random:SEED` is drawn from.

    Raises:
        ConfigError: the name is unknown (the message lists the known ones), or the plant sets a field that
            the task would ignore.
    """
    if not isinstance(choice, Plant):
        seed = seed_of(choice)
        if seed is None and choice not in plants:
            raise unknown_plant(choice, plants)
        choice = plants[choice] if seed is None else family.draw(seed, without)
    for name in without:
        if getattr(choice, name) != getattr(Plant(), name):
            raise ConfigError(
                f"this task has nothing that {name} would change, got {getattr(choice, name)}; leave it out"
            )
    return choice


class Transmission:
    """Latency and backlash between the commanded targets and those that reach the motors.

    Backlash is the play operator: the output moves only when the input pushes it at the edge of a band of the
    given width (Brokate and Sprekels, Hysteresis and Phase Transitions, 1996, section 2.1).
    """

    def __init__(
        self, plant: Plant, period_s: float, timestep_s: float, play: float | np.ndarray = 1.0
    ) -> None:
        """Prepare for a control period and a simulation step, both in seconds.

        `play` [joints] is 1 for joints with backlash and 0 for those without.
        """
        if plant.latency_s > period_s + 1e-9:
            raise ConfigError(
                f"latency_s is at most one control period ({period_s} s), got {plant.latency_s}"
            )
        self._half_width = plant.backlash_rad / 2 * play
        self._substeps = round(period_s / timestep_s)
        self._delayed_substeps = round(plant.latency_s / timestep_s)

    def reset(self, targets: np.ndarray) -> None:
        """Start with the motors holding `targets` [joints]."""
        self._effective = np.array(targets, dtype=np.float64)

    def schedule(self, targets: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Return what the motors follow in this period: (targets [joints], simulation steps), in order."""
        before = self._effective
        self._effective = np.clip(before, targets - self._half_width, targets + self._half_width)
        phases = [
            (before, self._delayed_substeps),
            (self._effective, self._substeps - self._delayed_substeps),
        ]
        return [(value, steps) for value, steps in phases if steps > 0]


class Pushes:
    """Now and then, for a moment, the motors follow the commanded targets plus an offset.

    They bring a demonstrator off its way while the record holds what it commanded, so that a BC policy learns
    to come back: noise injected into the supervisor of DART (Laskey et al. 2017, arXiv 1703.09327), but made
    by the machine.
    """

    def __init__(self, plant: Plant, control_hz: float, slides: np.ndarray, closing: np.ndarray) -> None:
        """Prepare for motors of which `slides` [motors] bool are slides, the others hinges.

        `closing` [motors] is how targets change when the hand closes what it holds by 1 rad.
        """
        self._chance = plant.push_rate_hz / control_hz
        self._scale = np.where(slides, plant.push_m, plant.push_rad)
        self._closing = plant.push_grip_rad * closing

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode without a push; a plant that does not push draws nothing from `rng`."""
        self._rng, self._offset, self._left = rng, np.zeros(len(self._scale)), 0

    def next(self) -> np.ndarray:
        """Return the offsets [motors] of the next control step."""
        if self._left:
            self._left -= 1
            return self._offset
        self._offset = np.zeros(len(self._scale))
        if self._chance and self._rng.random() < self._chance:
            self._left = int(self._rng.integers(*_PUSH_STEPS))
            self._offset = self._scale * self._rng.standard_normal(len(self._scale))
            self._offset += max(0.0, self._rng.uniform(-1, 1)) * self._closing
        return self._offset
