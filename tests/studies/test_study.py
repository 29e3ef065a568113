from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serfn.core.config import to_dict
from serfn.core.errors import ConfigError
from serfn.critics.mlp import MLPCriticConfig
from serfn.data.formats.npz import load_npz
from serfn.policies.flow import FlowPolicyConfig
from serfn.reports.study.record import load_study_record
from serfn.runs.evaluate import load_actor
from serfn.runs.train import train
from serfn.studies import ray_backend
from serfn.studies import study as study_module
from serfn.studies.config import ModeProbe, OwnMethod, StudyConfig, StudyTask, load_study
from serfn.studies.job import continue_from_imitation, run_logged
from serfn.studies.local import LocalBackend
from serfn.studies.measure import held_out_nll, probe_modes
from serfn.studies.plan import imitation_identity, make_plan, read_job
from serfn.studies.ray_backend import RayBackend
from serfn.studies.study import run_study
from serfn.training.checkpoint import read_tree, resolve
from serfn.training.config import EvaluationConfig, TrainConfig
from serfn.training.stages.imitation import ImitationConfig

pytestmark = pytest.mark.slow

ENV_ID = "toy/Reach-v0"

TINY: dict[str, Any] = {
    "chunk_size": 4,
    "policy": {"flow": {"couplings": 2, "width": 16}, "encoder": {"width": 16, "depth": 1}},
    "critic": {"width": 16, "depth": 2},
    "imitation": {"steps": 6, "batch_size": 16},
    "critic_warmup": {"steps": 4, "batch_size": 8},
    "offline": {"steps": 4, "batch_size": 8},
    "online": {
        "episodes": 4,
        "episodes_per_round": 2,
        "updates_per_round": 4,
        "batch_size": 8,
        "evaluate_every": 1,
    },
    "loop": {"report_every": 2, "checkpoint_every": 2},
    "evaluation": {"episodes": 4, "interim_episodes": 2, "simulations": 2},
}


class InlineBackend:
    """Does each job at once in this process."""

    slots = 1

    def __init__(self, root: Path, cores: int) -> None:
        self.root = root
        self.ended: list[tuple[str, str | None]] = []

    def start(self, name: str) -> None:
        self.ended.append((name, run_logged(self.root, name)))

    def finished(self) -> list[tuple[str, str | None]]:
        ended, self.ended = self.ended, []
        return ended

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


