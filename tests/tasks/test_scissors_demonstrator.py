from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from serfn.core.errors import ConfigError
from serfn.tasks.orca_hand.model import JOINTS
from serfn.tasks.orca_hand.scissors.demonstrator import (
    Phase,
    ScissorsDemonstrator,
    Style,
    draw_style,
    make_demonstrator,
)
from serfn.tasks.orca_hand.scissors.postures import grip_postures
from serfn.tasks.orca_hand.scissors.reading import read
from serfn.tasks.orca_hand.scissors.task import OrcaScissorsTape


@pytest.fixture(scope="module")
def env() -> OrcaScissorsTape:
    return OrcaScissorsTape()


def act(env: OrcaScissorsTape, style: Style, *, seed: int, steps: int) -> tuple[list[str], np.ndarray, dict]:
    """Return the phases in the order of their first appearance, the actions, and the last info."""
    demonstrator = ScissorsDemonstrator(style, np.random.default_rng(seed))
    observation, info = env.reset(seed=seed)
    phases, actions = [], []
    for _ in range(steps):
        action = demonstrator.act(observation)
        if demonstrator.phase not in phases:
            phases.append(demonstrator.phase)
        observation, _, terminated, truncated, info = env.step(action)
        actions.append(action)
        if terminated or truncated:
            break
    return phases, np.array(actions), info


@pytest.mark.parametrize("approach", ["front", "above"])
def test_without_noise_it_cuts_the_tape_in_the_order_of_its_phases(
    env: OrcaScissorsTape, approach: str
) -> None:
    phases, _, info = act(env, Style(approach=approach), seed=0, steps=360)  # pyright: ignore[reportArgumentType]
    assert info["is_success"]
    order = get_args(Phase)
    assert phases == sorted(phases, key=order.index)


def disturbed(
    env: OrcaScissorsTape, *, phase: str, after: int = 0, steps: int, disturbance: np.ndarray
) -> tuple[list[str], dict]:
    """Return all phases and the last info of an episode whose commands are disturbed once.

    The disturbance is added in `steps` steps, from `after` steps of a phase on.
    """
    demonstrator = ScissorsDemonstrator(Style(), np.random.default_rng(0))
    observation, info = env.reset(seed=0)
    phases: list[str] = []
    for _ in range(360):
        action = demonstrator.act(observation)
        phases.append(demonstrator.phase)
        if phases.count(phase) > after and steps:
            action, steps = action + disturbance, steps - 1
        observation, _, terminated, truncated, info = env.step(action.astype(np.float32))
        if terminated or truncated:
            break
    return phases, info


def test_blades_that_closed_before_the_tape_leave_open_again_and_cut(env: OrcaScissorsTape) -> None:
    closing = np.concatenate([np.zeros(6), 1.2 * grip_postures().closing()])
    phases, info = disturbed(env, phase="advance", after=3, steps=10, disturbance=closing)
    released = phases.index("release")
    assert "close" not in phases[:released]
    assert phases[-1] == "close"
    assert info["is_success"]


def test_a_thumb_that_missed_its_loop_withdraws_and_goes_in_again(env: OrcaScissorsTape) -> None:
    bent = np.zeros(23)
    bent[6 + JOINTS.index("thumb_dip")] = 1.2
    phases, info = disturbed(env, phase="insert", steps=10, disturbance=bent)
    withdrawn = phases.index("withdraw")
    assert "hook" not in phases[:withdrawn]
    assert phases.index("lift") > withdrawn
    assert info["is_success"]


def test_the_same_seed_acts_the_same(env: OrcaScissorsTape) -> None:
    style = Style(noise=1.0, speed=1.5)
    np.testing.assert_array_equal(act(env, style, seed=3, steps=15)[1], act(env, style, seed=3, steps=15)[1])


def test_it_has_no_memory_of_the_way_to_the_loops(env: OrcaScissorsTape) -> None:
    style = Style()
    used = ScissorsDemonstrator(style, np.random.default_rng(0))
    observation, _ = env.reset(seed=1)
    for _ in range(10):
        observation = env.step(used.act(observation))[0]
    fresh = ScissorsDemonstrator(style, np.random.default_rng(0))
    np.testing.assert_array_equal(used.act(observation), fresh.act(observation))


def test_noise_perturbs_and_speed_lengthens_the_first_command(env: OrcaScissorsTape) -> None:
    observation, _ = env.reset(seed=2)
    slow, fast, shaky = (
        ScissorsDemonstrator(style, np.random.default_rng(0)).act(observation)
        for style in (Style(), Style(speed=1.5), Style(noise=1.0))
    )
    wrist = read(observation).wrist
    ratio = np.linalg.norm(fast[:3] - wrist[:3]) / np.linalg.norm(slow[:3] - wrist[:3])
    assert ratio == pytest.approx(1.5, abs=0.01)
    assert (shaky[1:] != slow[1:]).all()


def test_every_style_is_drawn() -> None:
    styles = {draw_style(np.random.default_rng(seed)) for seed in range(600)}
    assert len(styles) == 2 * 2 * 2 * 2 * 3
    first = make_demonstrator(np.random.default_rng(4)).style
    assert first == make_demonstrator(np.random.default_rng(4)).style


def test_reading_agrees_with_the_simulation(env: OrcaScissorsTape) -> None:
    observation, _ = env.reset(seed=5)
    reading, state = read(observation), env.scissors.state()
    np.testing.assert_allclose(reading.hand_rotation, state.hand_rotation, atol=1e-6)
    np.testing.assert_allclose(reading.scissors_rotation, state.scissors_rotation, atol=1e-6)
    np.testing.assert_allclose(reading.wrist[:3], state.hand_position, atol=1e-6)
    assert reading.tape_yaw == pytest.approx(state.tape_yaw, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"approach": "below"}, "front, above"), ({"speed": 0.0}, "speed"), ({"noise": -1.0}, "noise")],
)
def test_bad_styles_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Style(**arguments)
