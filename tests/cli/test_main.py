from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serfn.cli.main import COMMANDS, main
from serfn.data.episode import EpisodeBuilder
from serfn.data.formats.npz import save_npz
from serfn.evaluation.environments import make_env, task_spec

ENVIRONMENT = "Pendulum-v1"
TINY = [
    "--set=imitation.steps=4",
    "--set=critic_warmup.steps=4",
    "--set=offline.steps=4",
    "--set=online.episodes=2",
    "--set=online.updates_per_round=2",
    "--set=evaluation.episodes=2",
    "--set=evaluation.interim_episodes=2",
    "--set=evaluation.threads=1",
    '--set=env_options={"max_episode_steps": 24}',
]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    env = make_env(ENVIRONMENT, max_episode_steps=24)
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        builder = EpisodeBuilder(3, 1, seed=seed)
        over = False
        while not over:
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            following, reward, terminated, over, _ = env.step(action)
            builder.append(observation, action, float(reward), chunk_start=True)
            observation = following
        episodes.append(builder.finish(observation, terminated=bool(terminated), truncated=True))
    path = tmp_path_factory.mktemp("demos") / "pendulum.npz"
    save_npz(path, episodes, task_spec(env).action)
    return path


@pytest.fixture(scope="module")
def run(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    arguments = [
        "train",
        "--env",
        ENVIRONMENT,
        "--demos",
        str(demos),
        "--budget",
        "smoke",
        "--out",
        str(folder),
    ]
    assert main([*arguments, *TINY]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """Run a command that must fail as bad input, and return its one line."""
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    return message


def test_training_on_any_environment_ends_with_a_report(run: Path) -> None:
    assert (run / "report.html").is_file()
    assert json.loads((run / "status.json").read_text())["complete"] is True


def test_report_can_be_written_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    output = capsys.readouterr().out
    assert "Imitation" in output and "Online" in output
    assert f"report: {run / 'report.html'}" in output
    assert (run / "report.html").is_file()


def test_evaluation_as_json_prints_nothing_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--episodes", "2", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["summary"]["return"]["n"] == 2
    assert len(output["result"]["returns"]) == 2


def test_evaluation_as_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0
    output = capsys.readouterr().out
    assert "2 episodes" in output and "return" in output


def test_info_describes_installation_run_and_demonstrations(
    run: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info"]) == 0
    assert "torch" in capsys.readouterr().out
    assert main(["info", str(run)]) == 0
    assert "complete" in capsys.readouterr().out
    assert main(["info", str(demos)]) == 0
    assert "3 episodes, 72 steps" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: serfn {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["fly"], ["train", "--nonsense"], ["train", "--budget", "huge"], []])
def test_unknown_words_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    for arguments in (["report", missing], ["info", missing], ["evaluate", missing]):
        assert str(missing) in refused(capsys, *arguments)
    message = refused(capsys, "train", "--env", ENVIRONMENT, "--demos", missing, "--out", tmp_path / "run")
    assert str(missing) in message
    assert str(missing) in refused(capsys, "train", "--config", missing)
    assert not (tmp_path / "run").exists()


def test_environment_without_demonstrations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "--env", ENVIRONMENT, "--out", tmp_path / "run")
    assert ENVIRONMENT in message and "demos" in message


def test_unknown_names(tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert "'Nonsense-v9'" in refused(capsys, "train", "--env", "Nonsense-v9", "--demos", demos, "--out", out)
    assert "juggle" in refused(capsys, "train", "--task", "juggle", "--out", out)
    known = ["train", "--env", ENVIRONMENT, "--demos", demos, "--out", out]
    assert "dreaming" in refused(capsys, *known, "--stages", "imitation,dreaming")
    assert "did you mean 'episodes'" in refused(capsys, *known, "--set", "online.episode=3")
    assert "write it as name=value" in refused(capsys, *known, "--set", "seed")
    assert "'seed' is one value" in refused(capsys, *known, "--set", "seed.more=3")
    assert not out.exists()


def test_folder_that_cannot_be_written(
    tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    message = refused(capsys, "train", "--env", ENVIRONMENT, "--demos", demos, "--out", out)
    assert str(tmp_path / "file") in message


def test_existing_run_is_not_overwritten(run: Path, demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "train", "--env", ENVIRONMENT, "--demos", demos, "--out", run)
    assert "already holds a run" in message


def test_resume_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out" in refused(capsys, "train", "--resume")
    assert "no run to resume" in refused(capsys, "train", "--resume", "--out", tmp_path)


def test_interruption_says_how_to_go_on(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serfn.runtime.train.train", interrupt)
    assert main(["train", "--resume", "--out", str(run)]) == 130
    assert f"interrupted; resume with: serfn train --out {run} --resume" in capsys.readouterr().err
