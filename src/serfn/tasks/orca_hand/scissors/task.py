"""`serfn/OrcaScissorsTape-v0`: take scissors out of a case and cut a tape with them.

**Task.** Scissors stand in a case, handles up. Put thumb and fingers through the loops, lift the scissors
out, bring the open blades around a tape between two posts and close them. Nothing but contact moves the
scissors, and the tape parts only when both edges close on it (see `cut_rule`).

**Observation** [89] float32, SI units: the features of `state.OBSERVATION_NAMES` and the latched
stages `grasp`, `retrieve` and `reach` (0 or 1). Twelve features magnify the last centimetres of the
scissors' way into the hand and around the tape, and have no unit. Tracking errors tell in rad how far the
motors still have to go: their torque would say so on one machine and mislead on a weaker one.

**Action** [23]: absolute targets of the wrist (x, y, z in m; yaw, pitch, roll in rad) and of the hand's 17
joints in rad, rate limited to 30 mm and 0.15 rad per step; 20 Hz.

**Reward**, sparse: +1 once for each stage. `grasp`: thumb and a finger pass through their loops and touch
the scissors for five steps in a row. `retrieve`: then the tips are 5 mm out of the case, which the scissors
no longer touch, while they are held. `cut`: the tape is cut. **End**: cut; drop (scissors below 12 cm, or
after retrieval 12 cm out of the hand); the simulation diverges; 18 s are over (truncation).

**Metrics** in `info["episode_metrics"]`, all 0 or 1 but the first: `score` = (grasp + retrieve + 8 cut) / 10;
`grasp`, `retrieve`, `cut`; the diagnostics `reach` (retrieved, and the tape lay between the open blades),
`pierced` (thumb and a finger were through the loops), `contact` (thumb and a finger touched the scissors) and
`dropped`. `info["stage"]` is the last stage achieved. **Success**: cut.
"""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from typing import Any, ClassVar, Literal

import mujoco
import numpy as np

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.environment import MAX_TARGET_CHANGE_RAD, HandEnvironment, Outcome
from serfn.tasks.orca_hand.model import NUM_JOINTS, PhysicsConfig
from serfn.tasks.orca_hand.plant import Plant
from serfn.tasks.orca_hand.plant import plant as resolve_plant
from serfn.tasks.orca_hand.scissors.conditions import (
    DIFFICULTIES,
    FAMILY,
    IGNORED_PLANT_FIELDS,
    PLANTS,
    ScissorsRandomization,
)
from serfn.tasks.orca_hand.scissors.scene import PHYSICS, compiled_scene
from serfn.tasks.orca_hand.scissors.simulation import ScissorsSimulation
from serfn.tasks.orca_hand.scissors.state import OBSERVATION_NAMES, ScissorsState, observation_features
from serfn.tasks.orca_hand.wrist import WRIST

Difficulty = Literal["fixed", "easy", "standard", "hard"]
Stage = Literal["none", "grasp", "retrieve", "cut"]

ENV_ID = "serfn/OrcaScissorsTape-v0"
EPISODE_S = 18.0
STAGES = ("grasp", "retrieve", "cut")
GRASP_STEPS = 5
OUT_OF_CASE_M = 0.005
DROP_HEIGHT_M = 0.12
LOST_M = 0.12
SCORE_WEIGHTS = {"grasp": 0.1, "retrieve": 0.1, "cut": 0.8}

_LATCHES = ("grasp", "retrieve", "cut", "reach", "pierced", "contact", "dropped")
_SHOWN = ("grasp", "retrieve", "reach")


