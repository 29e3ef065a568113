from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec
from serfn.critics.mlp import MLPCriticConfig
from serfn.data.chunk_batch import ChunkBatch
from serfn.data.formats.npz import load_npz
from serfn.data.replay import ChunkReplay
from serfn.runs.evaluate import load_actor
from serfn.sessions import promotion
from serfn.sessions.cluster.shipping import LinkError
from serfn.sessions.policy_slot import PolicySlot
from serfn.sessions.promotion import PromotionConfig, judge
from serfn.sessions.snapshots import SnapshotStore
from serfn.sessions.weight_updates import Probes, WeightUpdates
from serfn.training.acting import BestOfNActor

CRITIC = MLPCriticConfig(width=16, depth=2, v_min=-1.0, v_max=1.0)
BOUNDS = (-1.0, 1.0)


@pytest.fixture
def actor(robot_run: Path) -> BestOfNActor:
    return load_actor(robot_run, candidates=2)[0]


@pytest.fixture
def probes(robot_run: Path) -> ChunkBatch:
    replay = ChunkReplay(ActionSpec((-1.0, -1.0), (1.0, 1.0)), 4, 4, 100)
    for episode in load_npz(robot_run / "demonstrations.npz").episodes:
        replay.add(episode)
    return replay.windows(np.arange(40))


def changed(actor: BestOfNActor, edit: Any) -> BestOfNActor:
    policy, critic = copy.deepcopy(actor.policy), copy.deepcopy(actor.critic)
    with torch.no_grad():
        edit(policy, critic)
    return BestOfNActor(policy, critic, actor.task, actor.acting)


def verdict(candidate: BestOfNActor, actor: BestOfNActor, probes: ChunkBatch, **limits: Any) -> Any:
    return judge(2, candidate, actor, probes, PromotionConfig(**limits), value_bounds=BOUNDS, seed=0)


def test_the_same_weights_pass_with_no_difference(actor: BestOfNActor, probes: ChunkBatch) -> None:
    result = verdict(changed(actor, lambda policy, critic: None), actor, probes)
    assert result.promoted
    for name in ("likelihood_shift", "divergence", "drift", "saturation_growth"):
        assert result.measures[name] == pytest.approx(0.0, abs=1e-5)
    assert result.measures["jerk_ratio"] == pytest.approx(1.0)


