"""From a configuration to a policy."""

from __future__ import annotations

import torch

from serfn.core.errors import ConfigError
from serfn.policies.base import ChunkPolicy, PolicyConfig


def make_policy(
    config: PolicyConfig, obs_dim: int, action_dim: int, chunk_size: int, *, seed: int = 0
) -> ChunkPolicy:
    """Build the policy of this configuration, on the CPU in float32.

    The initial weights depend on `seed` alone; the process-wide random state is left as it was.

    Raises:
        ConfigError: what `config` builds is no policy, or one of other sizes.
        ValueError: the architecture does not fit these sizes.
    """
    # Layers of PyTorch draw from its global state, whichever policy they are in.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            policy = config.build(obs_dim, action_dim, chunk_size)
        except (TypeError, RuntimeError, MemoryError) as error:
            # PyTorch, of sizes that no memory holds; the frames that it adds help nobody.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"policy.type '{config.type}' cannot be built: {reason}") from error
    if not isinstance(policy, ChunkPolicy):
        raise ConfigError(f"policy.type '{config.type}' builds a {type(policy).__name__}, not a ChunkPolicy")
    sizes = (policy.obs_dim, policy.action_dim, policy.chunk_size)
    if sizes != (obs_dim, action_dim, chunk_size):
        raise ConfigError(
            f"policy.type '{config.type}' builds a policy for observation, action and chunk {sizes}, asked "
            f"for {(obs_dim, action_dim, chunk_size)}"
        )
    return policy
