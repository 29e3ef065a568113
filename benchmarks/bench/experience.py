"""Replay and experience store: batches, and chunks with cameras on their way to disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.bench.timing import Group, Setting, alternate
from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.arrays import ArraySpace
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.data.store.chunks import EpisodeStart, ExecutedChunk
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import Flush, StoreWriter

OBS, ACTION, CHUNK, BATCH, STEPS = 90, 16, 8, 256, 200
RECORDED_CHUNK, CAMERA, CHUNKS = 10, (128, 128, 3), 20
FLUSHES: tuple[Flush, ...] = ("chunk", "episode", "never")
TASK = TaskSpec("bench", ObservationSpec(OBS), ActionSpec((-1.0,) * ACTION, (1.0,) * ACTION), 20.0, STEPS)


def replay(setting: Setting) -> dict[str, Group]:
    """Return what a batch of windows costs, beside a plain gather of numpy, which is the limit."""
    small, large = (600, 1200) if setting.quick else (10_000, 200_000)
    calls: dict[str, Callable[[], object]] = {
        f"{steps:,} steps, {place}": _sampling(steps, memory)
        for steps, place, memory in (
            (small, "memory", None),
            (large, "memory", None),
            (large, "mostly disk", 2**20 if setting.quick else 16 * 2**20),
        )
    }
    calls[f"{large:,} steps, plain gather"] = _gathering(large)
    return {f"replay, {BATCH} windows of {CHUNK} steps": alternate(calls, setting.rounds(300))}


def recording(setting: Setting) -> dict[str, Group]:
    """Return what a recorded chunk of two cameras costs, and the end of its episode, by what is flushed."""
    appends: dict[str, Callable[[], object]] = {}
    ends: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for flush in FLUSHES:
            EpisodeStore.create(folder / flush, TASK)
            writer = stack.enter_context(StoreWriter(folder / flush, flush=flush))
            appends[f"flush {flush}"], ends[f"flush {flush}"] = _journal(writer)
        name = f"two cameras {CAMERA[0]}×{CAMERA[1]}, chunk of {RECORDED_CHUNK} steps"
        groups = {name: alternate(appends, setting.rounds(CHUNKS - 2))}
        # An episode ends once.
        groups[f"end of such an episode of {CHUNKS} chunks"] = alternate(ends, 1, warm_up=0)
    return groups


def _sampling(steps: int, memory_bytes: int | None) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    filled = ChunkReplay(TASK.action, OBS, CHUNK, steps, space=ArraySpace(memory_bytes))
    template = rng.normal(size=(STEPS + 1, OBS)).astype(np.float32)
    for number in range(steps // STEPS):
        filled.add(
            Episode(
                observations=template,
                actions=np.full((STEPS, ACTION), np.sin(number)),
                rewards=np.zeros(STEPS),
                terminated=False,
                truncated=True,
                success=number % 2 == 0,
                chunk_starts=np.arange(STEPS) % CHUNK == 0,
            )
        )
    return lambda: filled.sample(BATCH, rng)


def _gathering(steps: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(steps, OBS)).astype(np.float32)
    actions = rng.normal(size=(steps, ACTION)).astype(np.float32)
    rewards, offsets = np.zeros(steps, np.float32), np.arange(CHUNK)

    def gather() -> object:
        starts = rng.integers(steps - CHUNK, size=BATCH)
        window = starts[:, None] + offsets
        return observations[starts], actions[window], rewards[window], observations[starts + CHUNK]

    return gather


def _journal(writer: StoreWriter) -> tuple[Callable[[], object], Callable[[], object]]:
    rng = np.random.default_rng(0)
    images = {name: _images(rng) for name in ("wrist", "scene")}
    first = {name: stack[0] for name, stack in images.items()}
    recording = writer.record(EpisodeStart(observation=np.zeros(OBS), timestamp_s=0.0, images=first))
    state = {"chunks": 0}

    def append() -> None:
        recording.append(
            ExecutedChunk(
                observations=rng.normal(size=(RECORDED_CHUNK, OBS)),
                actions=rng.uniform(-1, 1, (RECORDED_CHUNK, ACTION)),
                proposed_actions=rng.uniform(-1, 1, (RECORDED_CHUNK, ACTION)),
                rewards=np.zeros(RECORDED_CHUNK),
                interventions=np.zeros(RECORDED_CHUNK, bool),
                timestamps_s=state["chunks"] + np.arange(1, RECORDED_CHUNK + 1) / 20,
                images=images,
            )
        )
        state["chunks"] += 1

    return append, lambda: recording.finish(terminated=False, truncated=True)


def _images(rng: np.random.Generator) -> np.ndarray:
    """Images with the noise of a camera: smooth shapes and three grey levels of noise."""
    rows, columns = np.mgrid[: CAMERA[0], : CAMERA[1]]
    shapes = 128 + 60 * np.sin(rows / 17)[..., None] * np.cos(columns / 23)[..., None] + np.zeros(CAMERA)
    noise = rng.normal(0, 3, (RECORDED_CHUNK, *CAMERA))
    return np.clip(shapes + noise, 0, 255).astype(np.uint8)
