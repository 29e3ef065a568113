"""New weights on the way to the robot: fetched, judged and offered beside the control loop.

The history is durable: an actor that is killed goes on with the version that acted last, and knows what it
has refused.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from serfn.core.errors import CheckpointError, SerfnError
from serfn.core.files import write_atomically
from serfn.core.seeding import generator, torch_seed
from serfn.core.spec import TaskSpec
from serfn.data.chunk_batch import ChunkBatch
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.runs.log import append_line
from serfn.sessions.policy_slot import PolicySlot
from serfn.sessions.promotion import FAILURE_WINDOW, Promotion, PromotionConfig, judge
from serfn.sessions.snapshots import SnapshotStore
from serfn.training.acting import BestOfNActor

_OWN_STEPS = 4000
_DRAWN = 64
_HISTORY = 10
"""Promoted versions that a roll-back may return to."""


class SnapshotSource(Protocol):
    """Brings the newest published snapshot of a learner elsewhere into the local snapshot store."""

    def fetch(self, snapshots: SnapshotStore) -> None:
        """Look for a newer snapshot and unpack it.

        Raises:
            SerfnError: The learner cannot be reached.
        """
        ...


class Probes:
    """Windows of executed chunks to compare policies on: demonstrations and, as they come, online episodes.

    Args:
        demonstrated: Windows of demonstrations.
        own: Empty replay for the newest online episodes.
        seed: Seed of the draws.
    """

    def __init__(self, demonstrated: ChunkBatch, own: ChunkReplay, seed: int) -> None:
        self._demonstrated = demonstrated
        self._own = own
        self._rng = generator(seed, "probe-draws")
        self._lock = threading.Lock()

    @classmethod
    def for_task(cls, demonstrated: ChunkBatch, task: TaskSpec, seed: int) -> Probes:
        """Return probes that take online episodes of `task` too."""
        chunk_size = demonstrated.actions.shape[1]
        own = ChunkReplay(task.action, task.observation.dim, chunk_size, _OWN_STEPS)
        return cls(demonstrated, own, seed)

    def add(self, episode: Episode) -> None:
        """Take an episode that was executed; one longer than the storage is left out."""
        if episode.length <= _OWN_STEPS:
            with self._lock:
                self._own.add(episode)

    def draw(self) -> ChunkBatch:
        """Return demonstrated windows and, once there are own ones, as many of those."""
        with self._lock:
            if len(self._own) == 0:
                return self._demonstrated
            own = self._own.sample(_DRAWN, self._rng)
        return self._demonstrated.first(_DRAWN).joined(own)


class WeightUpdates:
    """Keeps the slot of one robot supplied with weights that passed the gate.

    Args:
        snapshots: Where snapshots lie on this machine.
        history: File of what acts, was promoted and refused.
        log: File that gets one line per decision.
        config: Limits of the gate.
        probes: Executed chunks to compare on.
        value_bounds: Interval that contains every reachable value.
        seed: Seed of the gate's samples.
        source: Brings snapshots from elsewhere; None if the learner shares the disk.
        note: Takes one sentence for people.

    Raises:
        CheckpointError: There is no snapshot to begin with.
    """

    def __init__(
        self,
        snapshots: SnapshotStore,
        history: Path,
        log: Path,
        config: PromotionConfig,
        probes: Probes,
        *,
        value_bounds: tuple[float, float],
        seed: int,
        source: SnapshotSource | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.probes = probes
        self._snapshots = snapshots
        self._path, self._log = history, log
        self._config = config
        self._value_bounds = value_bounds
        self._seed = seed
        self._source = source
        self._note = note
        self._lock = threading.Lock()
        self._failed: deque[bool] = deque(maxlen=FAILURE_WINDOW)
        self._promoted, self._refused = self._read()
        self._actor = snapshots.load(self.version)
        self._slot: PolicySlot | None = None
        self._reachable = True
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def version(self) -> int:
        """Version that acts, or will act from the next exchange on."""
        return self._promoted[-1]

    @property
    def actor(self) -> BestOfNActor:
        """What acts, or will act from the next exchange on."""
        return self._actor

    def supply(self, slot: PolicySlot) -> None:
        """Offer to `slot` what is promoted or returned to from now on."""
        self._slot = slot

    def start(self, every_s: float = 1.0) -> None:
        """Look for new weights every `every_s` seconds in a thread of its own, until `close`."""
        self._thread = threading.Thread(
            target=self._watch, args=(every_s,), name="serfn-weights", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def look(self) -> Promotion | None:
        """Fetch and judge the newest version; return what the gate said, None if there is nothing new."""
        with self._lock:
            self._fetch()
            version = self._snapshots.latest()
            if version is None or version in self._refused or version <= self.version:
                return None
            try:
                candidate = self._snapshots.load(version)
                promotion = judge(
                    version,
                    candidate,
                    self._actor,
                    self.probes.draw(),
                    self._config,
                    value_bounds=self._value_bounds,
                    seed=torch_seed(self._seed, "promotion", version),
                )
            except SerfnError as error:
                promotion, candidate = Promotion(version, False, str(error)), None
            if promotion.promoted and candidate is not None:
                self._serve(version, candidate)
            else:
                self._refused.add(version)
            self._record(promotion)
            return promotion

    def roll_back(self, reason: str) -> int | None:
        """Return to the version promoted before, and never use the present one again.

        Args:
            reason: One sentence for the log.

        Returns:
            The version that acts from the next exchange on; None if there is none before.
        """
        with self._lock:
            if len(self._promoted) < 2:
                self._note(f"policy {self.version} stays, there is none before it: {reason}")
                return None
            left, earlier = self._promoted[-1], self._promoted[-2]
            actor = self._snapshots.load(earlier)
            self._promoted = self._promoted[:-1]
            self._refused.add(left)
            self._actor = actor
            self._failed.clear()
            if self._slot is not None:
                self._slot.offer(actor, earlier)
            self._record(Promotion(left, False, f"rolled back to {earlier}: {reason}"))
            return earlier

    def episode_ended(self, version: int, failed: bool, episode: Episode | None) -> None:
        """Count the outcome of an episode of `version`, and return to the version before after too many.

        Args:
            version: Version that acted in it.
            failed: It ended in a failure of the task, or the supervisor stopped it.
            episode: What was executed, as a further probe; None if nothing was kept.
        """
        if episode is not None:
            self.probes.add(episode)
        if version != self.version:
            return
        self._failed.append(failed)
        limit = self._config.failures
        if limit is not None and sum(self._failed) >= limit and len(self._promoted) > 1:
            self.roll_back(f"{sum(self._failed)} of its last {len(self._failed)} episodes failed")

    def _serve(self, version: int, actor: BestOfNActor) -> None:
        self._promoted = [*self._promoted, version][-_HISTORY:]
        self._actor = actor
        self._failed.clear()
        if self._slot is not None:
            self._slot.offer(actor, version)

    def _fetch(self) -> None:
        if self._source is None:
            return
        try:
            self._source.fetch(self._snapshots)
            self._snapshots.prune(frozenset(self._promoted))
        except SerfnError as error:
            if self._reachable:
                self._note(f"no new weights for now: {error}")
            self._reachable = False
        else:
            if not self._reachable:
                self._note("the learner answers again")
            self._reachable = True

    def _watch(self, every_s: float) -> None:
        while not self._closed.wait(every_s):
            try:
                self.look()
            except Exception as error:
                # Whatever is wrong with new weights, the robot goes on with what it has.
                self._note(f"new weights cannot be judged: {type(error).__name__}: {error}")

    def _record(self, promotion: Promotion) -> None:
        history: dict[str, Any] = {
            "acting": self.version,
            "promoted": self._promoted,
            "refused": sorted(self._refused),
        }
        write_atomically(self._path, json.dumps(history))
        append_line(self._log, json.dumps(asdict(promotion)))
        verdict = "promoted" if promotion.promoted else "not used"
        self._note(f"policy {promotion.version} {verdict}: {promotion.reason}")

    def _read(self) -> tuple[list[int], set[int]]:
        if not self._path.is_file():
            versions = self._snapshots.versions()
            if not versions:
                raise CheckpointError(f"no policy in '{self._snapshots.root}'; set the session up anew")
            return [versions[0]], set()
        try:
            history = json.loads(self._path.read_text(encoding="utf-8"))
            return [int(version) for version in history["promoted"]], set(map(int, history["refused"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"'{self._path}' is damaged: {error}; delete it to begin with the first policy again"
            ) from error
