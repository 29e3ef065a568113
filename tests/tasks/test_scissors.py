"""The scissors task's contract: honest physics, a cut that must be made, stages, plants, determinism."""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.model import NUM_JOINTS
from serfn.tasks.orca_hand.plant import Plant, Pushes
from serfn.tasks.orca_hand.rotation import quaternion_to_matrix
from serfn.tasks.orca_hand.scissors.conditions import DIFFICULTIES, PLANTS
from serfn.tasks.orca_hand.scissors.geometry import (
    HAND_AXES,
    SCISSORS,
    TAPE,
    approach_rotation,
    rotation_angles,
    rotation_y,
)
from serfn.tasks.orca_hand.scissors.simulation import ScissorsSimulation
from serfn.tasks.orca_hand.scissors.state import CUT_AT_M, MOTORS, observation_features
from serfn.tasks.orca_hand.scissors.task import OrcaScissorsTape
from serfn.tasks.registry import register_envs, task


@pytest.fixture(scope="module")
def env() -> OrcaScissorsTape:
    return OrcaScissorsTape(difficulty="fixed")


def _random_actions(env: OrcaScissorsTape, steps: int) -> np.ndarray:
    change = np.random.default_rng(0).uniform(-1, 1, (steps, len(MOTORS))) * env.max_target_change
    return (env.simulation.targets + np.cumsum(change, axis=0)).astype(np.float32)


def test_registered_environment_passes_gymnasium_checks() -> None:
    register_envs()
    env = gymnasium.make(task("scissors").env_id, plant="field", episode_s=1.0)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space.shape == (89,)
    assert env.action_space.shape == (23,)


@pytest.mark.parametrize("plant", ["nominal", "field", "pushed"])
def test_same_seed_and_actions_give_the_same_trajectory(plant: str) -> None:
    runs = []
    for _ in range(2):
        env = OrcaScissorsTape(plant=plant)
        observation, _ = env.reset(seed=3)
        trace = [observation, *(env.step(action)[0] for action in _random_actions(env, 25))]
        runs.append(np.stack(trace))
    np.testing.assert_array_equal(runs[0], runs[1])


def test_seeds_draw_different_scenes_within_the_ranges_of_the_difficulty() -> None:
    env = OrcaScissorsTape()
    tapes = [env.reset(seed=seed)[0][_slice(env, "tape_position")] for seed in range(4)]
    assert np.ptp(tapes, axis=0).min() > 0.002
    half_width = np.array(DIFFICULTIES["standard"].tape_m)
    assert (np.abs(np.array(tapes) - TAPE.position_m) <= half_width + 1e-6).all()


def _slice(env: OrcaScissorsTape, prefix: str) -> list[int]:
    return [index for index, name in enumerate(env.observation_names) if name.startswith(prefix + ".")]


def test_observation_says_what_its_names_say(env: OrcaScissorsTape) -> None:
    observation, info = env.reset(seed=0)
    state = env.scissors.state()
    assert info == {"is_success": False, "stage": "none"}
    assert len(env.observation_names) == len(set(env.observation_names)) == len(observation)
    np.testing.assert_allclose(
        observation[_slice(env, "scissors_position")], state.scissors_position, atol=1e-6
    )
    np.testing.assert_allclose(observation[_slice(env, "case_position")], (0, 0, 0.2), atol=1e-6)
    in_scissors = state.scissors_rotation.T @ (state.tape_middle - state.scissors_position)
    np.testing.assert_allclose(observation[_slice(env, "tape_in_scissors")], in_scissors, atol=1e-6)
    assert observation[_slice(env, "touching")].tolist() == [0, 0, 1]  # the scissors stand in the case
    assert observation[_slice(env, "stage")].tolist() == [0, 0, 0]
    np.testing.assert_allclose(state.hand_position, state.wrist[:3], atol=1e-9)
    np.testing.assert_allclose(state.scissors_rotation, HAND_AXES, atol=0.05)


