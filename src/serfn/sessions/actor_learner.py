"""Actor and learner put together: in one process, or in two on one machine.

With two processes the robot waits for nothing that the learner does. The learner may be killed, or may never
start: the robot goes on with the policy that it has, and the experience waits on disk. When the robot's
process is killed, the learner writes a checkpoint and ends.
"""

from __future__ import annotations

from collections.abc import Callable

from serfn.core.progress import SILENT, Progress
from serfn.sessions.actor import RobotActor
from serfn.sessions.learner import Learner
from serfn.sessions.learner_process import LearnerProcess, learner_lock


def run_session(
    actor: RobotActor,
    *,
    episodes: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
) -> str:
    """Run the episodes of an open actor with the learner where its configuration says; return why it ended.

    Args:
        actor: The robot's side, opened.
        episodes: End after this many; None leaves that to the budget and to people.
        should_stop: Asked between episodes and between updates.
        progress: Watches a learner in this process.

    Raises:
        RobotError: The robot cannot start.
        DataError: Another process learns in this session.
    """
    place = actor.config.learning.place
    if place == "inline":
        return _run_inline(actor, episodes, should_stop, progress)
    if place == "none":
        return actor.run(episodes, should_stop=should_stop)
    actor.follow_weights()
    if place == "elsewhere":
        return actor.run(episodes, should_stop=should_stop)
    learner = LearnerProcess(
        actor.folder.path,
        note=actor.watcher.note,
    )
    learner.start()
    try:
        return actor.run(episodes, should_stop=should_stop, after_episode=lambda outcome: learner.watch())
    finally:
        learner.stop()


def _run_inline(
    actor: RobotActor, episodes: int | None, should_stop: Callable[[], bool], progress: Progress
) -> str:
    """Let robot and learner take turns: the robot rests while the learner updates."""
    reason: str | None = None
    left = episodes

    def gather(missing: int) -> None:
        nonlocal reason, left
        if actor.weights is not None:
            actor.weights.look()
        wanted = missing if left is None else min(missing, left)
        before = actor.session.use.episodes
        ended = actor.run(wanted, should_stop=should_stop)
        done = actor.session.use.episodes - before
        left = None if left is None else left - done
        if done < wanted or left == 0:
            reason = ended
        else:
            actor.watcher.phase("learning", "the robot rests while the policy learns")

    with learner_lock(actor.folder.path):
        learner = Learner(
            actor.folder.path,
            gather=gather,
            should_stop=lambda: reason is not None or should_stop(),
            progress=progress,
        )
        learner.run()
    return reason or actor.session.ended or "the session was asked to stop"
