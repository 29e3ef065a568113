"""What cannot be resumed is refused with the reason, and nothing starts anew in silence."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serfn.core.errors import CheckpointError, DataError
from serfn.data.formats.npz import load_npz, save_npz
from serfn.data.store.writer import StoreWriter
from serfn.runs.folder import stored_config, write_config
from serfn.runs.inputs import INPUTS
from serfn.runs.train import train
from serfn.training.config import TrainConfig
from serfn.training.stages.imitation import ImitationConfig


class Notes:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage_started(self, name: str, total: int) -> None: ...

    def advanced(self, name: str, n: int, metrics: object) -> None: ...

    def stage_finished(self, name: str, summary: object) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def config(make_config: Callable[..., TrainConfig]) -> TrainConfig:
    return make_config(imitation=ImitationConfig(steps=4, batch_size=8))


def test_what_does_not_belong_together_is_refused(config: TrainConfig, demos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(config, folder, films=False, stages=["imitation"])
    with (
        StoreWriter(folder / "experience"),
        pytest.raises(DataError, match="being written by process"),
    ):
        train(config, folder, films=False, resume=True)

    episodes = load_npz(demos).episodes
    save_npz(demos, [dataclasses.replace(episode, rewards=episode.rewards / 2) for episode in episodes])
    with pytest.raises(CheckpointError, match="demonstrations have changed since the checkpoint"):
        train(config, folder, films=False, resume=True)
    save_npz(demos, episodes)

    pointer = folder / "checkpoints" / "last.json"
    text = pointer.read_text()
    pointer.unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from, but traces.*metrics\.jsonl"):
        train(config, folder, films=False, resume=True)
    pointer.write_text(text)
    train(config, folder, films=False, resume=True, stages=["imitation"])


def test_a_run_is_found_with_its_data_wherever_both_lie(
    config: TrainConfig, demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project / "data", elsewhere):
        folder.mkdir(parents=True)
    shutil.copyfile(demos, project / "data/x.npz")
    monkeypatch.chdir(project)
    relative = dataclasses.replace(config, demos=Path("data/x.npz"))
    train(relative, project / "run", films=False, stages=["imitation"])

    def resume(folder: Path, hint: Path = Path("data/x.npz")) -> None:
        again = dataclasses.replace(stored_config(folder), demos=hint)
        train(again, folder, films=False, resume=True, stages=["imitation"])

    monkeypatch.chdir(elsewhere)
    resume(project / "run")
    resume(project / "run", project / "run/../data/x.npz")
    project.rename(tmp_path / "moved")
    resume(tmp_path / "moved/run")
    (tmp_path / "moved/data/x.npz").rename(elsewhere / "other-name.npz")
    with pytest.raises(DataError, match=r"do not exist in .*x\.npz.*any copy of the same content"):
        resume(tmp_path / "moved/run")
    resume(tmp_path / "moved/run", elsewhere / "other-name.npz")
    resume(tmp_path / "moved/run")


def test_other_content_is_refused_though_the_content_of_the_run_lies_elsewhere(
    config: TrainConfig, demos: Path, tmp_path: Path
) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy.npz"
    train(config, folder, films=False, stages=["imitation"])
    episodes = load_npz(demos).episodes
    save_npz(copy, [dataclasses.replace(episode, rewards=episode.rewards / 2) for episode in episodes])
    with pytest.raises(CheckpointError, match=r"changed since the checkpoint.*copy.npz' has the fingerprint"):
        train(dataclasses.replace(config, demos=copy), folder, films=False, resume=True)
    (folder / INPUTS).unlink()
    with pytest.raises(CheckpointError, match="changed since the checkpoint"):
        train(dataclasses.replace(config, demos=copy), folder, films=False, resume=True)
    train(config, folder, films=False, resume=True, stages=["imitation"])


def test_a_run_stopped_before_its_first_checkpoint_says_that_it_starts(
    config: TrainConfig, tmp_path: Path
) -> None:
    folder, progress = tmp_path / "run", Notes()
    folder.mkdir()
    write_config(folder, config)
    train(config, folder, films=False, resume=True, stages=["imitation"], progress=progress)
    assert any("stopped before its first checkpoint" in note for note in progress.notes)
