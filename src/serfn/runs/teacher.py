"""Training the simulation teachers with PPO from Stable-Baselines3 (extra `teacher`).

One small network per direction of rotation, trained through the curriculum of
`tasks.orca_hand.cube_teacher_env` and exported, with its observation statistics folded in, as plain arrays
that run without torch.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from safetensors.numpy import save

from serfn.core.errors import ConfigError
from serfn.core.extras import extra
from serfn.tasks.orca_hand.cube_teacher_env import (
    ACTION_DIM,
    OBSERVATION_DIM,
    CubeTeacherEnv,
    TeacherStage,
    curriculum,
)

with extra("teacher"):
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.running_mean_std import RunningMeanStd
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize

_REWARD_SCALE = 0.1
_TARGET_KL = 0.02
_LEARNING_RATES = (5e-5, 1e-3)
_FIRST_RATES = (5e-4, 2e-4)
_LOG_STD_AFTER_FIRST_STAGE = (-2.0, -1.2)

DIRECTIONS = {"ccw": 1, "cw": -1}

Row = dict[str, float | str]
Report = Callable[[Row], None]


class _BatchVecEnv(VecEnv):
    """A `CubeTeacherEnv` with the interface of Stable-Baselines3."""

    def __init__(self, env: CubeTeacherEnv) -> None:
        observations = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float32)
        super().__init__(
            env.num_envs, observations, gymnasium.spaces.Box(-1.5, 1.5, (ACTION_DIM,), np.float32)
        )
        self.batch = env
        self.totals: dict[str, float] = dict.fromkeys(
            ("steps", "rotation", "failed", "dropped", "reward"), 0.0
        )

    def reset(self) -> np.ndarray:
        return self.batch.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, failed, timed_out, last = self.batch.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(failed | timed_out):
            infos[index] = {
                "terminal_observation": last[index],
                "TimeLimit.truncated": bool(timed_out[index]),
            }
        for key, value in zip(
            self.totals,
            (self.num_envs, self.batch.progress.sum(), failed.sum(), self.batch.dropped.sum(), rewards.sum()),
            strict=True,
        ):
            self.totals[key] += float(value)
        return observations, (rewards * _REWARD_SCALE).astype(np.float32), failed | timed_out, infos

    def pop_totals(self) -> dict[str, float]:
        """Return the sums since the last call."""
        totals, self.totals = self.totals, dict.fromkeys(self.totals, 0.0)
        return totals

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class _Adapt(BaseCallback):
    """Adaptive learning rate from the measured KL, bounded exploration noise, and progress reports."""

    def __init__(
        self,
        stage: TeacherStage,
        venv: _BatchVecEnv,
        report: Report,
        log_std: tuple[float, float] | None,
        learning_rate: float,
    ) -> None:
        super().__init__()
        self._stage, self._venv, self._report_to, self._log_std = stage, venv, report, log_std
        self._rollouts = 0
        self._rate = learning_rate

    def _on_rollout_start(self) -> None:
        kl = self.model.logger.name_to_value.get("train/approx_kl")
        if kl is not None and self._rollouts > 1:
            rate = self._rate
            if kl > 2 * _TARGET_KL:
                rate = max(rate / 1.5, _LEARNING_RATES[0])
            elif kl < _TARGET_KL / 2:
                rate = min(rate * 1.2, _LEARNING_RATES[1])
            self._rate = rate
            self.model.lr_schedule = lambda _, rate=rate: rate
        if self._log_std is not None:
            with torch.no_grad():
                self._log_std_parameter().clamp_(*self._log_std)
        self._rollouts += 1
        if self._rollouts % 32 == 0:
            self._report()

    def _report(self) -> None:
        totals = self._venv.pop_totals()
        steps = max(totals["steps"], 1.0)
        minutes = steps / 20 / 60
        self._report_to(
            {
                "stage": self._stage.name,
                "steps": float(self.model.num_timesteps),
                "rev_per_min": totals["rotation"] / (2 * np.pi) / minutes,
                "failures_per_20_s": totals["failed"] / (steps / 400),
                "drops_per_20_s": totals["dropped"] / (steps / 400),
                "reward": totals["reward"] / steps,
                "learning_rate": self._rate,
                "action_std": float(self._log_std_parameter().detach().exp().mean()),
            }
        )

    def _on_step(self) -> bool:
        return True

    def _log_std_parameter(self) -> torch.Tensor:
        return cast(torch.Tensor, self.model.policy.log_std)


def train_cube_teacher(
    direction: str, out: Path, *, seed: int = 0, scale: float = 1.0, simulations: int = 64, report: Report
) -> Path:
    """Train one teacher and write `cube_<direction>.safetensors` and its training log to `out`.

    Args:
        direction: `ccw` or `cw`, seen from above.
        out: folder, created if needed.
        seed: seed of everything.
        scale: factor on the curriculum's steps; 1 takes under an hour on two cores for both directions in
            parallel.
        simulations: batch size of the simulation.
        report: receives a dictionary of figures about every 100 000 steps.

    Returns:
        The path of the weights.

    Raises:
        ConfigError: unknown direction.
    """
    sign = _sign(direction)
    out.mkdir(parents=True, exist_ok=True)
    log = out / f"cube_{direction}.log.jsonl"
    log.write_text("")

    path = weights_path(out, direction)
    model: PPO | None = None
    normalizer: VecNormalize | None = None

    def record(row: Row) -> None:
        with log.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        if model is not None and normalizer is not None:
            _export(model, normalizer, path)
        report(row)

    for index, stage in enumerate(curriculum(scale)):
        batch = _BatchVecEnv(CubeTeacherEnv(stage, sign, simulations, seed + index))
        previous, normalizer = normalizer, VecNormalize(batch, norm_reward=False, clip_obs=6.0)
        if previous is not None:
            normalizer.obs_rms = previous.obs_rms
            normalizer.training = False
        if model is None:
            model = _new_model(normalizer, seed)
        else:
            model.set_env(normalizer)
            model.ent_coef = 0.0
            model.lr_schedule = lambda _: _FIRST_RATES[1]
        log_std = _LOG_STD_AFTER_FIRST_STAGE if index else None
        callback = _Adapt(stage, batch, record, log_std, _FIRST_RATES[min(index, 1)])
        # An interval beyond the run's length: our own rows replace the library's table.
        model.learn(stage.steps, callback=callback, log_interval=10**9, reset_num_timesteps=index == 0)
        _export(model, normalizer, path)
    return path


def train_cube_teachers(
    directions: Sequence[str],
    out: Path,
    *,
    seed: int = 0,
    scale: float = 1.0,
    report: Callable[[str, Row], None],
) -> list[Path]:
    """Train several teachers side by side, one process each.

    Args:
        directions: Of `DIRECTIONS`.
        out: Folder of weights and logs.
        seed: Seed of everything.
        scale: Factor on the curriculum's steps.
        report: Receives (direction, figures) about every 100 000 steps of a teacher.

    Returns:
        The paths of the weights, in the order of `directions`.

    Raises:
        ConfigError: Unknown direction, or a teacher's process failed; what it said stands on stderr.
    """
    for direction in directions:
        _sign(direction)
    context = multiprocessing.get_context("spawn")
    rows = context.Queue()
    processes = {
        direction: context.Process(
            target=_train_in_process, args=(direction, out, seed, scale, rows), daemon=True
        )
        for direction in directions
    }
    for process in processes.values():
        process.start()
    while any(process.is_alive() for process in processes.values()) or not rows.empty():
        try:
            report(*rows.get(timeout=1.0))
        except queue.Empty:
            continue
    failed = [direction for direction, process in processes.items() if process.exitcode != 0]
    if failed:
        raise ConfigError(f"training the teacher for {', '.join(failed)} failed; its process said why")
    return [weights_path(out, direction) for direction in directions]


def weights_path(folder: Path, direction: str) -> Path:
    """Return where the weights of a direction's teacher lie."""
    return folder / f"cube_{direction}.safetensors"


