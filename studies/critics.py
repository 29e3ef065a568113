"""Which critic knows what a chunk is worth? Compared on online episodes of a run that it has not seen.

A policy improves by differences between chunks, which are small beside differences between states. For every
choice below, a critic learns from a run's demonstrations and three of four of its online episodes, with the
run's best policy; on the fourth its advantage ``Q(s, a) - mean_k Q(s, a_k)``, ``a_k ~ π``, is
correlated with what followed: the rewards of the next steps and the value after them, less the value before.

    python studies/critics.py runs/cube --updates 3000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from serfn.cli.overrides import override
from serfn.core.seeding import generator
from serfn.core.spec import TaskSpec
from serfn.data.datasets import load_demonstrations
from serfn.data.episode import Episode
from serfn.data.replay import mixed_batch
from serfn.data.store.store import EpisodeStore
from serfn.policies.base import ChunkPolicy
from serfn.runs.evaluate import load_actor
from serfn.training.agent import Agent
from serfn.training.build import fit_statistics, make_agent, make_demonstration_replay, make_replay
from serfn.training.config import TrainConfig
from serfn.training.rewards import learning_rewards

LONG = ("agent.discount=0.9936", "rewards.scale=12.5")
CHOICES: dict[str, tuple[str, ...]] = {
    "the run's own": (),
    "narrow (192)": ("critic.width=192",),
    "narrow, horizon of 7.8 s": ("critic.width=192", *LONG),
    "horizon of 7.8 s": LONG,
    "16-step returns": ("agent.return_steps=16",),
    "step 1e-3": ("agent.critic_learning_rate=0.001",),
    "HL-Gauss": ("critic.head=hl_gauss",),
    "chunks as residuals, gain 0.1": ("critic.residual_gain=0.1",),
    "chunks as residuals, gain 1": ("critic.residual_gain=1.0",),
}
STEPS_AHEAD = (8, 20)
OWN_CHUNKS = 6


def learn(
    config: TrainConfig,
    task: TaskSpec,
    policy: ChunkPolicy,
    demonstrations: Sequence[Episode],
    own: Sequence[Episode],
    updates: int,
) -> Agent:
    """Return an agent with this policy and a critic fitted to data mixed as in the online stage."""
    agent = make_agent(config, task)
    demonstrated, online = (
        make_demonstration_replay(config, task, demonstrations),
        make_replay(config, task, config.replay_steps),
    )
    fit_statistics(agent, demonstrated, demonstrations)
    agent.policy.load_state_dict(policy.state_dict())
    for episode in own:
        online.add(learning_rewards(episode, config.rewards, config.agent.discount))
    rng, windows = generator(config.seed, "critics"), agent.critic.needs_window_observations
    for _ in range(updates):
        batch = mixed_batch(
            demonstrated,
            online,
            config.online.batch_size,
            config.online.online_fraction,
            rng,
            window_observations=windows,
        )
        agent.critic_step(agent.tensors(batch))
    return agent


def outcomes(
    agent: Agent, config: TrainConfig, task: TaskSpec, episodes: Sequence[Episode]
) -> Iterator[np.ndarray]:
    """Yield, per episode, the advantage of every chunk beside what followed it, `[steps, 1 + horizons]`."""
    discount = config.agent.discount
    for episode in episodes:
        taught = learning_rewards(episode, config.rewards, discount)
        replay = make_replay(config, task, episode.length)
        replay.add(taught)
        batch = agent.tensors(replay.windows(np.arange(episode.length)))
        with torch.no_grad():
            values = agent.critic.value(batch.obs, batch.actions, batch.valid)
            own = agent.policy.sample_candidates(
                batch.obs, OWN_CHUNKS, temperature=config.online.acting.temperature, generator=agent.generator
            )
            state_values = agent.critic.candidate_values(batch.obs, own).mean(1).numpy()
        weighted = np.append(0.0, np.cumsum(taught.rewards * discount ** np.arange(episode.length)))
        steps = np.arange(episode.length)
        columns = [values.numpy() - state_values]
        for ahead in STEPS_AHEAD:
            until = np.minimum(steps + ahead, episode.length)
            rewards = (weighted[until] - weighted[steps]) / discount**steps
            end = 0.0 if episode.terminated else state_values[-1]
            after = np.where(until < episode.length, state_values[until % episode.length], end)
            columns.append(rewards + discount ** (until - steps) * after - state_values)
        yield np.stack(columns, 1)


def correlations(rows: np.ndarray) -> list[float]:
    """Correlate the first column with each other one, the most extreme hundredth of either side cut off."""
    low, high = np.percentile(rows, [1, 99], axis=0)
    clipped = np.clip(rows, low, high)
    return [float(np.corrcoef(clipped[:, 0], column)[0, 1]) for column in clipped[:, 1:].T]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="run folder with online episodes")
    parser.add_argument("--updates", type=int, default=3000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    actor, config = load_actor(options.run)
    if config is None:
        parser.error(f"'{options.run}' is no run folder with online episodes")
    task = actor.task
    demonstrations = load_demonstrations(
        config.demos or options.run / "demonstrations.npz", task.action
    ).episodes
    own = list(EpisodeStore(options.run / "experience").episodes(images=False))
    unseen = own[3::4]
    seen = [episode for index, episode in enumerate(own) if index % 4 != 3]
    table = Table(title=f"{len(seen)} episodes seen, {len(unseen)} unseen, {options.updates} updates")
    table.add_column("critic")
    for ahead in STEPS_AHEAD:
        table.add_column(f"correlation, {ahead} steps", justify="right")
    for name, changes in CHOICES.items():
        chosen = override(config, changes)
        agent = learn(chosen, task, actor.policy, demonstrations, seen, options.updates)
        rows = np.concatenate(list(outcomes(agent, chosen, task, unseen)))
        table.add_row(name, *(f"{value:.2f}" for value in correlations(rows)))
    Console().print(table)


if __name__ == "__main__":
    main()
