"""Acting with a chunk policy: the best of N sampled chunks under a critic."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serfn.core.errors import ConfigError
from serfn.core.spec import TaskSpec
from serfn.critics.base import ChunkCritic
from serfn.policies.base import ChunkPolicy
from serfn.training.decision_graph import DecisionGraph, GraphError
from serfn.training.losses import best_of

_WORTH_A_GRAPH = 300
"""Decisions for which a graph is exported. With the policies of the flagship tasks 120 to 190 pay for it."""


@dataclass(frozen=True)
class ActingConfig:
    """How chunks are chosen when acting.

    Attributes:
        candidates: Chunks sampled per decision; the critic chooses among them. 1 acts without a critic.
        temperature: Standard deviation σ of the base noise; 0.7 varies less than the density (σ = 1) that is
            trained.
        n_action_steps: Steps executed of each chunk before the next decision; None executes all. Fewer than
            the chunk has is receding-horizon control.

    Raises:
        ConfigError: `candidates` or `n_action_steps` is below 1, or `temperature` negative.
    """

    candidates: int = 8
    temperature: float = 0.7
    n_action_steps: int | None = None

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigError(f"candidates is {self.candidates}; it must be at least 1")
        if not 0.0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 or more, 0.7 is usual")
        if self.n_action_steps is not None and self.n_action_steps < 1:
            raise ConfigError(f"n_action_steps is {self.n_action_steps}; it must be at least 1, or none")

    def changed(
        self,
        candidates: int | None = None,
        temperature: float | None = None,
        n_action_steps: int | None = None,
    ) -> ActingConfig:
        """Return this way of acting with those of the values that are not None."""
        return ActingConfig(
            self.candidates if candidates is None else candidates,
            self.temperature if temperature is None else temperature,
            self.n_action_steps if n_action_steps is None else n_action_steps,
        )


def sampling(acting: ActingConfig) -> dict[str, Any]:
    """Return what a policy without its critic keeps of a way of acting, as a bundle's metadata."""
    return {"temperature": acting.temperature, "n_action_steps": acting.n_action_steps}


class BestOfNActor:
    """A `ChunkActor` that samples N chunks per observation and executes the one that the critic values most.

    Equal seeds give equal chunks, for equal batches of observations.

    Args:
        policy: Policy to sample from; used as it is, so that it follows further training.
        critic: Judge of the candidates, or None to act with one sample.
        task: Bounds of the actions that are returned.
        acting: Number of candidates and temperature.

    Raises:
        ConfigError: Several candidates without a critic, a policy of other dimensions than the task's, or
            more steps to execute than its chunks have.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        critic: ChunkCritic | None,
        task: TaskSpec,
        acting: ActingConfig,
    ) -> None:
        if acting.candidates > 1 and critic is None:
            raise ConfigError(
                f"choosing among {acting.candidates} candidates needs a critic; set candidates to 1"
            )
        dims = (task.observation.dim, task.action.dim)
        if (policy.obs_dim, policy.action_dim) != dims:
            raise ConfigError(
                f"the policy maps {policy.obs_dim} observations to {policy.action_dim} actions, "
                f"task '{task.id}' has {dims[0]} and {dims[1]}; use a policy trained for this task"
            )
        steps = acting.n_action_steps
        if steps is not None and steps > policy.chunk_size:
            raise ConfigError(
                f"n_action_steps is {steps}, but chunks have {policy.chunk_size} steps; lower it or set it "
                "to none"
            )
        self.policy = policy
        self.critic = critic
        self.task = task
        self.acting = acting
        self._generator = torch.Generator(_device(policy)).manual_seed(0)
        self._sampler: ChunkPolicy = policy
        judge: tuple[nn.Module, ...] = () if critic is None else (critic,)
        self._weights = [
            weight for module in (policy, *judge) for weight in (*module.parameters(), *module.buffers())
        ]
        self._graph: DecisionGraph | None = None
        self._version = -1
        self._low = np.array(task.action.low, np.float32)
        self._high = np.array(task.action.high, np.float32)

    @property
    def chunk_size(self) -> int:
        """Number of control steps in one chunk."""
        return self.policy.chunk_size

    @property
    def n_action_steps(self) -> int:
        """Number of steps to execute of each chunk."""
        return self.acting.n_action_steps or self.chunk_size

    def reset(self, seed: int) -> None:
        """Restart the random stream from `seed`."""
        self._generator.manual_seed(seed)

    def prepare(self, batch: int = 1) -> str | None:
        """Work out ahead what makes decisions for `batch` observations fast: the graph of ONNX Runtime.

        It takes up to a second; until the weights change, `act` uses it for that many observations.

        Returns:
            None, or why there is no graph, so that PyTorch decides as before.
        """
        if _device(self.policy).type != "cpu" or next(self.policy.parameters()).dtype != torch.float32:
            return "graphs of decisions run on the CPU in float32; PyTorch itself decides"
        self._renew()
        # A copy, whose weights are constants of the graph.
        judge = None if self.critic is None else copy.deepcopy(self.critic).requires_grad_(False)
        try:
            self._graph = DecisionGraph.export(partial(self._decide, judge), batch, self.policy.obs_dim)
        except GraphError as error:
            return str(error)
        return None

    def prepare_for(self, decisions: int, batch: int) -> str | None:
        """Prepare if so many decisions for `batch` observations are ahead that it saves time.

        The number alone decides, so that equal runs act by the same arithmetic.

        Returns:
            None, or why there is no graph although it would pay.
        """
        return self.prepare(batch) if decisions >= _WORTH_A_GRAPH else None

    @property
    def graph(self) -> bytes | None:
        """What `prepare` made, for an actor of the same weights elsewhere (`run_by`)."""
        return None if self._graph is None else self._graph.model

    def run_by(self, graph: bytes) -> str | None:
        """Decide by a graph that `prepare` made of these weights; quick, as nothing is exported.

        Returns:
            None, or why it cannot be run here, so that PyTorch decides.
        """
        self._renew()
        try:
            self._graph = DecisionGraph(graph)
        except GraphError as error:
            return str(error)
        return None

    @torch.no_grad()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return one chunk `[batch, chunk, action]` in physical units per observation `[batch, obs]`."""
        self._renew()
        weight = self._weights[0]
        obs = torch.as_tensor(observations, dtype=weight.dtype, device=weight.device)
        if self._graph is not None and len(obs) == self._graph.batch:
            chunks = self._graph(obs, self._generator)
        else:
            chunks = self._decide(self.critic, obs, self._generator)
        # float32 arithmetic may leave a bound by one unit in the last place.
        return np.clip(self.task.action.denormalize(chunks.cpu().numpy()), self._low, self._high)

    def _decide(self, critic: ChunkCritic | None, obs: Tensor, generator: torch.Generator) -> Tensor:
        """The chosen chunks `[batch, chunk, action]` in (-1, 1)."""
        candidates, temperature = self.acting.candidates, self.acting.temperature
        if critic is None or candidates == 1:
            return self._sampler.sample(obs, temperature=temperature, generator=generator)
        return best_of(self._sampler, critic, obs, candidates, temperature, generator)[0]

    def _renew(self) -> None:
        """Follow the weights: a frozen copy of the policy decides until they change."""
        # PyTorch counts how often each tensor was written, for its own checks.
        version = sum([weight._version for weight in self._weights])
        if version != self._version:
            self._sampler, self._graph, self._version = self.policy.frozen(), None, version


def _device(policy: ChunkPolicy) -> torch.device:
    return next(policy.parameters()).device