def _train_in_process(direction: str, out: Path, seed: int, scale: float, rows: Any) -> None:
    parent = multiprocessing.parent_process()

    def report(row: Row) -> None:
        if parent is not None and not parent.is_alive():
            # Nobody is left to stop this process, or to hear of its teacher.
            raise SystemExit(1)
        rows.put((direction, row))

    train_cube_teacher(direction, out, seed=seed, scale=scale, report=report)


def _sign(direction: str) -> int:
    if direction not in DIRECTIONS:
        raise ConfigError(f"unknown direction {direction!r}; choose one of {', '.join(DIRECTIONS)}")
    return DIRECTIONS[direction]


def _new_model(env: VecNormalize, seed: int) -> PPO:
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=_FIRST_RATES[0],
        n_steps=48,
        batch_size=768,
        n_epochs=4,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        ent_coef=0.002 * _REWARD_SCALE,
        max_grad_norm=1.0,
        policy_kwargs={
            "net_arch": {"pi": [256, 128], "vf": [256, 128]},
            "activation_fn": torch.nn.ELU,
            "log_std_init": -0.9,
        },
        seed=seed,
        device="cpu",
    )


def _export(model: PPO, normalizer: VecNormalize, path: Path) -> None:
    layers = [m for m in model.policy.mlp_extractor.policy_net if isinstance(m, torch.nn.Linear)]
    layers.append(cast(torch.nn.Linear, model.policy.action_net))
    statistics = cast(RunningMeanStd, normalizer.obs_rms)
    arrays = {
        "observation_mean": statistics.mean.astype(np.float32),
        "observation_std": np.sqrt(statistics.var + normalizer.epsilon).astype(np.float32),
        "action_std": cast(torch.Tensor, model.policy.log_std).detach().exp().numpy(),
    }
    for index, layer in enumerate(layers):
        arrays[f"layer{index}.weight"] = layer.weight.detach().numpy()
        arrays[f"layer{index}.bias"] = layer.bias.detach().numpy()
    path.write_bytes(save(arrays))