class OrcaScissorsTape(HandEnvironment):
    """Scissors and tape; see the module's documentation for the contract."""

    first_joint = 0
    max_target_change = np.array([*np.repeat(WRIST.max_change, 3), *[MAX_TARGET_CHANGE_RAD] * NUM_JOINTS])
    camera: ClassVar[dict[str, Any]] = {
        "lookat": (-0.12, 0.0, 0.32),
        "distance": 0.85,
        "azimuth": 120,
        "elevation": -12,
    }

    def __init__(
        self,
        plant: str | Plant = "nominal",
        difficulty: Difficulty | ScissorsRandomization = "standard",
        episode_s: float = EPISODE_S,
        render_mode: str | None = None,
        physics: PhysicsConfig = PHYSICS,
    ) -> None:
        """Make the environment.

        Args:
            plant: the machine that executes: a name from `conditions.PLANTS`, `random:SEED` or a `Plant`.
            difficulty: how widely the scene is drawn per episode: a name, or the ranges themselves.
            episode_s: episode length in seconds.
            render_mode: None or `rgb_array`.
            physics: integration and contact settings.

        Raises:
            ConfigError: an unknown plant, difficulty or render mode.
        """
        if not isinstance(difficulty, ScissorsRandomization):
            if difficulty not in DIFFICULTIES:
                raise ConfigError(
                    f"unknown difficulty {difficulty!r}; choose one of {', '.join(DIFFICULTIES)} or ranges"
                )
            difficulty = DIFFICULTIES[difficulty]
        self.plant = resolve_plant(plant, PLANTS, IGNORED_PLANT_FIELDS, FAMILY)
        self._physics, self._ranges = physics, difficulty
        simulation = ScissorsSimulation(self.plant, physics)
        names = (*OBSERVATION_NAMES, *(f"stage.{name}" for name in _SHOWN))
        super().__init__(simulation, names, episode_s, render_mode)
        self.scissors = simulation

    def place(self, rng: np.random.Generator) -> None:
        """Draw the episode's conditions and put everything in its place."""
        self.scissors.randomize(self._ranges, rng)
        self.scissors.place(self._ranges, rng)
        self.latched: dict[str, bool] = {name: False for name in _LATCHES}
        self._held_steps = 0

    def observe(self, rng: np.random.Generator) -> np.ndarray:
        """Return the observation [89] as the plant's sensors give it."""
        features = observation_features(self.scissors.sensed(rng))
        return np.concatenate([features, [np.float32(self.latched[name]) for name in _SHOWN]])

    def reward_terms(self) -> dict[str, float]:
        """Latch what the last step achieved and return +1 for each new stage."""
        before = dict(self.latched)
        self._latch(self.scissors.state())
        return {name: float(self.latched[name] and not before[name]) for name in STAGES}

    def _latch(self, state: ScissorsState) -> None:
        latched = self.latched
        thumb, index, middle = state.pierced
        self._held_steps = self._held_steps + 1 if state.held else 0
        latched["pierced"] |= thumb and (index or middle)
        latched["contact"] |= state.touching[0] and state.touching[1]
        latched["grasp"] |= self._held_steps >= GRASP_STEPS
        out = state.tip_height > OUT_OF_CASE_M and not state.touching[2]
        latched["retrieve"] |= latched["grasp"] and state.held and out
        latched["reach"] |= latched["retrieve"] and self.scissors.cut_rule.armed
        latched["cut"] |= self.scissors.cut_rule.cut
        lost = latched["retrieve"] and state.handles_from_hand > LOST_M
        latched["dropped"] |= bool(state.scissors_position[2] < DROP_HEIGHT_M or lost)

    @property
    def stage(self) -> Stage:
        """The last stage achieved."""
        later_first: tuple[Stage, ...] = ("cut", "retrieve", "grasp")
        for stage in later_first:
            if self.latched[stage]:
                return stage
        return "none"

    def details(self) -> dict[str, Any]:
        """Return the last stage achieved."""
        return {"stage": self.stage}

    def outcome(self) -> Outcome:
        """Return whether the episode is over, and the metrics of the module's documentation."""
        latched = self.latched
        metrics = {
            "score": sum(weight * latched[name] for name, weight in SCORE_WEIGHTS.items()),
            **{name: float(value) for name, value in latched.items()},
        }
        return Outcome(latched["cut"] or latched["dropped"], latched["cut"], metrics)

    def visual_model(self) -> mujoco.MjModel:
        """Return the scene with the hand's visual meshes."""
        return compiled_scene(self.plant.collision, self._physics, visual=True)
