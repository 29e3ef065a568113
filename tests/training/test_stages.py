"""Stages as a whole: they learn, they stop and continue with the same numbers, they recover, they judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serfn.core.errors import CheckpointError, ConfigError
from serfn.core.results import EvaluationResult
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.training.acting import ActingConfig
from serfn.training.agent import AgentConfig
from serfn.training.build import make_demonstration_replay
from serfn.training.config import TrainConfig
from serfn.training.improvements.regularized import RegularizedConfig
from serfn.training.session import TrainingSession
from serfn.training.stages import base
from serfn.training.stages.context import LoopConfig, TrainingDivergedError
from serfn.training.stages.critic_warmup import CriticWarmupConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.offline import OfflineConfig
from serfn.training.stages.online import AlarmConfig, OnlineConfig
from serfn.training.stages.state import STAGES
from tests.training.conftest import demonstrations

pytestmark = pytest.mark.slow

# The toy run has 24 + 16 + 24 + 3 · 12 = 100 updates; these fall into every stage, on and off a checkpoint.
STOPS = (0, 3, 24, 30, 47, 64, 70, 76, 95)


def fingerprint(session: TrainingSession) -> dict[str, Any]:
    ctx = session.context
    return {
        "agent": ctx.agent.state_dict(),
        "rng": ctx.rng.bit_generator.state,
        "replay": replayed(ctx.online),
        "state": ctx.state.state_dict(),
        "best_policy": ctx.best_policy,
    }


def replayed(replay: ChunkReplay) -> dict[str, Any]:
    """Everything that may be drawn."""
    if len(replay) == 0:
        return {}
    windows = replay.windows(np.arange(len(replay)))
    return {name: value for name, value in vars(windows).items() if value is not None}


def assert_same(first: Any, second: Any, path: str = "") -> None:
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            assert_same(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    elif isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second, err_msg=path)
    elif isinstance(first, list):
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{path}/{index}")
    else:
        assert first == second, path


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_run_continues_with_the_same_numbers(
    stop: int,
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    tmp_path: Path,
    uninterrupted: dict[str, Any],
) -> None:
    usual = toy_config()
    config = toy_config(online=dataclasses.replace(usual.online, reference="round"))
    if not uninterrupted:
        session = surroundings.make_session(config, tmp_path / "whole")
        session.run()
        uninterrupted.update(rows=list(surroundings.rows), end=fingerprint(session))
        surroundings.rows.clear()
    surroundings.stop_after = stop
    with pytest.raises(KeyboardInterrupt):
        surroundings.make_session(config, tmp_path / "stopped").run()
    surroundings.stop_after = None
    session = surroundings.make_session(config, tmp_path / "stopped")
    session.resume()
    assert session.state.updates == stop
    session.run()
    assert_same(fingerprint(session), uninterrupted["end"])
    assert_same([list(row) for row in surroundings.rows], [list(row) for row in uninterrupted["rows"]])


@pytest.mark.parametrize(
    ("callback", "call"), [("evaluate", 1), ("evaluate", 2), ("evaluate", 4), ("collect", 3)]
)
def test_an_interrupt_inside_a_callback_loses_nothing(
    callback: str,
    call: int,
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    tmp_path: Path,
) -> None:
    config = toy_config()
    whole = surroundings.make_session(config, tmp_path / "whole")
    whole.run()
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return getattr(surroundings, callback)(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        surroundings.make_session(config, tmp_path / "stopped", **{callback: interrupted}).run()
    session = surroundings.make_session(config, tmp_path / "stopped")
    session.resume()
    session.run()
    assert_same(fingerprint(session), fingerprint(whole))


def test_a_killed_run_continues_from_its_last_checkpoint(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = toy_config()
    whole = surroundings.make_session(config, tmp_path / "whole")
    whole.run()

    class Killed(BaseException):
        pass

    def report(means: dict[str, float]) -> None:
        if surroundings.session.state.updates > 83:
            raise Killed

    with pytest.raises(Killed):
        surroundings.make_session(config, tmp_path / "killed", report=report).run()
    session = surroundings.make_session(config, tmp_path / "killed")
    session.resume()
    assert session.state.stage == "online" and session.state.updates <= 83
    session.run()
    assert_same(fingerprint(session), fingerprint(whole))


def test_a_finished_run_has_nothing_left_to_do(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = toy_config()
    surroundings.make_session(config, tmp_path).run()
    session = surroundings.make_session(config, tmp_path)
    session.resume()
    before = fingerprint(session)
    session.run()
    assert_same(fingerprint(session), before)


@pytest.mark.parametrize("every", [0, 1])
def test_imitation_is_evaluated_on_the_starts_of_the_way_where_the_online_stage_is(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path, every: int
) -> None:
    evaluated: list[tuple[str, bool]] = []

    def evaluate(actor: Any, *, stage: str, final: bool) -> EvaluationResult:
        evaluated.append((stage, final))
        return surroundings.evaluate(actor, stage=stage, final=final)

    online = dataclasses.replace(toy_config().online, evaluate_every=every)
    session = surroundings.make_session(toy_config(online=online), tmp_path, evaluate=evaluate)
    session.run(["imitation"])
    assert evaluated == [("imitation", False)] * (every > 0) + [("imitation", True)]


def test_another_configuration_cannot_be_resumed(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    surroundings.make_session(toy_config(), tmp_path).run(["imitation"])
    other = surroundings.make_session(toy_config(agent=AgentConfig(polyak=0.5)), tmp_path)
    with pytest.raises(CheckpointError, match=r"agent\.polyak: stored 0\.01, now 0\.5"):
        other.resume()


def test_stages_can_be_run_one_by_one(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = toy_config()
    whole = surroundings.make_session(config, tmp_path / "whole")
    whole.run()
    for number in range(len(STAGES)):
        session = surroundings.make_session(config, tmp_path / "parts")
        if number:
            session.resume()
        session.run(STAGES[: number + 1])
    assert_same(fingerprint(session), fingerprint(whole))
    with pytest.raises(ConfigError, match="stands in stage 'online'"):
        session.run(["imitation"])
    with pytest.raises(ConfigError, match="dreaming"):
        session.run(["dreaming"])


def test_four_stages_improve_the_return(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    improvement = RegularizedConfig(operator="advantage_weighted", coefficient=0.1)
    config = toy_config(
        agent=AgentConfig(discount=0.8, policy_learning_rate=1e-3, polyak=0.02, critic_learning_rate=1e-3),
        imitation=ImitationConfig(steps=300, batch_size=64, learning_rate=3e-3),
        critic_warmup=CriticWarmupConfig(steps=300, batch_size=64),
        offline=OfflineConfig(steps=300, batch_size=64, improvement=improvement),
        online=OnlineConfig(
            episodes=64,
            episodes_per_round=16,
            updates_per_round=200,
            batch_size=64,
            evaluate_every=1,
            improvement=improvement,
        ),
        loop=LoopConfig(),
    )
    surroundings.make_session(config, tmp_path).run()
    final = {stage: score for stage, closing, score in surroundings.scores if closing}
    assert final["offline"] > final["imitation"] + 0.5
    assert final["online"] > final["offline"] + 0.2


def test_updates_that_are_not_finite_return_to_the_last_good_state(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(loop=LoopConfig(report_every=4, checkpoint_every=8))
    session = surroundings.make_session(config, tmp_path)
    agent, imitate = session.context.agent, session.context.agent.imitation_step

    def broken(batch: Any) -> Any:
        # A finite spoiling of the weights, as a wild update would leave behind, from which every loss is NaN.
        if session.state.step == 9:
            with torch.no_grad():
                next(agent.policy.parameters()).fill_(torch.nan)
        return imitate(batch)

    monkeypatch.setattr(agent, "imitation_step", broken)
    monkeypatch.setattr(base, "MAX_SKIPPED", 3)
    session.run(["imitation"])
    assert all(parameter.isfinite().all() for parameter in agent.policy.parameters())
    rollback = session.state.gates[0]
    assert not rollback.promoted and "not finite" in rollback.reason
    assert session.state.gates[-1].promoted


def test_training_that_stays_broken_gives_up(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(loop=LoopConfig(report_every=4, checkpoint_every=4))
    session = surroundings.make_session(config, tmp_path)
    agent, imitate = session.context.agent, session.context.agent.imitation_step

    def broken(batch: Any) -> Any:
        with torch.no_grad():
            next(agent.policy.parameters()).fill_(torch.nan)
        return imitate(batch)

    monkeypatch.setattr(agent, "imitation_step", broken)
    monkeypatch.setattr(base, "MAX_SKIPPED", 3)
    with pytest.raises(TrainingDivergedError, match=f"after {base.MAX_ROLLBACKS} returns"):
        session.run()


def scripted(scores: dict[str, float]) -> Callable[..., EvaluationResult]:
    def evaluate(actor: Any, *, stage: str, final: bool) -> EvaluationResult:
        score = scores[stage]
        return EvaluationResult((score,) * 4, (None,) * 4, (5,) * 4, (score,) * 4, {}, 10.0)

    return evaluate


@pytest.mark.parametrize(
    ("demonstrated", "evaluated", "raised"), [(True, False, True), (True, True, False), (None, False, False)]
)
def test_demonstrations_that_succeed_and_evaluations_that_never_do_are_a_finding(
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    tmp_path: Path,
    demonstrated: bool | None,
    evaluated: bool,
    raised: bool,
) -> None:
    def evaluate(actor: Any, *, stage: str, final: bool) -> EvaluationResult:
        return EvaluationResult((1.0,) * 4, (False, False, evaluated, False), (5,) * 4, (1.0,) * 4, {}, 10.0)

    alarms: list[str] = []
    session = surroundings.make_session(toy_config(), tmp_path, evaluate=evaluate, alarm=alarms.append)
    replay = make_demonstration_replay(
        session.config,
        session.context.task,
        [dataclasses.replace(episode, success=demonstrated) for episode in demonstrations(4)],
    )
    session.context.demonstrations = replay
    session.run(["imitation"])
    assert any("none of 4 evaluation episodes does" in alarm for alarm in alarms) is raised


@pytest.mark.parametrize("enforced", [True, False])
def test_a_stage_that_makes_the_policy_worse_is_not_promoted(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path, enforced: bool
) -> None:
    scores = scripted({"imitation": 3.0, "offline": 2.0})
    session = surroundings.make_session(toy_config(enforce_gates=enforced), tmp_path, evaluate=scores)
    session.run(["imitation"])
    clone = session.context.agent.policy_state()["module"]
    session.run(["imitation", "critic_warmup", "offline"])
    assert [gate.promoted for gate in session.state.gates] == [True, False]
    assert session.state.best is not None and session.state.best.mean == 3.0
    policy = session.context.agent.policy.state_dict()
    assert all(torch.equal(policy[name], clone[name]) for name in clone) is enforced
    assert session.store.load("best")["state"]["stage"] == "imitation"


def online_config(toy_config: Callable[..., TrainConfig], **alarms: Any) -> TrainConfig:
    return toy_config(
        online=OnlineConfig(
            episodes=12,
            episodes_per_round=4,
            updates_per_round=12,
            batch_size=16,
            evaluate_every=0,
            alarms=AlarmConfig(**alarms),
        )
    )


def test_a_divergence_alarm_returns_the_policy_to_the_start(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    session = surroundings.make_session(online_config(toy_config, max_kl=1e-9), tmp_path)
    session.run(STAGES)
    rollbacks = [gate for gate in session.state.gates if gate.score is None]
    assert rollbacks and all("KL / D" in gate.reason and gate.stage == "online" for gate in rollbacks)
    assert any("rolled back" in note for note in surroundings.notes)


def test_values_outside_their_bounds_raise_one_alarm(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = online_config(toy_config, max_kl=None)
    alarms: list[str] = []
    session = surroundings.make_session(config, tmp_path, alarm=alarms.append)
    session.context.agent.value_bounds = (-1e-6, 1e-6)
    session.run(STAGES)
    assert len(alarms) == 1
    assert "the critic is exploited" in alarms[0]


def test_one_bad_round_is_waited_out_and_a_second_returns_to_the_last_sound_policy(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {3: True, 4: False, 5: True, 6: True}
    collectors: dict[int, Any] = {}

    def collect(actor: Any, episodes: int, first_episode: int) -> list[Any]:
        round_number = first_episode // 4 + 1
        collectors[round_number] = session.context.agent.policy_state()["module"]
        collected = surroundings.collect(actor, episodes, first_episode)
        failed = failing.get(round_number, False)
        return [dataclasses.replace(e, terminated=failed, truncated=not failed) for e in collected]

    online = OnlineConfig(
        episodes=24,
        episodes_per_round=4,
        updates_per_round=12,
        batch_size=16,
        evaluate_every=0,
        alarms=AlarmConfig(max_kl=None, max_failures=3),
    )
    session = surroundings.make_session(toy_config(online=online), tmp_path, collect=collect)
    returned_to: list[Any] = []
    load = session.context.agent.load_policy_state
    monkeypatch.setattr(
        session.context.agent,
        "load_policy_state",
        lambda s: (session.state.stage == "online" and returned_to.append(s["module"]), load(s)),
    )
    session.run(STAGES)
    rollbacks = [gate for gate in session.state.gates if gate.score is None]
    assert len(rollbacks) == 1 and "4 episodes of each of the last 2 rounds failed" in rollbacks[0].reason
    assert all(torch.equal(returned_to[0][name], value) for name, value in collectors[4].items())


def evaluated_each_round(toy_config: Callable[..., TrainConfig]) -> TrainConfig:
    return toy_config(
        online=OnlineConfig(
            episodes=12, episodes_per_round=4, updates_per_round=12, batch_size=16, evaluate_every=1
        )
    )


def test_an_evaluation_clearly_below_the_best_returns_the_policy(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    interim = iter([4.0, 5.0, 1.0, 4.9])

    def evaluate(actor: Any, *, stage: str, final: bool) -> EvaluationResult:
        score = next(interim) if stage == "online" and not final else 5.0
        return EvaluationResult((score,) * 4, (None,) * 4, (5,) * 4, (score, score + 1) * 2, {}, 10.0)

    session = surroundings.make_session(evaluated_each_round(toy_config), tmp_path, evaluate=evaluate)
    session.run()
    rollbacks = [gate for gate in session.state.gates if gate.score is None]
    assert len(rollbacks) == 1 and "clearly below" in rollbacks[0].reason


def test_the_stage_ends_with_its_best_evaluated_policy_and_the_critic_that_chose_for_it(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    interim, evaluated = iter([0.5, 1.0, 1.4, 1.2]), []

    def evaluate(actor: Any, *, stage: str, final: bool) -> EvaluationResult:
        if stage == "online":
            agent = session.context.agent
            critic = {f"critic.{name}": value for name, value in agent.critic_state().items()}
            evaluated.append({**agent.policy_state()["module"], **critic})
        score = next(interim) if stage == "online" and not final else 1.0
        return EvaluationResult((score,) * 4, (None,) * 4, (5,) * 4, (score, score + 1) * 2, {}, 10.0)

    session = surroundings.make_session(evaluated_each_round(toy_config), tmp_path, evaluate=evaluate)
    session.run()
    _, _, best, last, final = evaluated
    for part in ("flow.", "critic."):
        assert any(not torch.equal(best[name], last[name]) for name in best if name.startswith(part))
    assert all(torch.equal(best[name], final[name]) for name in best)
    assert any("best evaluated policy, 1.9" in note for note in surroundings.notes)


def test_the_stage_returns_to_its_start_where_nothing_after_it_scored_higher_on_the_same_seeds(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    # The interim seeds are easier than the final ones: judged against those, every policy would be better.
    interim, evaluated = iter([3.0, 2.9, 2.8, 2.9]), []

    def evaluate(actor: Any, *, stage: str, final: bool) -> EvaluationResult:
        if stage == "online":
            evaluated.append(session.context.agent.policy_state()["module"])
        score = next(interim) if stage == "online" and not final else 1.0
        return EvaluationResult((score,) * 4, (None,) * 4, (5,) * 4, (score, score + 1) * 2, {}, 10.0)

    session = surroundings.make_session(evaluated_each_round(toy_config), tmp_path, evaluate=evaluate)
    session.run()
    start, *_, last, final = evaluated
    assert any(not torch.equal(start[name], last[name]) for name in start)
    assert all(torch.equal(start[name], final[name]) for name in start)


def test_robot_time_ends_the_online_stage(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    # Four episodes of 12 steps at 10 Hz are 0.08 minutes.
    online = OnlineConfig(
        episodes=100, robot_minutes=0.1, episodes_per_round=4, updates_per_round=4, batch_size=8
    )
    session = surroundings.make_session(toy_config(online=online), tmp_path)
    session.run()
    assert session.state.episodes == 8
    assert session.state.robot_steps == 96


def test_the_policy_waits_until_the_critic_knows_the_robot(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    surroundings.make_session(toy_config(), tmp_path).run()
    moved = [step for stage, step, means in surroundings.rows if stage == "online" and "policy/kl" in means]
    assert min(moved) > 12


def test_episodes_may_be_collected_by_another_way_of_acting_than_is_evaluated(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    collected: list[ActingConfig] = []
    evaluated: list[ActingConfig] = []

    def collect(actor: Any, episodes: int, first_episode: int) -> list[Any]:
        collected.append(actor.acting)
        return surroundings.collect(actor, episodes, first_episode)

    def evaluate(actor: Any, *, stage: str, final: bool) -> EvaluationResult:
        if stage == "online":
            evaluated.append(actor.acting)
        return surroundings.evaluate(actor, stage=stage, final=final)

    usual, curious = ActingConfig(candidates=2, temperature=0.3), ActingConfig(candidates=5)
    online = OnlineConfig(
        episodes=8, episodes_per_round=4, updates_per_round=6, batch_size=16, acting=usual, collecting=curious
    )
    surroundings.make_session(toy_config(online=online), tmp_path, collect=collect, evaluate=evaluate).run()
    assert set(collected) == {curious} and set(evaluated) == {usual}


def test_learning_rates_decay_over_the_offline_stage_and_within_every_online_round(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    usual = toy_config()
    config = toy_config(
        offline=dataclasses.replace(usual.offline, schedule="cosine"),
        online=dataclasses.replace(usual.online, schedule="cosine"),
    )
    session = surroundings.make_session(config, tmp_path, evaluate=None)
    agent = session.context.agent
    rates: dict[str, list[tuple[float, float]]] = {"offline": [], "online": []}
    step = agent.critic_step

    def watched(batch: Any) -> Any:
        if session.state.stage in rates:
            optimizers = (agent._policy.optimizer, agent._critic.optimizer)
            policy, critic = (optimizer.param_groups[0]["lr"] for optimizer in optimizers)
            rates[session.state.stage].append((policy, critic))
        return step(batch)

    agent.critic_step = watched
    session.run()
    peaks = np.array([config.agent.policy_learning_rate, config.agent.critic_learning_rate])
    # From 1 to a twentieth along half a cosine: in its middle, .05 + .95 / 2.
    offline, online = np.array(rates["offline"]) / peaks, np.array(rates["online"]) / peaks
    assert offline[[0, 12]] == pytest.approx(np.array([[1.0] * 2, [0.525] * 2]))
    assert online[[0, 6, 12, 18, 24]] == pytest.approx(np.array([[1.0] * 2, [0.525] * 2] * 2 + [[1.0] * 2]))
    assert (np.diff(offline[:, 0]) < 0).all() and (np.diff(online[:12, 1]) < 0).all()


def test_imitation_of_successes_leaves_failed_demonstrations_to_the_critic(
    surroundings: Any,
    toy_config: Callable[..., TrainConfig],
    toy_demonstrations: list[Episode],
    tmp_path: Path,
) -> None:
    outcomes = [dataclasses.replace(e, success=i % 4 == 0) for i, e in enumerate(toy_demonstrations)]
    good = {float(value) for e in outcomes if e.success for value in e.observations[:, 0]}
    for only in (True, False):
        config = toy_config(imitation=ImitationConfig(steps=8, batch_size=32, successes_only=only))
        folder = tmp_path / str(only)
        session = TrainingSession(
            config, surroundings.make_session(config, folder).context.task, outcomes, folder
        )
        seen: set[float] = set()
        imitate = session.context.agent.imitation_step

        def watched(batch: Any, seen: set[float] = seen, imitate: Any = imitate) -> Any:
            seen.update(batch.obs[:, 0].tolist())
            return imitate(batch)

        session.context.agent.imitation_step = watched
        session.run(["imitation"])
        assert (seen <= good) is only
        assert session.context.demonstrations.num_episodes == len(outcomes)


def test_the_reference_is_the_policy_that_collected_the_round(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    usual = toy_config()
    config = toy_config(online=dataclasses.replace(usual.online, reference="round"))
    collected: list[torch.Tensor] = []
    references: list[torch.Tensor] = []

    def weights(policy: Any) -> torch.Tensor:
        return torch.cat([weight.detach().flatten() for weight in policy.parameters()]).clone()

    def collect(actor: Any, *args: Any) -> Any:
        collected.append(weights(actor.policy))
        return surroundings.collect(actor, *args)

    session = surroundings.make_session(config, tmp_path, evaluate=None, collect=collect)
    agent = session.context.agent
    improve = agent.policy_step

    def watched(*args: Any) -> Any:
        references.append(weights(agent.reference))
        return improve(*args)

    agent.policy_step = watched
    session.run(["imitation", "critic_warmup", "online"])
    # Rounds of 12 updates, a policy step at every third; the first round is the critic's alone.
    assert len(collected) == 3 and len(references) == 8
    for reference, collector in zip(references, [collected[1]] * 4 + [collected[2]] * 4, strict=True):
        assert torch.equal(reference, collector)
    assert not torch.equal(collected[1], collected[2])


@pytest.mark.parametrize("windows", ["all", "replans"])
def test_online_chunks_can_teach_the_policy_as_they_were_planned(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path, windows: Any
) -> None:
    usual = toy_config()
    config = toy_config(online=dataclasses.replace(usual.online, policy_windows=windows))
    replanned: set[bytes] = set()
    taught: set[bytes] = set()

    def collect(*args: Any) -> Any:
        episodes = surroundings.collect(*args)
        for episode in episodes:
            replanned.update(row.tobytes() for row in episode.observations[:-1][episode.chunk_starts])
        return episodes

    session = surroundings.make_session(config, tmp_path, evaluate=None, collect=collect)
    agent = session.context.agent
    improve = agent.policy_step

    def watched(batch: Any, *args: Any) -> Any:
        taught.update(row.tobytes() for row in batch.obs.numpy())
        return improve(batch, *args)

    agent.policy_step = watched
    session.run(["imitation", "critic_warmup", "online"])
    assert taught and (taught <= replanned) is (windows == "replans")


def test_aborted_episodes_count_as_tried_and_those_of_robots_that_went_on_as_well(
    surroundings: Any, toy_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    # The first round is lost as a whole, the second brings more than it was asked for.
    lengths = iter([0, 6, 2])
    asked: list[tuple[int, int]] = []

    def collect(actor: Any, episodes: int, first_episode: int) -> list[Any]:
        asked.append((first_episode, episodes))
        count = next(lengths)
        return surroundings.collect(actor, count, first_episode) if count else []

    online = OnlineConfig(episodes=12, episodes_per_round=4, updates_per_round=4, batch_size=8)
    session = surroundings.make_session(toy_config(online=online), tmp_path, collect=collect)
    session.run()
    assert asked == [(0, 4), (4, 4), (10, 2)]
    assert session.state.episodes == 12
    assert session.state.robot_steps == 8 * 12