class Recorder:
    """Progress that remembers; `interrupt_at` presses Ctrl-C when that many updates are done."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.total = self.done = 0
        self.notes: list[str] = []
        self.interrupt_at = interrupt_at

    def stage_started(self, name: str, total: int) -> None:
        self.total = total

    def advanced(self, name: str, n: int, metrics: Mapping[str, float]) -> None:
        self.done += n
        if self.interrupt_at is not None and self.done >= self.interrupt_at:
            self.interrupt_at = None
            os.kill(os.getpid(), signal.SIGINT)

    def stage_finished(self, name: str, summary: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "LocalBackend", InlineBackend)
    monkeypatch.setattr(study_module, "_POLL_S", 0.0)


def small_study(demos: Path, env: str = ENV_ID, **changes: Any) -> StudyConfig:
    options = dict(TINY) if env == ENV_ID else {**TINY, "env_options": {"max_episode_steps": 8}}
    task = StudyTask(env=env, budget="smoke", demos=demos, held_out=demos, options=options)
    values: dict[str, Any] = {
        "title": "small",
        "tasks": {"reach": task},
        "methods": ("ours", "eager"),
        "seeds": (0,),
        "ablations": ("eager",),
        "own": {"eager": OwnMethod(options={"online": {"policy_delay_rounds": 0}})},
    }
    return StudyConfig(**{**values, **changes})


def lines(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_shared_imitation_gives_the_numbers_of_an_own_one(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config()
    train(config, tmp_path / "own", films=False)
    other = make_config(critic=MLPCriticConfig(width=24, depth=1, v_min=-1.0, v_max=1.0))
    train(other, tmp_path / "shared", stages=["imitation"], films=False)
    continue_from_imitation(config, tmp_path / "run", tmp_path / "shared")
    train(config, tmp_path / "run", resume=True, films=False)
    for name in ("evaluations.jsonl", "metrics.jsonl"):
        assert lines(tmp_path / "run" / name) == lines(tmp_path / "own" / name)
    agents = [read_tree(resolve(tmp_path / run / "checkpoints", "last"))["agent"] for run in ("own", "run")]
    for part in ("policy", "critic"):
        own, run = (agent[part]["module"] for agent in agents)
        assert all(torch.equal(own[name], run[name]) for name in own)


def test_what_can_be_shared(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    identity = imitation_identity(config)
    same = [
        dataclasses.replace(config, critic=MLPCriticConfig(width=8, v_min=-2.0, v_max=2.0)),
        dataclasses.replace(config, online=dataclasses.replace(config.online, episodes=9)),
        dataclasses.replace(config, agent=dataclasses.replace(config.agent, discount=0.5)),
    ]
    different = [
        dataclasses.replace(config, seed=1),
        dataclasses.replace(config, chunk_size=2),
        dataclasses.replace(config, policy=FlowPolicyConfig()),
        dataclasses.replace(config, imitation=ImitationConfig(steps=9)),
        dataclasses.replace(config, demos=Path("other.npz")),
        dataclasses.replace(config, evaluation=EvaluationConfig(seed=3)),
        dataclasses.replace(config, agent=dataclasses.replace(config.agent, device="cuda")),
    ]
    assert all(imitation_identity(one) == identity for one in same)
    assert all(imitation_identity(one) != identity for one in different)


def test_plan_shares_imitation_within_a_seed(demos: Path) -> None:
    study = small_study(demos, seeds=(0, 1))
    plan = make_plan(study)
    kinds = [job.kind for job in plan.jobs]
    assert kinds.count("imitation") == 2 and kinds.count("run") == 4
    for run in plan.runs:
        (needed,) = run.job.needs
        assert needed.startswith(f"imitation/reach/seed-{run.seed}-")
    names = [job.name for job in plan.jobs]
    assert all(names.index(need) < names.index(job.name) for job in plan.jobs for need in job.needs)
    more = make_plan(dataclasses.replace(study, methods=("eager", "ours"), seeds=(0, 1, 2)))
    assert set(names) < {job.name for job in more.jobs}, "what is done stays done when the study grows"


def test_jobs_are_read_back(demos: Path, tmp_path: Path) -> None:
    probe = ModeProbe("side", {"left": 1.0, "right": -1.0}, plane=(0, 1))
    study = small_study(demos)
    task = dataclasses.replace(study.tasks["reach"], modes=probe)
    for job in make_plan(dataclasses.replace(study, tasks={"reach": task})).jobs:
        job.write(tmp_path)
        again = read_job(tmp_path / job.name)
        assert again == job and again.hash == job.hash
        assert not job.done(tmp_path)


@pytest.mark.usefixtures("inline")
def test_a_study_computes_once_and_reports(demos: Path, tmp_path: Path) -> None:
    progress = Recorder()
    study = small_study(demos)
    result = run_study(study, tmp_path / "out", cores=1, progress=progress)
    assert not result.failures and not result.reused and len(result.computed) == 3
    assert progress.done == progress.total == 6 + 2 * (4 + 4 + 8)
    assert result.report.is_file() and len(result.verdicts) == 1
    record = load_study_record(tmp_path / "out")
    (ours,) = record.of("reach", "ours")
    assert ours.imitated is not None and ours.imitated.nll is not None and ours.measures.nll is not None
    assert set(ours.seconds) == {"imitation", "critic_warmup", "offline", "online"}
    again = run_study(study, tmp_path / "out", cores=1)
    assert not again.computed and set(again.reused) == set(result.computed)
    grown = run_study(dataclasses.replace(study, seeds=(0, 1)), tmp_path / "out", cores=1)
    assert set(grown.reused) == set(result.computed) and len(grown.computed) == 3
    assert len(load_study_record(tmp_path / "out").runs) == 4


@pytest.mark.usefixtures("inline")
def test_a_job_that_fails_takes_only_its_own_with_it(
    demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(config: TrainConfig, folder: Path, **options: Any) -> Any:
        if "eager" in str(folder):
            raise RuntimeError("out of\nluck")
        return train(config, folder, **options)

    monkeypatch.setattr("serfn.studies.job.train", failing)
    result = run_study(small_study(demos), tmp_path, cores=1)
    ((name, reason),) = result.failures.items()
    assert "eager" in name and reason == "RuntimeError: out of luck"
    assert "Traceback" in (tmp_path / name / "job.log").read_text()
    assert "1 of 2 runs done" in result.report.read_text()
    monkeypatch.undo()
    monkeypatch.setattr(study_module, "LocalBackend", InlineBackend)
    assert run_study(small_study(demos), tmp_path, cores=1).computed == (name,)


@pytest.mark.usefixtures("inline")
def test_what_needs_a_failed_job_is_not_started(demos: Path, tmp_path: Path) -> None:
    study = small_study(demos, own={"eager": OwnMethod(options={"imitation": {"steps": 7}})})
    tasks = {"reach": dataclasses.replace(study.tasks["reach"], held_out=tmp_path / "gone.npz")}
    result = run_study(dataclasses.replace(study, tasks=tasks), tmp_path / "out", cores=1)
    reasons = list(result.failures.values())
    assert len(reasons) == 4
    assert sum("gone.npz" in reason for reason in reasons) == 2
    assert sum("needs imitation/" in reason for reason in reasons) == 2


def test_processes_stop_with_ctrl_c_and_continue(
    demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Processes know no environment of this test; one of Gymnasium's own fits these demonstrations' sizes.
    module = tmp_path / "toy_module.py"
    module.write_text((Path(__file__).parent.parent / "toy.py").read_text().split("@pytest.fixture")[0])
    module.write_text(
        module.read_text() + f'\nif "{ENV_ID}" not in gymnasium.registry:\n'
        f'    gymnasium.register("{ENV_ID}", Reach, max_episode_steps=8)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    study = small_study(demos, env=f"toy_module:{ENV_ID}", methods=("ours",), ablations=())
    study = dataclasses.replace(
        study, tasks={"reach": dataclasses.replace(study.tasks["reach"], options=TINY)}
    )
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "out", cores=1, progress=Recorder(interrupt_at=6))
    progress = Recorder()
    result = run_study(study, tmp_path / "out", cores=1, progress=progress)
    assert not result.failures
    assert progress.done == progress.total <= 4 + 4 + 8, "what was done before is not counted"
    (run,) = load_study_record(tmp_path / "out").runs
    assert run.run.status["complete"]
    assert [point.stage for point in run.run.evaluations if point.final] == [
        "imitation",
        "offline",
        "online",
    ]


def test_two_studies_do_not_work_in_one_folder(demos: Path, tmp_path: Path) -> None:
    with study_module._only_study(tmp_path), pytest.raises(ConfigError, match="another study is at work"):
        run_study(small_study(demos), tmp_path, cores=1)


def test_likelihood_is_that_of_the_policy(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = make_config(chunk_size=8)
    train(config, tmp_path / "run", stages=["imitation"], films=False)
    actor, _ = load_actor(tmp_path / "run")
    assert config.demos is not None
    episodes = load_npz(config.demos, actor.task.action).episodes
    measured = held_out_nll(actor.policy, episodes, actor.task)
    total, dimensions = 0.0, 0
    for episode in episodes:
        actions = actor.task.action.normalize(episode.actions)
        for start in range(episode.length):
            rest = actions[start:]
            chunk = np.concatenate([rest, np.zeros((8 - len(rest), 2))])[None]
            valid = (np.arange(8) < len(rest))[None]
            obs = episode.observations[start][None]
            arguments = (torch.as_tensor(value, dtype=torch.float32) for value in (obs, chunk))
            with torch.no_grad():
                total -= float(actor.policy.log_prob(*arguments, torch.as_tensor(valid)))  # pyright: ignore
            dimensions += 2 * len(rest)
    assert measured == pytest.approx(total / dimensions, rel=1e-4)


class Sideways:
    """Steps right or left, as the noise says."""

    chunk_size = n_action_steps = 4

    def reset(self, seed: int) -> None:
        self.noise = np.random.default_rng(seed)

    def act(self, observations: np.ndarray) -> np.ndarray:
        step = 0.1 * self.noise.choice((-1, 1), (len(observations), 1, 1))
        return np.broadcast_to(step, (len(observations), 4, 2)).astype(np.float32)


def test_probe_varies_the_noise_and_not_the_start(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config(evaluation=EvaluationConfig(simulations=2))
    probe = ModeProbe("distance", {"near": 0.1, "far": 0.2}, episodes=8, seed=0, plane=(0, 1))
    outcome = probe_modes(Sideways(), config, probe)
    starts = {tuple(path["points"][0]) for path in outcome["paths"]}
    ends = {tuple(path["points"][-1]) for path in outcome["paths"]}
    assert outcome["episodes"] == 8 and len(starts) == 1 and len(ends) > 2
    assert sum(outcome["ways"].values()) + outcome["other"] + outcome["failed"] == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("methods = ['ours']\nseeds = [0]\ntasks.cube = {}", "missing option 'title'"),
        ("title = 'x'\nmethods = ['ours']\nseeds = []\ntasks.cube = {}", "seeds is empty"),
        ("title = 'x'\nmethods = ['ours', 'ours']\nseeds = [0]\ntasks.cube = {}", "name each once"),
        ("title = 'x'\nmethods = ['mpo']\nseeds = [0]\ntasks.cube = {}", "reference 'ours' is not among"),
        ("title = 'x'\nmethods = ['ours']\nseeds = [-1]\ntasks.cube = {}", "must be 0 or more"),
        ("title = 'x'\nmethods = ['ours', 'a/b']\nseeds = [0]\ntasks.cube = {}", "becomes a folder"),
        ("title = 'x'\nmethods = ['ours']\nseeds = [0]\ntasks.x = {env = 'Y-v0'}", "needs demos"),
        (
            "title = 'x'\nmethods = ['ours']\nseeds = [0]\ntasks.cube = {budgets = 'demo'}",
            "did you mean 'budget'",
        ),
        (
            "title = 'x'\nmethods = ['ours']\nseeds = [0]\ntasks.x.modes = {metric = 'y', values = {a = 1}}",
            "name at least two ways",
        ),
    ],
)
def test_study_files_that_make_no_sense(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_study(path)
    assert words in str(refused.value) and str(path) in str(refused.value)


def test_options_are_checked_before_anything_runs(demos: Path, tmp_path: Path) -> None:
    own = {"eager": OwnMethod(options={"online": {"episode": 3}})}
    with pytest.raises(ConfigError, match=r"own\.eager\.options: .*did you mean 'episodes'"):
        run_study(small_study(demos, own=own), tmp_path / "out", cores=1)
    with pytest.raises(ConfigError, match="cores is 0"):
        run_study(small_study(demos), tmp_path / "out", cores=0)
    assert not (tmp_path / "out").exists()


def test_paths_of_a_study_file_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        "title = 'x'\nmethods = ['ours']\nseeds = [0]\ntasks.x = {env = 'Y-v0', demos = 'demos.npz'}"
    )
    assert load_study(path).tasks["x"].demos == tmp_path / "demos.npz"


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"serfn\[ray\]"):
        RayBackend(tmp_path, "local", 1)


@pytest.mark.parametrize(
    ("child", "words"),
    [
        ("import time; time.sleep(60)", r"at '10\.0\.0\.1:6379': no answer within 0\.5 s; start it"),
        ("raise ConnectionError('refused')", "ConnectionError: refused; start it, or use 'local'"),
        ("import sys; sys.exit(15)", "Ray ends with status 15; start it"),
    ],
)
def test_a_ray_cluster_that_does_not_answer_is_refused_in_time(
    child: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_backend, "_JOIN", child)
    limit_s = 0.5 if "sleep" in child else 60.0
    with pytest.raises(ConfigError, match=words):
        ray_backend._try_to_join("10.0.0.1:6379", limit_s)


def test_a_process_that_dies_is_a_failure(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path, 1)
    (tmp_path / "job").mkdir()
    backend.start("job")
    ended: list[tuple[str, str | None]] = []
    while not ended:
        ended = backend.finished()
    ((name, reason),) = ended
    assert name == "job" and reason is not None and "job.json" in reason
    backend.close()


def test_the_description_of_a_job_is_plain(demos: Path) -> None:
    for job in make_plan(small_study(demos)).jobs:
        json.dumps(to_dict(job))
