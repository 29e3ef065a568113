from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serfn.core.errors import CheckpointError, ConfigError, DataError, SerfnError
from serfn.data.formats.npz import load_npz, save_npz
from serfn.data.store.store import EpisodeStore
from serfn.policies.bundle import load_bundle
from serfn.reports.run_record import load_run
from serfn.runs.evaluate import evaluate, load_actor
from serfn.runs.train import train
from serfn.training.acting import ActingConfig
from serfn.training.checkpoint import read_tree, resolve
from serfn.training.config import TrainConfig
from serfn.training.stages.imitation import ImitationConfig
from serfn.training.stages.state import STAGES

pytestmark = pytest.mark.slow


class Recorder:
    """Progress that remembers; `interrupt_at` presses Ctrl-C when that many units are done."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.started: list[tuple[str, int]] = []
        self.finished: list[str] = []
        self.done: dict[str, int] = {}
        self.notes: list[str] = []
        self.interrupt_at = interrupt_at

    def stage_started(self, name: str, total: int) -> None:
        self.started.append((name, total))

    def advanced(self, name: str, n: int, metrics: Mapping[str, float]) -> None:
        self.done[name] = self.done.get(name, 0) + n
        if self.interrupt_at is not None and sum(self.done.values()) >= self.interrupt_at:
            self.interrupt_at = None
            os.kill(os.getpid(), signal.SIGINT)

    def stage_finished(self, name: str, summary: Mapping[str, float]) -> None:
        self.finished.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_run_writes_its_folder(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    folder, progress = tmp_path / "run", Recorder()
    result = train(make_config(), folder, progress=progress)
    assert [name for name, _ in progress.started] == list(STAGES) == progress.finished
    assert progress.done == dict(progress.started)
    assert list(result.finals) == ["imitation", "offline", "online"]
    record = load_run(folder)
    assert record.status["complete"] and record.status["robot_minutes"] == pytest.approx(6 * 8 / 10 / 60)
    assert set(record.status["seconds"]) == set(STAGES)
    parts = {"learning", "simulation", "acting", "evaluation/simulation", "evaluation/acting"}
    assert set(record.status["time"]) == parts | {"films", "records"}
    assert sum(part["share"] for part in record.status["time"].values()) == pytest.approx(1.0, abs=1e-3)
    assert all(part["seconds"] >= 0 for part in record.status["time"].values())
    assert [point.final for point in record.evaluations] == [False, True, True, False, False, False, True]
    assert [point.result.episodes for point in record.evaluations] == [3, 5, 5, 3, 3, 3, 5]
    assert [point.stage for point in record.evaluations[:2]] == ["imitation", "imitation"]
    assert len(record.gates) == len(result.gates) >= 3
    assert record.series("critic_warmup", "critic/td_loss")[0] == [2.0, 4.0]
    shown = {path.stem: caption for path, caption in record.films}
    assert {name.rsplit("_", 1)[0] for name in shown} == {"imitation_before", "online_after"}
    assert all(caption.endswith(f": a {name.rsplit('_', 1)[1]}") for name, caption in shown.items())
    with (folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["stage"] for row in table] == [row["stage"] for row in record.metrics]
    assert list((folder / "tensorboard").iterdir())
    assert load_bundle(folder / "policy").spec.id == "toy/Reach-v0"


def test_episodes_are_collected_with_as_many_steps_of_each_chunk_as_the_way_of_acting_says(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config()
    collecting = ActingConfig(candidates=2, n_action_steps=3)
    folder = tmp_path / "run"
    train(
        dataclasses.replace(config, online=dataclasses.replace(config.online, collecting=collecting)),
        folder,
        films=False,
    )
    episodes = list(EpisodeStore(folder / "experience").episodes())
    assert len(episodes) == 6
    for episode in episodes:
        assert np.flatnonzero(episode.chunk_starts).tolist() == [0, 3, 6]


def test_a_bundle_remembers_how_many_steps_of_each_chunk_are_executed(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    acting = ActingConfig(candidates=1, temperature=0.6, n_action_steps=3)
    config = make_config(imitation=ImitationConfig(steps=8, batch_size=16, acting=acting))
    train(config, tmp_path / "run", films=False, stages=["imitation"])
    assert load_actor(tmp_path / "run")[0].acting == acting
    assert load_actor(tmp_path / "run/policy")[0].acting == acting


@pytest.mark.parametrize("interrupt_at", [5, 14, 21])
def test_ctrl_c_leaves_a_run_that_resumes_with_the_same_numbers(
    make_config: Callable[..., TrainConfig], tmp_path: Path, interrupt_at: int
) -> None:
    config = make_config()
    train(config, tmp_path / "whole", films=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", films=False, progress=Recorder(interrupt_at))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not load_run(tmp_path / "stopped").status["complete"]
    train(config, tmp_path / "stopped", films=False, resume=True)
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        whole, stopped = (lines(tmp_path / run / name) for run in ("whole", "stopped"))
        assert without_seconds(stopped) == without_seconds(whole)
    assert (tmp_path / "stopped/gates.json").read_text() == (tmp_path / "whole/gates.json").read_text()
    weights = [
        read_tree(resolve(tmp_path / run / "checkpoints", "last"))["agent"]["policy"]["module"]
        for run in ("whole", "stopped")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_rows_written_after_the_last_checkpoint_are_cut_off(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(make_config(), folder, films=False, stages=["imitation"])
    before = (folder / "metrics.jsonl").read_text()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "critic_warmup", "step": 2}\n{"stage": "cri')
    train(make_config(), folder, films=False, resume=True)
    rows = lines(folder / "metrics.jsonl")
    assert (folder / "metrics.jsonl").read_text().startswith(before)
    assert [row["step"] for row in rows if row["stage"] == "critic_warmup"] == [2, 4]


def test_a_folder_with_a_run_is_not_overwritten(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    train(make_config(), tmp_path / "run", films=False, stages=["imitation"])
    with pytest.raises(ConfigError, match="already holds a run"):
        train(make_config(), tmp_path / "run")
    with pytest.raises(CheckpointError, match="seed: stored 0, now 1"):
        train(make_config(seed=1), tmp_path / "run", resume=True)


def test_bad_input_writes_nothing(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(DataError, match=r"gone\.npz"):
        train(make_config(demos=tmp_path / "gone.npz"), folder)
    with pytest.raises(DataError, match="no demonstrator"):
        train(make_config(demos=None), folder)
    with pytest.raises(ConfigError, match="dreaming"):
        train(make_config(), folder, stages=["dreaming"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="fewer than a chunk of 16"):
        train(make_config(chunk_size=16), folder)
    with pytest.raises(ConfigError, match="width is 16"):
        train(make_config(chunk_size=100), folder)
    with pytest.raises(ConfigError, match="cannot write"):
        train(make_config(), tmp_path / "demos.npz" / "run")
    assert not folder.exists()


def test_alarms_are_kept_with_the_run(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainConfig, "value_bounds", property(lambda config: (-1e-6, 1e-6)))
    progress = Recorder()
    train(make_config(), tmp_path / "run", films=False, progress=progress)
    (alarm,) = load_run(tmp_path / "run").alarms
    assert alarm["stage"] == "online" and "the critic is exploited" in alarm["text"]
    assert f"online: {alarm['text']}" in progress.notes


def test_the_user_learns_what_is_odd_about_demonstrations(
    make_config: Callable[..., TrainConfig], tmp_path: Path, demos: Path
) -> None:
    loud = [
        dataclasses.replace(episode, rewards=10 + episode.rewards, success=False)
        for episode in load_npz(demos).episodes
    ]
    save_npz(tmp_path / "loud.npz", loud)
    progress = Recorder()
    train(make_config(demos=tmp_path / "loud.npz"), tmp_path / "run", stages=["imitation"], progress=progress)
    assert any("no demonstration succeeds" in note for note in progress.notes)
    assert any("100% of the steps are clipped" in note for note in progress.notes)


def test_a_machine_that_cannot_render_is_told_once(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: Any, **__: Any) -> None:
        raise SerfnError("no OpenGL")

    monkeypatch.setattr("serfn.runs.films.record_frames", unable)
    progress = Recorder()
    train(make_config(), tmp_path / "run", progress=progress)
    assert progress.notes.count("no film: no OpenGL") == 1
    assert load_run(tmp_path / "run").status["complete"]


def test_demonstrations_of_another_task_are_refused(
    make_config: Callable[..., TrainConfig], tmp_path: Path, demos: Path
) -> None:
    episodes = [
        dataclasses.replace(episode, observations=np.pad(episode.observations, ((0, 0), (0, 1))))
        for episode in load_npz(demos).episodes
    ]
    save_npz(tmp_path / "wide.npz", episodes)
    with pytest.raises(DataError, match="has 3 observation dimensions"):
        train(make_config(demos=tmp_path / "wide.npz"), tmp_path / "run")


def test_evaluation_of_run_checkpoint_and_bundle(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(make_config(), folder, films=False)
    progress = Recorder()
    first = evaluate(folder, episodes=4, seed=3, progress=progress)
    assert progress.done == {"evaluation": 4}
    assert evaluate(folder, episodes=4, seed=3) == first
    assert first.scores == tuple(-value for value in first.metrics["distance"])
    checkpoint = resolve(folder / "checkpoints", "best")
    assert evaluate(checkpoint, episodes=4, seed=3) == first
    bundle, config = load_actor(folder / "policy")
    assert config is None and bundle.acting.candidates == 1
    assert evaluate(folder / "policy", episodes=2).episodes == 2
    assert load_actor(folder, candidates=3, temperature=0.0)[0].acting.candidates == 3


def test_a_run_of_another_version_says_so(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(make_config(), folder, films=False, stages=["imitation"])
    path = resolve(folder / "checkpoints", "best") / "config.json"
    document = json.loads(path.read_text())
    document["config"]["forgotten"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"another version of serfn \(unknown option 'forgotten'"):
        evaluate(folder)


def test_evaluation_refuses_what_it_cannot_use(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(make_config(), folder, films=False, stages=["imitation"])
    with pytest.raises(CheckpointError, match="no folder"):
        evaluate(tmp_path / "gone")
    with pytest.raises(CheckpointError):
        evaluate(tmp_path)
    with pytest.raises(ConfigError, match="episodes"):
        evaluate(folder, episodes=0)
    with pytest.raises(ConfigError, match="candidates is 0"):
        evaluate(folder / "policy", candidates=0)
    with pytest.raises(ConfigError, match="needs a critic"):
        evaluate(folder / "policy", candidates=4)
    with pytest.raises(ConfigError, match="observations: the policy has"):
        evaluate(folder, env="Pendulum-v1")


def test_time_on_the_robot_is_counted_apart_for_training_and_evaluation(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """An interrupted run counts on where it was."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(make_config(), whole, films=False)
    train(make_config(), resumed, films=False, stages=("imitation",))
    train(make_config(), resumed, films=False, resume=True)
    for folder in (whole, resumed):
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        lines = (folder / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
        results = [json.loads(line)["result"] for line in lines]
        minutes = sum(sum(result["lengths"]) / result["control_hz"] / 60 for result in results)
        assert minutes > 0
        assert status["evaluation_minutes"] == pytest.approx(minutes, abs=1e-3)
        assert status["robot_minutes"] > 0


def test_a_resumed_run_knows_where_its_time_went(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    for resume in (False, True):
        train(make_config(), tmp_path / "run", films=False, stages=("imitation",), resume=resume)
        # The second time nothing is left to do.
        assert "evaluation/acting" in load_run(tmp_path / "run").status["time"]
