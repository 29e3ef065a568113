from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfn.core.errors import ConfigError, DataError
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec

SPEC = ActionSpec(low=(-1.0, 0.0), high=(3.0, 0.5), names=("thumb", "index"))


def test_bounds_map_to_minus_one_and_one() -> None:
    normalized = SPEC.normalize(np.array([[-1.0, 0.5], [1.0, 0.25], [3.0, 0.0]]))
    assert normalized.dtype == np.float32
    assert normalized.tolist() == [[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=20))
def test_normalisation_is_inverted(values: list[tuple[float, float]]) -> None:
    actions = np.array(values, np.float32)
    np.testing.assert_allclose(SPEC.normalize(SPEC.denormalize(actions)), actions, atol=1e-6)
    SPEC.check(SPEC.denormalize(actions))


def test_the_first_bad_action_is_named() -> None:
    SPEC.check(np.array([3.0003, 0.5], np.float32))
    actions = np.zeros((2, 3, 2))
    actions[1, 2, 0] = 3.1
    with pytest.raises(
        DataError, match=r"index \[1, 2\], dimension 0 \('thumb'\) is 3\.1, outside \[-1, 3\]"
    ):
        SPEC.check(actions)
    actions[0, 1, 1] = math.nan
    with pytest.raises(DataError, match=r"index \[0, 1\], dimension 1 \('index'\) is nan"):
        SPEC.check(actions)
    with pytest.raises(DataError, match=r"\(4, 3\); the last dimension must be 2"):
        SPEC.check(np.zeros((4, 3)))


def test_specifications_survive_json() -> None:
    task = TaskSpec("cube", ObservationSpec(95), SPEC, control_hz=20, max_episode_steps=400)
    assert TaskSpec.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert ActionSpec.from_dict(SPEC.to_dict()) == SPEC
    assert ObservationSpec.from_dict({"dim": 2, "names": ["a", "b"]}) == ObservationSpec(2, ("a", "b"))


def test_impossible_specifications_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dimension 1 has bounds \[2\.0, 2\.0\]"):
        ActionSpec(low=(0.0, 2.0), high=(1.0, 2.0))
    with pytest.raises(ConfigError, match="inf"):
        ActionSpec(low=(-math.inf,), high=(1.0,))
    with pytest.raises(ConfigError, match="1 low and 2 high"):
        ActionSpec(low=(0.0,), high=(1.0, 1.0))
    with pytest.raises(ConfigError, match="1 action names for 2"):
        ActionSpec(low=(0.0, 0.0), high=(1.0, 1.0), names=("a",))
    with pytest.raises(ConfigError, match="dim is 0"):
        ObservationSpec(0)
    with pytest.raises(ConfigError, match="control_hz is 0"):
        TaskSpec("a", ObservationSpec(1), SPEC, 0.0, 10)
    with pytest.raises(ConfigError, match="max_episode_steps is 0"):
        TaskSpec("a", ObservationSpec(1), SPEC, 1.0, 0)