def test_near_features_vanish_where_the_blades_close_and_magnify_millimetres(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    state = env.scissors.state()
    goal = approach_rotation(state.tape_yaw, state.tape_pitch)
    at_tape = replace(
        state, scissors_rotation=goal, scissors_position=state.tape_position + CUT_AT_M * goal[:, 0]
    )
    cut = [index for index, name in enumerate(env.observation_names) if name.startswith("near_cut")]
    np.testing.assert_allclose(observation_features(at_tape)[cut], 0.0, atol=1e-6)
    aside = replace(at_tape, scissors_position=at_tape.scissors_position + 0.004 * goal[:, 1])
    np.testing.assert_allclose(observation_features(aside)[cut], [0, np.tanh(0.2), 0, 0, 0, 0], atol=1e-6)
    tilted = replace(at_tape, scissors_rotation=goal @ rotation_y(0.02))
    np.testing.assert_allclose(observation_features(tilted)[cut][3:], [0, np.tanh(0.1), 0], atol=1e-3)
    assert np.abs(env.observe(np.random.default_rng(0))[cut]).max() <= 1


def test_wrist_turns_the_hand_as_documented(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    angles = np.array([0.2, 0.4, -0.3])
    target = np.concatenate([env.simulation.targets[:3], angles, env.simulation.targets[6:]])
    for _ in range(30):
        env.step(target.astype(np.float32))
    state = env.scissors.state()
    np.testing.assert_allclose(rotation_angles(state.hand_rotation @ HAND_AXES.T), angles, atol=0.02)
    np.testing.assert_allclose(state.hand_position, target[:3], atol=0.002)


def test_targets_are_rate_limited(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    before = env.simulation.targets.copy()
    env.step(env.simulation.high.astype(np.float32))
    change = np.abs(env.simulation.targets - before)
    assert (change <= env.max_target_change + 1e-9).all()
    assert change[:3].max() == pytest.approx(0.03)
    assert change[3:].max() == pytest.approx(0.15)


@pytest.mark.parametrize("plant", ["nominal", "weak", "field"])
def test_tracking_errors_say_the_same_on_every_machine(plant: str) -> None:
    env = OrcaScissorsTape(plant=plant)
    env.reset(seed=0)
    for action in _random_actions(env, 5):
        observation = env.step(action)[0]
    joints, errors = (observation[_slice(env, name)] for name in ("joint_position", "tracking_error"))
    missing = env.simulation.targets[-NUM_JOINTS:] - joints
    np.testing.assert_allclose(errors, np.clip(missing, -0.5, 0.5), atol=1e-6)
    assert np.abs(errors).max() > 0.01


def test_pushes_move_the_machine_but_not_what_was_commanded() -> None:
    plant = Plant(push_rate_hz=20.0, push_m=0.01, push_rad=0.07, push_grip_rad=1.0)
    still, pushed = OrcaScissorsTape(), OrcaScissorsTape(plant=plant)
    assert still.reset(seed=0)[0].tolist() == pushed.reset(seed=0)[0].tolist()
    targets = still.simulation.targets.copy()
    for _ in range(3):
        calm, shaken = (env.step(targets.astype(np.float32))[0] for env in (still, pushed))
    np.testing.assert_allclose(pushed.simulation.targets, targets, atol=1e-6)
    wrist = _slice(still, "wrist_position")[:3]
    assert 0.001 < np.abs(calm[wrist] - shaken[wrist]).max() < 0.05
    # The motors know what they follow: a BC policy cannot read off what it commanded last.
    told = [shaken[_slice(still, name)] for name in ("joint_position", "tracking_error")]
    assert np.abs(sum(told) - targets[-NUM_JOINTS:]).max() > 0.02


def test_every_second_push_closes_the_grip_by_a_share_of_its_bound() -> None:
    closing = np.array([0.0, 1.0, -0.5])
    pushes = Pushes(
        Plant(push_rate_hz=20.0, push_grip_rad=0.8), 20.0, np.array([True, False, False]), closing
    )
    pushes.reset(np.random.default_rng(0))
    offsets = np.unique([pushes.next() for _ in range(2000)], axis=0)
    shares = offsets[:, 1]
    np.testing.assert_allclose(offsets, shares[:, None] * closing)
    assert shares.min() == 0.0 and 0.7 < shares.max() <= 0.8
    assert np.std(shares[shares > 0]) == pytest.approx(0.8 / np.sqrt(12), rel=0.15)


def test_nothing_but_contact_and_gravity_acts_on_the_scissors(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    model, data = env.scissors.model, env.scissors.data
    halves = [model.body(name).id for name in ("thumb_half", "finger_half")]
    driven = {model.jnt_bodyid[model.actuator_trnid[motor, 0]] for motor in range(model.nu)}
    assert not driven & set(halves)
    assert model.neq == 1
    welded = {model.body(model.eq_obj1id[0]).name, model.body(model.eq_obj2id[0]).name}
    assert welded == {"tape_left1", "tape_right1"}
    assert not model.body_gravcomp[halves].any()
    assert not data.xfrc_applied.any()
    assert not data.qfrc_applied.any()


# The controls of the cut: no hand, the test itself carries the scissors and closes them with a torque.


def _carry(
    env: OrcaScissorsTape, shift: tuple[float, float, float], start_rad: float, from_rad: float
) -> ScissorsSimulation:
    """Bring the scissors to the tape, the pivot 50 mm behind it and shifted in their frame, and close them.

    They are open by `from_rad` on the way and by `start_rad` there; closing is given a second.
    """
    env.reset(seed=0)
    sim = env.scissors
    rotation = approach_rotation(0.0, TAPE.pitch_rad)
    hinge = sim.model.joint("scissors_hinge")
    pivot = np.array(TAPE.position_m) + rotation @ np.add(shift, (0.05, 0.0, 0.0))

    def hold(position: np.ndarray, angle: float | None, torque: float) -> None:
        free = sim.model.joint("scissors")
        if angle is not None:
            sim.data.qpos[hinge.qposadr[0]], sim.data.qvel[hinge.dofadr[0]] = angle, 0.0
        opening = float(sim.data.qpos[hinge.qposadr[0]])
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, (rotation @ rotation_y(opening / 2)).ravel())
        sim.data.qpos[free.qposadr[0] : free.qposadr[0] + 7] = [*position, *quaternion]
        sim.data.qvel[free.dofadr[0] : free.dofadr[0] + 6] = 0.0
        sim.data.qfrc_applied[hinge.dofadr[0]] = torque
        sim.advance(1)

    for back in np.linspace(0.08, 0.0, 100):
        hold(pivot + back * rotation[:, 0], from_rad, 0.0)
    for _ in range(20):
        hold(pivot, start_rad, 0.0)
    for _ in range(500):
        hold(pivot, None, -0.3)
    sim.data.qfrc_applied[:] = 0.0
    return sim


def test_blades_that_close_around_the_tape_cut_it(env: OrcaScissorsTape) -> None:
    sim = _carry(env, (0.0, 0.0, 0.0), 0.4, 0.4)
    assert sim.cut_rule.cut
    assert not sim.data.eq_active.any()
    env.latched |= {"grasp": True, "retrieve": True}
    terms = env.reward_terms()
    assert terms == {"grasp": 0.0, "retrieve": 0.0, "cut": 1.0}
    outcome = env.outcome()
    assert outcome.success
    assert outcome.terminated
    assert env.details() == {"stage": "cut"}
    assert outcome.metrics["score"] == pytest.approx(1.0)
    assert not any(env.reward_terms().values())  # a stage is rewarded once


@pytest.mark.parametrize(
    ("shift", "start_rad", "from_rad"),
    [
        ((0.0, 0.0, 0.03), 0.4, 0.4),
        ((0.0, 0.0, -0.03), 0.4, 0.4),
        ((0.05, 0.0, 0.0), 0.4, 0.4),
        ((0.0, 0.04, 0.0), 0.4, 0.4),
        ((0.0, 0.0, 0.0), 0.02, 0.02),
        ((0.0, 0.0, 0.01), 0.02, 0.02),
    ],
    ids=["above", "below", "beyond the tips", "beside the middle", "closed", "closed, from above"],
)
def test_anything_else_leaves_the_tape_whole(
    env: OrcaScissorsTape, shift: tuple[float, float, float], start_rad: float, from_rad: float
) -> None:
    sim = _carry(env, shift, start_rad, from_rad)
    assert not sim.cut_rule.cut
    assert sim.data.eq_active.all()


def test_scissors_on_the_floor_end_the_episode(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    free = env.scissors.model.joint("scissors")
    env.scissors.data.qpos[free.qposadr[0] : free.qposadr[0] + 3] = (0.3, 0.3, 0.1)
    _, reward, terminated, truncated, info = env.step(env.simulation.targets.astype(np.float32))
    assert terminated
    assert not truncated
    assert reward == 0.0
    assert info["episode_metrics"]["dropped"] == 1.0
    assert info["is_success"] is False


def test_time_truncates() -> None:
    env = OrcaScissorsTape(difficulty="fixed", episode_s=0.1)
    env.reset(seed=0)
    action = env.simulation.targets.astype(np.float32)
    assert env.step(action)[2:4] == (False, False)
    assert env.step(action)[2:4] == (False, True)


def test_diverged_simulation_ends_as_a_flagged_failure(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    env.scissors.data.qvel[env.scissors.model.joint("tape_left0_x").dofadr[0]] = np.nan
    observation, reward, terminated, truncated, info = env.step(env.simulation.targets.astype(np.float32))
    assert terminated
    assert not truncated
    assert reward == 0.0
    assert info["simulation_diverged"] is True
    assert info["is_success"] is False
    assert info["stage"] == "none"
    assert np.isfinite(observation).all()
    assert all(np.isfinite(value) for value in info["episode_metrics"].values())


def test_plants_change_what_they_say(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    field = PLANTS["field"]
    other = OrcaScissorsTape(plant="field", difficulty="fixed")
    other.reset(seed=0)
    nominal, changed = env.scissors.model, other.scissors.model
    half, hinge = nominal.body("thumb_half").id, nominal.joint("scissors_hinge").dofadr[0]
    assert changed.body_mass[half] == pytest.approx(field.object_mass * nominal.body_mass[half])
    assert changed.dof_frictionloss[hinge] == pytest.approx(
        field.hinge_friction * nominal.dof_frictionloss[hinge]
    )
    np.testing.assert_allclose(changed.geom_friction[:, 0], field.friction * nominal.geom_friction[:, 0])
    np.testing.assert_allclose(
        changed.actuator_gainprm[:NUM_JOINTS, 0], field.motor_gain * nominal.actuator_gainprm[:NUM_JOINTS, 0]
    )
    np.testing.assert_array_equal(
        changed.actuator_gainprm[NUM_JOINTS:], nominal.actuator_gainprm[NUM_JOINTS:]
    )


def test_sensor_noise_moves_the_measurement_and_not_the_world() -> None:
    sim = OrcaScissorsTape(
        plant=Plant(object_position_noise_m=0.001, object_rotation_noise_rad=0.01)
    ).scissors
    sim.place(DIFFICULTIES["fixed"], np.random.default_rng(0))
    before = observation_features(sim.state())
    readings = [observation_features(sim.sensed(np.random.default_rng(seed))) for seed in range(200)]
    np.testing.assert_array_equal(before, observation_features(sim.state()))
    pivots = np.array([sim.sensed(np.random.default_rng(seed)).scissors_position for seed in range(200)])
    np.testing.assert_allclose(pivots.std(axis=0), 0.001, rtol=0.25)
    rotation = sim.sensed(np.random.default_rng(0)).scissors_rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.ptp(readings, axis=0).max() > 0


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"plant": "meshes"}, "meshes.*nominal"),
        ({"plant": Plant(joint_velocity_noise_rad_s=0.1)}, "joint_velocity_noise_rad_s.*0.1"),
        ({"difficulty": "absurd"}, "absurd.*standard"),
        ({"render_mode": "human"}, "human.*rgb_array"),
    ],
)
def test_bad_options_are_named(kwargs: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OrcaScissorsTape(**kwargs)


def test_ranges_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mass.*1\.5"):
        replace(DIFFICULTIES["standard"], mass=1.5)


def test_rendering_shows_hand_scissors_and_tape() -> None:
    env = OrcaScissorsTape(render_mode="rgb_array", difficulty="fixed")
    env.reset(seed=0)
    frame = env.render()
    env.close()
    assert frame is not None
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    assert ((red > 2 * green) & (red > 100)).sum() > 30  # the thumb's loop
    assert ((red > 120) & (green > 110) & (blue < green - 40)).sum() > 20  # the tape
    assert ((red > 160) & (green > 160) & (blue > 160)).sum() > 500  # the hand's skin


def test_scissors_frame_is_the_bisector_of_the_halves(env: OrcaScissorsTape) -> None:
    env.reset(seed=0)
    sim = env.scissors
    sim.data.qpos[sim.model.joint("scissors_hinge").qposadr[0]] = 0.4
    mujoco.mj_forward(sim.model, sim.data)
    state = sim.state()
    axes = {}
    for half in ("thumb", "finger"):
        body = sim.model.body(f"{half}_half").id
        axes[half] = state.scissors_rotation.T @ quaternion_to_matrix(sim.data.xquat[body])
        loop = state.scissors_rotation @ SCISSORS.loop_centre(half, 0.4) + state.scissors_position
        own = sim.data.xpos[body] + sim.data.xmat[body].reshape(3, 3) @ SCISSORS.loop(half).centre
        np.testing.assert_allclose(loop, own, atol=1e-9)
    np.testing.assert_allclose(axes["thumb"] @ axes["finger"], np.eye(3), atol=1e-9)
