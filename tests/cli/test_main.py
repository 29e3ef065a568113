from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from serfn.cli.main import COMMANDS, main
from serfn.core.errors import ConfigError
from serfn.data.episode import EpisodeBuilder
from serfn.data.formats.npz import save_npz
from serfn.rollout.environments import make_env, task_spec
from serfn.tasks.registry import task, tasks
from serfn.training.config import TrainConfig

ENVIRONMENT = "Pendulum-v1"
TINY = [
    "--set=imitation.steps=4",
    "--set=critic_warmup.steps=4",
    "--set=offline.steps=4",
    "--set=online.episodes=2",
    "--set=online.updates_per_round=2",
    "--set=evaluation.episodes=2",
    "--set=evaluation.interim_episodes=2",
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
        episodes.append(
            builder.finish(observation, terminated=bool(terminated), truncated=True, success=True)
        )
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
    assert main(["info", str(run / "policy")]) == 0
    output = capsys.readouterr().out
    assert "chunks of" in output and "trained for Pendulum-v1: 3 observations, 1 actions" in output
    assert main(["info", str(demos)]) == 0
    assert "3 episodes, 72 steps" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: serfn {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "fly; choose one of collect, train,"),
        (["train", "--nonsense"], "--nonsense; see serfn train --help"),
        (["evaluate", "run", "--episods=3"], "did you mean --episodes?"),
        (
            ["train", "--budget", "huge"],
            "'huge' for argument '--budget'. Expected one of ('",
        ),
        (["evaluate", "run", "--episodes", "many"], "--episodes: invalid literal"),
        (["evaluate"], "PATH"),
        ([], "Expected one of {collect, train,"),
    ],
)
def test_unknown_words_are_named(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, *arguments)
    assert words in message and "None" not in message