def test_small_steps_pass(actor: BestOfNActor, probes: ChunkBatch) -> None:
    def edit(policy: Any, critic: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        for value in policy.parameters():
            value += 1e-3 * torch.randn(value.shape, generator=generator)

    assert verdict(changed(actor, edit), actor, probes).promoted


def test_nan_anywhere_is_refused(actor: BestOfNActor, probes: ChunkBatch) -> None:
    def spoil_policy(policy: Any, critic: Any) -> None:
        next(policy.parameters()).view(-1)[0] = torch.nan

    def spoil_critic(policy: Any, critic: Any) -> None:
        next(critic.parameters()).view(-1)[0] = torch.inf

    for edit in (spoil_policy, spoil_critic):
        result = verdict(changed(actor, edit), actor, probes)
        assert not result.promoted
        assert "not finite" in result.reason


def test_a_policy_that_forgot_is_refused(actor: BestOfNActor, probes: ChunkBatch) -> None:
    def shift(policy: Any, critic: Any) -> None:
        policy.flow.whitening.mean += 5.0

    result = verdict(changed(actor, shift), actor, probes)
    assert not result.promoted
    assert result.measures["likelihood_shift"] > 1
    assert result.measures["drift"] > 0.5


def test_values_far_outside_their_bounds_are_refused(actor: BestOfNActor, probes: ChunkBatch) -> None:
    def inflate(policy: Any, critic: Any) -> None:
        for value in critic.parameters():
            value *= 40.0

    result = verdict(changed(actor, inflate), actor, probes)
    assert not result.promoted
    assert "value excess" in result.reason


@pytest.mark.parametrize(
    ("measure", "limit"),
    [
        ("likelihood_shift", "MAX_LIKELIHOOD_SHIFT"),
        ("divergence", "max_kl"),
        ("saturation_growth", "MAX_SATURATION_GROWTH"),
        ("jerk_ratio", "max_jerk_ratio"),
        ("drift", "MAX_DRIFT"),
    ],
)
def test_every_limit_refuses_what_is_beyond_it_and_nothing_else(
    measure: str, limit: str, actor: BestOfNActor, probes: ChunkBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(policy: Any, critic: Any) -> None:
        policy.flow.whitening.mean += 0.5
        policy.flow.whitening.std *= 4.0

    candidate, limits = changed(actor, edit), {"max_kl": 1e9, "max_jerk_ratio": 1e9}
    for name in ("MAX_LIKELIHOOD_SHIFT", "MAX_SATURATION_GROWTH", "MAX_VALUE_EXCESS", "MAX_DRIFT"):
        monkeypatch.setattr(promotion, name, 1e9)
    passed = verdict(candidate, actor, probes, **limits)
    assert passed.promoted and passed.measures[measure] > 0
    if limit.isupper():
        monkeypatch.setattr(promotion, limit, 0.9 * passed.measures[measure])
    else:
        limits[limit] = 0.9 * passed.measures[measure]
    refused = verdict(candidate, actor, probes, **limits)
    assert not refused.promoted and refused.reason.startswith(measure.replace("_", " "))


def test_no_probes_no_promotion(actor: BestOfNActor, probes: ChunkBatch) -> None:
    empty = probes.first(0)
    with pytest.raises(ConfigError, match="probes"):
        verdict(actor, actor, empty)


@pytest.mark.parametrize("wrong", [{"max_kl": 0}, {"max_jerk_ratio": -1}, {"failures": 6}])
def test_impossible_limits_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PromotionConfig(**wrong)


class Rig:
    """Snapshots and the updates of one robot."""

    def __init__(self, folder: Path, actor: BestOfNActor, probes: ChunkBatch, **options: Any) -> None:
        self.folder, self.actor, self.probes, self.options = folder, actor, probes, options
        self.snapshots = SnapshotStore(folder / "policies")
        if not self.snapshots.versions():
            self.publish()
        self.notes: list[str] = []
        self.open()

    def publish(self, edit: Any = lambda policy, critic: None) -> int:
        return self.snapshots.publish(changed(self.actor, edit), updates=0, critic=CRITIC)

    def open(self) -> WeightUpdates:
        self.updates = WeightUpdates(
            self.snapshots,
            self.folder / "serving.json",
            self.folder / "promotions.jsonl",
            PromotionConfig(failures=2),
            Probes.for_task(self.probes, self.actor.task, 0),
            value_bounds=BOUNDS,
            seed=0,
            note=self.notes.append,
            **self.options,
        )
        self.slot = PolicySlot(self.updates.actor, self.updates.version)
        self.updates.supply(self.slot)
        return self.updates


@pytest.fixture
def rig(tmp_path: Path, actor: BestOfNActor, probes: ChunkBatch) -> Rig:
    return Rig(tmp_path, actor, probes)


def broken(policy: Any, critic: Any) -> None:
    policy.flow.whitening.mean += 5.0


def test_promoted_weights_take_over_between_episodes(rig: Rig) -> None:
    assert rig.updates.look() is None
    rig.publish()
    promotion = rig.updates.look()
    assert promotion is not None
    assert promotion.promoted
    assert rig.slot.version == 1
    assert rig.slot.episode_begins() == 2


def test_refused_weights_never_reach_the_robot_and_are_not_tried_again(rig: Rig) -> None:
    rig.publish(broken)
    promotion = rig.updates.look()
    assert promotion is not None
    assert not promotion.promoted
    assert rig.updates.look() is None
    assert rig.slot.episode_begins() == 1
    line = json.loads((rig.folder / "promotions.jsonl").read_text(encoding="utf-8"))
    assert line["version"] == 2
    assert "likelihood shift" in line["reason"]


def test_rolling_back_survives_a_restart(rig: Rig) -> None:
    rig.publish()
    rig.updates.look()
    rig.slot.episode_begins()
    assert rig.updates.roll_back("it drops the cube") == 1
    assert rig.slot.episode_begins() == 1
    rig.open()
    assert rig.updates.version == 1
    assert rig.updates.look() is None, "a version that was left must not come back"
    assert rig.updates.roll_back("again") is None
    rig.publish()
    promotion = rig.updates.look()
    assert promotion is not None
    assert promotion.promoted
    assert rig.updates.version == 3


def test_failures_roll_back_by_themselves(rig: Rig) -> None:
    rig.publish()
    rig.updates.look()
    for failed in (True, False):
        rig.updates.episode_ended(2, failed, None)
    assert rig.updates.version == 2
    rig.updates.episode_ended(1, True, None)
    assert rig.updates.version == 2, "episodes of another version do not count"
    rig.updates.episode_ended(2, True, None)
    assert rig.updates.version == 1


def test_a_learner_out_of_reach_changes_nothing(
    tmp_path: Path, actor: BestOfNActor, probes: ChunkBatch
) -> None:
    class Cut:
        def fetch(self, snapshots: SnapshotStore) -> None:
            raise LinkError("no route")

    rig = Rig(tmp_path, actor, probes, source=Cut())
    assert rig.updates.look() is None
    assert rig.updates.look() is None
    assert [note for note in rig.notes if "no route" in note] == ["no new weights for now: no route"]
    assert rig.slot.episode_begins() == 1


def test_own_episodes_become_probes_beside_demonstrations(
    robot_run: Path, actor: BestOfNActor, probes: ChunkBatch
) -> None:
    mixed = Probes.for_task(probes, actor.task, 0)
    assert len(mixed.draw()) == 40
    mixed.add(load_npz(robot_run / "demonstrations.npz").episodes[0])
    drawn = mixed.draw()
    assert len(drawn) == 40 + 64
    np.testing.assert_array_equal(drawn.obs[:40], probes.obs)
