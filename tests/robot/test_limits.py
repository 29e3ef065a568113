from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from serfn.core.config import from_dict
from serfn.core.errors import ConfigError
from serfn.robot.adapters.fake import FakeRobot
from serfn.robot.clock import ManualClock
from serfn.robot.limits import (
    JointLimits,
    SafetyLimits,
    StallLimits,
    default_limits,
    describe_limits,
    limits_toml,
    load_limits,
)
from serfn.robot.watchdog import WatchdogConfig

INFO = FakeRobot(ManualClock()).info
JOINT = "joint0.pos"


def changed(**fields: Any) -> SafetyLimits:
    return dataclasses.replace(default_limits(INFO), **fields)


def with_joint(**fields: Any) -> SafetyLimits:
    joints = dict(default_limits(INFO).joints)
    joints[JOINT] = dataclasses.replace(joints[JOINT], **fields)
    return changed(joints=joints)


@pytest.mark.parametrize(
    "limits",
    [
        default_limits(INFO),
        changed(max_current_ma=450.0, max_temperature_c=65.5, stall=StallLimits(0.4)),
        with_joint(low=-0.25, max_speed=1e-3),
    ],
)
def test_a_file_reads_back_what_was_written(tmp_path: Path, limits: SafetyLimits) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(limits_toml(limits), encoding="utf-8")
    assert load_limits(path, INFO) == limits


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (changed(robot="orca"), "for 'orca'"),
        (changed(unit="m"), "in m"),
        (with_joint(high=1.5), "wider than the robot's"),
        (with_joint(low=0.5), "rest position"),
        (changed(joints={JOINT: JointLimits(-1, 1, 1, 1)}), "'joint1.pos' has no limits"),
        (
            changed(joints={**default_limits(INFO).joints, "joint9.pos": JointLimits(-1, 1, 1, 1)}),
            "unknown joint 'joint9.pos'",
        ),
    ],
)
def test_limits_that_do_not_fit_the_robot_are_refused(limits: SafetyLimits, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        limits.check(INFO)


@pytest.mark.parametrize("name", ["current", "temperature", "position"])
def test_a_limit_on_a_sensor_that_does_not_exist_is_refused(name: str) -> None:
    limits = changed(max_current_ma=1.0, max_temperature_c=1.0, stall=StallLimits(1.0))
    blind: Any = dataclasses.replace(INFO, **{f"{name}_keys": ()})
    with pytest.raises(ConfigError, match=f"measures no {name}"):
        limits.check(blind)


@pytest.mark.parametrize(
    "make",
    [
        lambda: JointLimits(1, 1, 1, 1),
        lambda: JointLimits(-1, 1, 0, 1),
        lambda: JointLimits(-1, 1, 1, float("inf")),
        lambda: StallLimits(error=-1),
        lambda: WatchdogConfig(0.2, 0.1, 0.3),
        lambda: changed(max_current_ma=-1.0),
        lambda: changed(frozen_s=0.0),
        lambda: changed(joints={}),
    ],
)
def test_impossible_limits_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_a_misspelt_key_names_its_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    text = limits_toml(default_limits(INFO)).replace("start_tolerance", "start_tolerence")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'start_tolerance'"):
        load_limits(path, INFO)


def test_the_example_of_the_documentation_is_a_limits_file() -> None:
    page = (Path(__file__).parents[2] / "docs" / "robot-safety.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    limits = from_dict(SafetyLimits, tomllib.loads(example))
    assert limits.stall is not None
    named = {field.name for field in dataclasses.fields(SafetyLimits)}
    assert set(tomllib.loads(example)) == named, "every key is explained"


def test_what_is_shown_before_motion_names_every_joint_and_limit() -> None:
    text = describe_limits(changed(max_current_ma=450.0))
    assert all(name in text for name in INFO.action.names)
    assert "450 mA for 0.2 s" in text
    assert "temperature  65 °C\n" in text
    assert "stall        not watched\n" in text


def test_a_margin_keeps_the_rest_pose_inside() -> None:
    info = dataclasses.replace(INFO, rest=(-1.0, 0.0, 1.0))
    limits = default_limits(info, margin=0.1)
    limits.check(info)
    joints = [limits.joints[name] for name in info.action.names]
    assert [(joint.low, joint.high) for joint in joints] == [(-1.0, 0.8), (-0.8, 0.8), (-0.8, 1.0)]
