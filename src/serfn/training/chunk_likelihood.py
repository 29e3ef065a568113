"""Exact log-likelihood of chunks in physical units, as the robot's likelihood gate asks for it."""

from __future__ import annotations

import numpy as np
import torch

from serfn.core.errors import ConfigError
from serfn.core.spec import ActionSpec
from serfn.policies.base import LikelihoodPolicy


class ChunkLikelihood:
    """Log-density of chunks under a policy that must not change meanwhile, such as a frozen copy.

    The density is that of normalised actions at temperature 1; it differs from that of physical actions by a
    constant, which a range calibrated with the same object contains too. Values are summed over the chunk.

    Args:
        policy: Reference policy.
        action: Bounds by which its actions are normalised.

    Raises:
        ConfigError: The policy has another number of action dimensions.
    """

    def __init__(self, policy: LikelihoodPolicy, action: ActionSpec) -> None:
        if policy.action_dim != action.dim:
            raise ConfigError(
                f"the reference policy has {policy.action_dim} action dimensions, the robot {action.dim}; "
                "use a policy that was trained for this robot"
            )
        self._policy = policy
        self._action = action

    def __call__(self, observation: np.ndarray, chunk: np.ndarray) -> float:
        """Return the log-likelihood of one chunk `[chunk, action]`, given the observation `[obs]`."""
        return float(self.batch(observation[None], chunk[None])[0])

    @torch.no_grad()
    def batch(self, observations: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        """Return log-likelihoods `[n]` of chunks `[n, chunk, action]`, given observations `[n, obs]`."""
        weight = next(self._policy.parameters())
        actions = np.clip(self._action.normalize(chunks), -1.0, 1.0)
        values = self._policy.log_prob(
            torch.as_tensor(observations, dtype=weight.dtype, device=weight.device),
            torch.as_tensor(actions, dtype=weight.dtype, device=weight.device),
        )
        return values.cpu().numpy().astype(np.float64)
