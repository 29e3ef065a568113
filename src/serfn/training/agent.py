"""The agent: policy, reference, critic, target critic, and all other state that an update touches."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from serfn.core.errors import ConfigError
from serfn.critics.base import ChunkCritic
from serfn.data.chunk_batch import ChunkBatch
from serfn.policies.base import ChunkPolicy
from serfn.policies.squashed import SquashedPolicy
from serfn.training import losses
from serfn.training.batch import TensorBatch
from serfn.training.improvements.base import ImprovementConfig
from serfn.training.losses import Metrics

Tree = dict[str, Any]
ModuleT = TypeVar("ModuleT", bound=nn.Module)

GRADIENT_CLIP = 10.0
"""Largest gradient norm: far above what sound updates have, so that one broken batch does little harm."""


@dataclass(frozen=True)
class AgentConfig:
    """Optimisation of policy and critic.

    Attributes:
        device: Torch device of networks and batches: `cpu`, or `cuda` for wide networks and large batches.
        discount: γ per control step: values look about 1 / (1 - γ) steps ahead. Set it so that this is as
            long as the consequences of one chunk.
        polyak: τ, how far the target critic moves towards the critic in one update; lower is more stable and
            slower.
        critic_learning_rate: Learning rate of the critic; lower it if its loss jumps.
        policy_learning_rate: Learning rate of the policy outside imitation, which has its own. Raise it if a
            stage hardly changes the policy.
        target_candidates: Chunks sampled for one target; the target critic chooses among them. More than 1
            is more greedy, and exaggerates values sooner.
        target_temperature: Sampling temperature of those chunks; that of `acting` is the natural choice.
        return_steps: Control steps of recorded rewards in a target before it bootstraps, at least the chunk;
            None takes the chunk's. The policy's values enter a target with weight γ^steps, so that more steps
            leave them less room to grow on themselves, at the price of valuing what was recorded.

    Raises:
        ConfigError: A value is out of range.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"aggregate": "critic.aggregate"}
    REMOVED: ClassVar[Mapping[str, str]] = {"compile": "nothing is compiled; leave it out"}

    device: str = "cpu"
    discount: float = 0.95 ** (1 / 8)
    polyak: float = 0.01
    critic_learning_rate: float = 3e-4
    policy_learning_rate: float = 1e-4
    target_candidates: int = 1
    target_temperature: float = 0.7
    return_steps: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.discount < 1:
            raise ConfigError(f"discount is {self.discount}; it must lie in (0, 1), per control step")
        if not 0 < self.polyak <= 1:
            raise ConfigError(f"polyak is {self.polyak}; it must lie in (0, 1], 0.01 is usual")
        for name in ("critic_learning_rate", "policy_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.target_candidates < 1:
            raise ConfigError(f"target_candidates is {self.target_candidates}; it must be at least 1")
        if self.return_steps is not None and self.return_steps < 1:
            raise ConfigError(f"return_steps is {self.return_steps}; it must be at least the chunk, or none")
        if not self.target_temperature >= 0:
            raise ConfigError(f"target_temperature is {self.target_temperature}; it must be 0 or more")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device is {self.device!r}; use cpu, cuda or cuda:<index>")


@dataclass(frozen=True)
class OptimizedModule:
    """A network with its optimiser and the counters of its non-finite guard.

    A step whose loss or gradient is not finite changes nothing: the flag goes to the fused optimiser as
    `found_inf`, on the device, so that neither the guard nor the step synchronises with the host.
    """

    module: nn.Module
    optimizer: torch.optim.AdamW
    parameters: list[nn.Parameter]
    skipped: Tensor
    skipped_in_a_row: Tensor

    @classmethod
    def make(cls, module: nn.Module, *, learning_rate: float) -> OptimizedModule:
        """Attach a fused AdamW to all parameters of `module`, on their device."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        device = parameters[0].device
        on_cuda = device.type == "cuda"
        # On CUDA the learning rate is a tensor, so that a captured update follows its schedule.
        rate = torch.tensor(learning_rate, device=device) if on_cuda else learning_rate
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True, capturable=on_cuda)
        return cls(
            module,
            optimizer,
            parameters,
            skipped=torch.zeros((), device=device),
            skipped_in_a_row=torch.zeros((), device=device),
        )

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the following updates."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def step(self, loss: Tensor) -> Tensor:
        """Descend `loss` once and return the gradient norm before clipping."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward(inputs=self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, GRADIENT_CLIP, foreach=True)
        broken = (~(torch.isfinite(loss) & torch.isfinite(norm))).to(self.skipped.dtype)
        # Read by fused Adam (made for gradient scaling): a nonzero flag turns the whole step into a no-op.
        self.optimizer.found_inf = broken  # pyright: ignore[reportAttributeAccessIssue]
        self.optimizer.step()
        self.skipped.add_(broken)
        self.skipped_in_a_row.add_(broken).mul_(broken)
        return norm

    def state_dict(self) -> Tree:
        """Return weights, optimiser state and counters."""
        state = self.optimizer.state_dict()["state"]
        return {
            "module": dict(self.module.state_dict()),
            "optimizer": {str(index): dict(entry) for index, entry in state.items()},
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: Tree) -> None:
        """Inverse of `state_dict`; learning rates are the schedule's, not part of the state."""
        self.module.load_state_dict(state["module"])
        groups = self.optimizer.state_dict()["param_groups"]
        # PyTorch takes the given tensors over without a copy; later steps would change the stored state.
        entries = {int(index): copy.deepcopy(entry) for index, entry in state["optimizer"].items()}
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.skipped.copy_(state["skipped"])
        self.skipped_in_a_row.copy_(state["skipped_in_a_row"])


class Agent:
    """Everything that learns, and one method per kind of update.

    Updates return metrics as detached scalar tensors and never wait for the device. All noise comes from
    `self.generator`, so that equal states and batches give equal updates.

    Args:
        policy: Policy to train; moved to the configured device.
        critic: Critic to train; likewise.
        config: Optimisation.
        value_bounds: Interval that contains every reachable value, by the scaling of rewards.
        seed: Seed of the agent's noise.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        critic: ChunkCritic,
        config: AgentConfig,
        *,
        value_bounds: tuple[float, float],
        seed: int,
    ) -> None:
        self.config = config
        self.value_bounds = value_bounds
        self.device = torch.device(config.device)
        self.dtype = torch.float32
        self.policy = policy.to(self.device, self.dtype)
        self.critic = critic.to(self.device, self.dtype)
        self.reference = _frozen_copy(self.policy)
        self.target_critic = _frozen_copy(self.critic)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.coefficient = torch.zeros((), device=self.device, dtype=self.dtype)
        self._policy = OptimizedModule.make(self.policy, learning_rate=config.policy_learning_rate)
        self._critic = OptimizedModule.make(self.critic, learning_rate=config.critic_learning_rate)

    def tensors(self, batch: ChunkBatch) -> TensorBatch:
        """Move a replay batch to the agent's device and precision."""
        return TensorBatch.from_numpy(batch, device=self.device, dtype=self.dtype)

    def imitation_step(self, batch: TensorBatch) -> Metrics:
        """Raise the likelihood of the chunks of `batch`."""
        loss, metrics = losses.imitation_loss(self.policy, batch, generator=self.generator)
        norm = self._policy.step(loss)
        return {**metrics, "policy/gradient_norm": norm}

    def critic_step(self, batch: TensorBatch) -> Metrics:
        """Fit the critic to chunk targets, then move the target critic."""
        config = self.config
        targets = losses.critic_targets(
            self.policy,
            self.target_critic,
            batch,
            discount=config.discount,
            candidates=config.target_candidates,
            temperature=config.target_temperature,
            bounds=self.value_bounds,
            generator=self.generator,
        )
        loss, metrics = losses.critic_loss(self.critic, batch, targets)
        norm = self._critic.step(loss)
        with torch.no_grad():
            # One call for all tensors: a loop would launch a kernel for each.
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
                list(self.target_critic.parameters()), list(self.critic.parameters()), config.polyak
            )
        return {**metrics, "critic/gradient_norm": norm}

    def policy_step(
        self, batch: TensorBatch, demonstrations: TensorBatch, improvement: ImprovementConfig
    ) -> Metrics:
        """Improve the policy once under `improvement`, and adapt its coefficient λ."""
        loss, metrics = improvement.loss(
            self.policy,
            self.reference,
            self.critic,
            batch,
            demonstrations,
            coefficient=self.coefficient,
            generator=self.generator,
        )
        norm = self._policy.step(loss)
        metrics = {**metrics, "policy/gradient_norm": norm, "policy/coefficient": self.coefficient.clone()}
        self.coefficient.copy_(improvement.adapted(self.coefficient, metrics))
        return metrics

    @torch.no_grad()
    def divergence(self, batch: TensorBatch) -> Tensor:
        """Sampled ``KL(π ‖ π_ref) / D`` on the observations of `batch`, for alarms.

        Raises:
            ConfigError: The policy has no density.
        """
        policy, reference = self.policy, self.reference
        if not (isinstance(policy, SquashedPolicy) and isinstance(reference, SquashedPolicy)):
            raise ConfigError(
                f"a {type(policy).__name__} has no density and so no divergence; set alarms.max_kl to none"
            )
        return losses.sample_with_kl(policy, reference, batch.obs, self.generator)[1].mean()

    @property
    def skipped_in_a_row(self) -> int:
        """Non-finite updates in a row up to now, the more of policy and critic; waits for the device."""
        return int(torch.maximum(self._policy.skipped_in_a_row, self._critic.skipped_in_a_row).item())

    @property
    def skipped(self) -> int:
        """Number of non-finite updates so far; waits for the device."""
        return int((self._policy.skipped + self._critic.skipped).item())

    def freeze_reference(self, coefficient: float | None = None) -> None:
        """Make the present policy the reference, and start λ at `coefficient` if it is given."""
        self.reference.load_state_dict(self.policy.state_dict())
        if coefficient is not None:
            self.coefficient.fill_(coefficient)

    def set_policy_learning_rate(self, value: float) -> None:
        """Set the learning rate of the policy's following updates."""
        self._policy.set_learning_rate(value)

    def set_learning_rates(self, share: float) -> None:
        """Set the learning rates of policy and critic to a share of the configured ones."""
        self._policy.set_learning_rate(share * self.config.policy_learning_rate)
        self._critic.set_learning_rate(share * self.config.critic_learning_rate)

    def policy_state(self) -> Tree:
        """Return a copy of what a rollback of the policy restores: its weights and optimiser state."""
        return copy.deepcopy(self._policy.state_dict())

    def load_policy_state(self, state: Tree) -> None:
        """Restore a state from `policy_state`; counters of skipped updates are kept."""
        self._policy.load_state_dict(
            {**state, "skipped": self._policy.skipped, "skipped_in_a_row": self._policy.skipped_in_a_row}
        )

    def critic_state(self) -> Tree:
        """Return a copy of the weights of the critic, which choose among candidates when acting."""
        return copy.deepcopy(dict(self.critic.state_dict()))

    def load_critic_state(self, state: Tree) -> None:
        """Restore weights from `critic_state`; optimiser and target critic are left as they are."""
        self.critic.load_state_dict(state)

    def learning_state(self) -> Tree:
        """Return what a rollback after non-finite updates restores: everything but the noise."""
        return {
            "policy": self._policy.state_dict(),
            "critic": self._critic.state_dict(),
            "reference": dict(self.reference.state_dict()),
            "target_critic": dict(self.target_critic.state_dict()),
            "coefficient": self.coefficient,
        }

    def load_learning_state(self, state: Tree) -> None:
        """Restore a state from `learning_state`."""
        self._policy.load_state_dict(state["policy"])
        self._critic.load_state_dict(state["critic"])
        self.reference.load_state_dict(state["reference"])
        self.target_critic.load_state_dict(state["target_critic"])
        self.coefficient.copy_(state["coefficient"])

    def state_dict(self) -> Tree:
        """Return everything that the next update depends on."""
        return {**self.learning_state(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Tree) -> None:
        """Inverse of `state_dict`, bit for bit."""
        self.load_learning_state(state)
        self.generator.set_state(state["generator"].cpu())


def _frozen_copy(module: ModuleT) -> ModuleT:
    return copy.deepcopy(module).requires_grad_(False)