class Broken(gymnasium.Env):
    """Fails where it is told to."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, where: str = "reset") -> None:
        if where == "making":
            raise RuntimeError("no simulator here")

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        raise RuntimeError("no state\nto start from")


class Pixels(Broken):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)


@pytest.fixture
def environments() -> Iterator[None]:
    ids = {"cli/Broken-v0": Broken, "cli/Pixels-v0": Pixels}
    for name, kind in ids.items():
        gymnasium.register(name, kind, max_episode_steps=5)  # pyright: ignore[reportArgumentType]
    yield
    for name in ids:
        del gymnasium.registry[name]


@pytest.mark.usefixtures("environments")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--env=cli/Broken-v0"], "fails in its own code (RuntimeError: no state)"),
        (["--env=cli/Broken-v0", '--set=env_options={"where": "making"}'], "RuntimeError: no simulator here"),
        (["--env=cli/Pixels-v0"], "observation space is an image of shape (8, 8, 3)"),
        (["--env=CartPole-v1"], "action space is Discrete(2)"),
        (["--env=Acrobot"], "action space is Discrete(3)"),
        (["--env=Pendulum-v99"], "'Pendulum-v99' cannot be made"),
        (["--env=Pendulum-v1", '--set=env_options={"max_episode_steps": -1}'], "has no time limit"),
    ],
)
def test_unusable_environments(
    arguments: list[str], words: str, tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert words in refused(capsys, "train", "--demos", demos, "--out", out, *arguments)
    assert not out.exists()


def _with(name: str, index: Any, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].astype(np.float64)
        arrays[name][index] = value

    return change


def _replaced(**changes: np.ndarray) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda arrays: arrays.update(changes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_with("observations", 30, np.nan), "episode 1: observations at step 6 are not finite"),
        (_with("observations", 30, 1e300), "episode 1: observations at step 6 are not finite"),
        (_with("actions", 30, np.inf), "episode 1: actions at step 6 are not finite"),
        (_with("rewards", 30, np.nan), "episode 1: rewards at step 6 are not finite"),
        (_with("success", 1, np.nan), "success of episode 1 is NaN"),
        (_with("actions", 40, 5.0), "dimension 0 is 5, outside [-2, 2]"),
        (_replaced(actions=np.zeros((72, 2))), "the last dimension must be 1"),
        (_replaced(episode_ends=np.arange(4, 73, 4)), "expected (18, 3)"),
        (_replaced(notes=np.array(["a", "b"])), "array 'notes' has dtype <U1"),
        (_replaced(notes=np.array([{}], dtype=object)), "Object arrays cannot be loaded"),
    ],
)
def test_bad_demonstrations(
    change: Callable[[dict[str, np.ndarray]], None],
    words: str,
    tmp_path: Path,
    demos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrays = dict(np.load(demos))
    change(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    out = tmp_path / "run"
    message = refused(capsys, "train", "--env", ENVIRONMENT, "--demos", tmp_path / "bad.npz", "--out", out)
    assert words in message and "bad.npz" in message
    assert not out.exists()


def test_files_that_are_no_demonstrations(
    tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = ["train", "--env", ENVIRONMENT, "--out", tmp_path / "run"]
    (tmp_path / "half.npz").write_bytes(demos.read_bytes()[:500])
    (tmp_path / "text.npz").write_text("hello")
    for name in ("half.npz", "text.npz", "."):
        assert str(tmp_path / name) in refused(capsys, *known, "--demos", tmp_path / name)
    assert "fewer than a chunk of 30" in refused(capsys, *known, "--demos", demos, "--set", "chunk_size=30")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set=seed=a"], "seed: expected int, got 'a'"),
        (["--seed=-1"], "seed is -1"),
        (["--set=rewards.scale=NaN"], "rewards.scale: expected a finite number"),
        (["--set=policy.flow.couplings=3"], "couplings is 3: use an even number"),
        (["--set=critic.width=0"], "critic width is 0"),
        (["--set=online.schedule=cosin"], "did you mean 'cosine'"),
        (["--set=agent.device=tpu"], "device is 'tpu'; use cpu"),
        (["--set=evaluation.episodes=0"], "episodes is 0"),
        (["--plant=field"], "refuses the options {'plant': 'field'"),
    ],
)
def test_impossible_options(
    arguments: list[str], words: str, tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    message = refused(capsys, "train", "--env", ENVIRONMENT, "--demos", demos, "--out", out, *arguments)
    assert words in message
    assert not out.exists()


def test_bad_configuration_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    for text, words in (
        ("[online]\nepisode = 3", "did you mean 'episodes'"),
        ("seed = 'a'", "seed: expected int"),
        ("seed =", "cannot be parsed"),
    ):
        path.write_text(text)
        message = refused(capsys, "train", "--config", path)
        assert words in message and str(path) in message


def test_numbers_out_of_range(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "episodes is 0" in refused(capsys, "evaluate", run, "--episodes", "0")
    assert "seed is -1" in refused(capsys, "evaluate", run, "--seed", "-1")
    assert "temperature is inf" in refused(capsys, "evaluate", run, "--temperature", "inf")
    assert "candidates is 0" in refused(capsys, "evaluate", run, "--candidates", "0")
    out = tmp_path / "demos.npz"
    assert "episodes is -3" in refused(capsys, "collect", "--episodes", "-3", "--out", out)
    assert "seed is -1" in refused(capsys, "collect", "--seed", "-1", "--out", out)
    assert "is a folder" in refused(capsys, "collect", "--out", tmp_path)
    assert not out.exists()


def test_folders_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither a run with a checkpoint nor a policy bundle" in refused(capsys, "evaluate", tmp_path)
    assert "is not a run" in refused(capsys, "report", tmp_path)
    assert "is not a run" in refused(capsys, "info", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_policy_bundle_is_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a policy bundle" in refused(capsys, "report", run / "policy")
    assert not (run / "policy" / "report_files").exists()


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


def test_a_changed_configuration_cannot_be_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "config.json").read_text()
    message = refused(capsys, "train", "--resume", run, "--set", "agent.discount=0.9")
    assert "agent.discount: stored" in message and "now 0.9" in message
    assert (run / "config.json").read_text() == before


@pytest.mark.parametrize(
    "options",
    [("--env", "x:Y-v0"), ("--task", "cube"), ("--budget", "full"), ("--config", "other.toml")],
)
def test_options_that_a_resumed_run_would_ignore_are_refused(
    options: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "train", "--resume", tmp_path, *options)
    assert "goes on with its own configuration" in message and options[0] in message


def test_a_task_and_an_environment_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert "exclude each other" in refused(capsys, "train", "--task", "cube", "--env", "x:Y-v0")


def test_stages_that_need_imitation_are_refused_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--task", "diagnostic", "--budget", "smoke", "--stages", "online", "--out", out]
    assert "begin with imitation" in refused(capsys, "train", *words)
    assert not out.exists()


def test_an_interrupt_while_modules_are_imported_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from serfn.cli.entry import entry_point

    class Interrupted:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "serfn.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "serfn.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as end:
        entry_point()
    assert end.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_an_interrupt_before_a_run_begins_names_no_run_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serfn.runs.train.train", interrupted)
    assert main(["train", "--task", "diagnostic", "--out", str(tmp_path / "run")]) == 130
    error = capsys.readouterr().err
    assert "nothing was begun" in error and "--resume" not in error


def test_resume_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume" in refused(capsys, "train", "--resume")
    assert "no run to resume" in refused(capsys, "train", "--resume", tmp_path)
    assert "leave out --out" in refused(capsys, "train", "--resume", tmp_path, "--out", tmp_path / "other")


def test_interruption_says_how_to_go_on(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serfn.runs.train.train", interrupt)
    assert main(["train", "--resume", str(run)]) == 130
    assert f"interrupted; resume with: serfn train --resume {run}" in capsys.readouterr().err


def test_an_environment_of_ours_trains_as_its_task_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(config: TrainConfig, folder: Path, **options: Any) -> None:
        seen.append(config)
        raise ConfigError("far enough")

    seen: list[TrainConfig] = []
    monkeypatch.setattr("serfn.runs.train.train", write)
    for name in tasks.names():
        for words in (["--task", name], ["--env", task(name).env_id]):
            assert main(["train", *words, "--budget", "smoke", "--out", str(tmp_path / "run")]) == 2
    assert seen[::2] == seen[1::2]
    assert len({config.env for config in seen}) == len(tasks.names())
