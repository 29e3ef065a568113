from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serfn.cli.main import main
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.episode import Episode
from serfn.data.store.chunks import chunks_of, start_of
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import StoreWriter


def episode(seed: int) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(13, 3)),
        actions=rng.uniform(-1, 1, (12, 2)),
        rewards=rng.normal(size=12),
        chunk_starts=np.arange(12) % 4 == 0,
        images={"wrist": rng.integers(256, size=(13, 2, 2, 3), dtype=np.uint8)},
        terminated=True,
        truncated=False,
        success=seed > 0,
        seed=seed,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three episodes, and one that a crash left in its journal."""
    task = TaskSpec("toy", ObservationSpec(3), ActionSpec((-1.0, -1.0), (1.0, 1.0)), 20.0, 100)
    folder = EpisodeStore.create(tmp_path / "run" / "experience", task).path
    writer = StoreWriter(folder, flush="never")
    for seed in range(3):
        writer.add(episode(seed))
    recording = writer.record(start_of(episode(3)))
    recording.append(chunks_of(episode(3))[0])
    recording.abandon()
    writer.close()
    return folder


def test_info_of_a_store_and_of_a_run(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (store, store.parent):
        assert main(["data", "info", str(path)]) == 0
        said = capsys.readouterr().out
        assert "3 episodes, 36 steps" in said and "2 of 3 successful" in said
        assert "camera wrist: 3 episodes" in said and "1 episodes are being recorded" in said


def test_check_repair_and_check_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(store)]) == 0
    assert "4 steps that are recorded but not committed" in capsys.readouterr().out
    path = next(path for path in (store / "episodes").glob("00000001-*") if "images" not in path.name)
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["data", "check", str(store)]) == 2
    said = capsys.readouterr()
    assert "damage: episode 1 is damaged" in said.out and "serfn data repair" in said.err
    assert main(["data", "repair", str(store)]) == 0
    said = capsys.readouterr().out
    assert "episode 3 was interrupted after 4 steps" in said and "quarantine" in said
    assert main(["data", "check", str(store)]) == 0
    assert "is sound" in capsys.readouterr().out
    assert EpisodeStore(store).numbers == (0, 2, 3)


def test_split_and_merge(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [str(tmp_path / name) for name in ("train", "test")]
    assert main(["data", "split", str(store), "--out", *parts, "--fraction", "0.6"]) == 0
    assert "train: 2 episodes" in capsys.readouterr().out.replace("\n", "")
    assert main(["data", "merge", *parts, "--out", str(tmp_path / "all")]) == 0
    assert EpisodeStore(tmp_path / "all").uids == EpisodeStore(store).uids
    assert main(["data", "merge", *parts, "--out", str(tmp_path / "all")]) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "see serfn data --help"),
        (["data", "inf"], "serfn data --help"),
        (["data", "info", "nowhere"], "is no store"),
        (["data", "check"], "serfn data check --help"),
    ],
)
def test_words_that_make_no_sense(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_help_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    assert "repair" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "Look after recorded experience" in capsys.readouterr().out
