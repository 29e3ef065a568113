"""Under which conditions an episode of the scissors task runs: randomisation, difficulties, plants."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.plant import Plant, PlantFamily

_MILD = Plant(
    collision="meshes",
    motor_gain=0.5,
    friction=0.6,
    object_mass=1.6,
    hinge_friction=4.0,
    latency_s=0.04,
    backlash_rad=0.08,
    joint_noise_rad=0.01,
    object_position_noise_m=0.001,
    object_rotation_noise_rad=0.02,
    object_velocity_noise=0.01,
)

PLANTS: dict[str, Plant] = {
    "nominal": Plant(),
    "weak": Plant(motor_gain=0.7),
    "pushed": Plant(
        push_rate_hz=0.7,
        push_m=0.01,
        push_rad=0.07,
        push_grip_rad=1.0,
        joint_noise_rad=0.005,
        object_position_noise_m=0.0005,
        object_rotation_noise_rad=0.01,
        object_velocity_noise=0.005,
    ),
    "mild": _MILD,
    "field": replace(
        _MILD, motor_gain=0.35, friction=0.5, latency_s=0.05, backlash_rad=0.16, joint_noise_rad=0.02
    ),
}
"""Plants of this task; demonstrations are recorded on `pushed`: `nominal`, but pushed, and
measured by sensors that are not perfect. `field`, on which policies are improved, is a `mild` one whose
tendons have got slack.

Joint velocities are not observed, so a plant cannot make them noisy.
"""

FAMILY = PlantFamily(
    motor_gain=(0.35, 1.1),
    friction=(0.5, 1.3),
    object_mass=(0.7, 1.7),
    hinge_friction=(0.7, 4.0),
    backlash_rad=(0.0, 0.16),
)
"""Plants drawn at random: from better than nominal to `field` in each respect. Slack tendons and weak motors
take more here than in the cube's family, as the wrist brings the hand to its place."""

IGNORED_PLANT_FIELDS = ("joint_velocity_noise_rad_s",)


@dataclass(frozen=True)
class ScissorsRandomization:
    """Half widths of the uniform, seeded randomisation of an episode around the nominal scene.

    Attributes:
        case_m: case position in x and y.
        case_yaw_rad, case_tilt_rad: orientation of the case.
        tape_m: position of the tape's middle in x, y and z.
        tape_yaw_rad, tape_pitch_rad: orientation of the tape.
        hand_m, hand_rad: where the wrist starts.
        mass, friction, hinge_friction, motor_gain: relative changes of the scissors' mass, of all sliding
            friction, of the scissors' hinge and of the hand's motor gain.
    """

    case_m: float = 0.02
    case_yaw_rad: float = 0.15
    case_tilt_rad: float = 0.1
    tape_m: tuple[float, float, float] = (0.04, 0.06, 0.04)
    tape_yaw_rad: float = 0.25
    tape_pitch_rad: float = 0.25
    hand_m: float = 0.02
    hand_rad: float = 0.04
    mass: float = 0.15
    friction: float = 0.15
    hinge_friction: float = 0.3
    motor_gain: float = 0.05

    def __post_init__(self) -> None:
        for name in ("mass", "friction", "hinge_friction", "motor_gain"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is a relative half width and must be in [0, 1), got {getattr(self, name)}"
                )

    def scaled(self, factor: float) -> ScissorsRandomization:
        """Return all half widths times a factor."""
        scaled: dict[str, Any] = {
            name: tuple(factor * item for item in value) if isinstance(value, tuple) else factor * value
            for name, value in asdict(self).items()
        }
        return ScissorsRandomization(**scaled)


DIFFICULTIES: dict[str, ScissorsRandomization] = {
    "fixed": ScissorsRandomization().scaled(0.0),
    "easy": ScissorsRandomization().scaled(0.5),
    "standard": ScissorsRandomization(),
    "hard": ScissorsRandomization().scaled(1.5),
}
