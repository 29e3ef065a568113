"""Measure the experience store and the replay: recording latency, sampling rate, memory.

Recording: a 20 Hz loop of chunks of 10 steps with two 128×128 cameras, noisy images, one journal. Sampling:
batches of 256 windows of 8 steps, beside a plain gather of the same arrays at random rows, which is the
limit of what numpy can do.

    python benchmarks/bench_data.py --json data.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from serfn.core.spec import ActionSpec, ObservationSpec, TaskSpec
from serfn.data.arrays import ArraySpace
from serfn.data.episode import Episode
from serfn.data.replay import ChunkReplay
from serfn.data.store.chunks import EpisodeStart, ExecutedChunk
from serfn.data.store.loading import add_stored
from serfn.data.store.store import EpisodeStore
from serfn.data.store.writer import Flush, StoreWriter

OBS, ACTION, CHUNK, BATCH, STEPS = 90, 16, 8, 256, 200
RECORDED_CHUNK, CAMERA = 10, (128, 128, 3)
FLUSHES: tuple[Flush, ...] = ("chunk", "episode", "never")
TASK = TaskSpec("bench", ObservationSpec(OBS), ActionSpec((-1.0,) * ACTION, (1.0,) * ACTION), 20.0, STEPS)

Figures = dict[str, float]


def record(folder: Path, flush: Flush, chunks: int) -> Figures:
    """Latency of a chunk with two cameras, and of the end of an episode of 20 chunks."""
    rng = np.random.default_rng(0)
    images = {name: _images(rng) for name in ("wrist", "scene")}
    store = EpisodeStore.create(folder, TASK)
    appends, ends = [], []
    with StoreWriter(store.path, flush=flush) as writer:
        for _ in range(max(chunks // 20, 1)):
            first = {name: stack[0] for name, stack in images.items()}
            recording = writer.record(EpisodeStart(observation=np.zeros(OBS), timestamp_s=0.0, images=first))
            for index in range(20):
                chunk = ExecutedChunk(
                    observations=rng.normal(size=(RECORDED_CHUNK, OBS)),
                    actions=rng.uniform(-1, 1, (RECORDED_CHUNK, ACTION)),
                    proposed_actions=rng.uniform(-1, 1, (RECORDED_CHUNK, ACTION)),
                    rewards=np.zeros(RECORDED_CHUNK),
                    interventions=np.zeros(RECORDED_CHUNK, bool),
                    timestamps_s=index + np.arange(1, RECORDED_CHUNK + 1) / 20,
                    images=images,
                )
                started = time.perf_counter()
                recording.append(chunk)
                appends.append(time.perf_counter() - started)
            started = time.perf_counter()
            recording.finish(terminated=False, truncated=True)
            ends.append(time.perf_counter() - started)
    size = sum(path.stat().st_size for path in folder.rglob("*.arrow"))
    low, high = np.quantile(appends, [0.5, 0.99])
    return {
        "append_p50_ms": 1e3 * float(low),
        "append_p99_ms": 1e3 * float(high),
        "commit_p50_ms": 1e3 * float(np.median(ends)),
        "disk_kib_per_step": size / 1024 / (len(ends) * 20 * RECORDED_CHUNK),
    }


def sample(steps: int, memory_bytes: int | None) -> Figures:
    """Batches per second from so many steps, and those of a plain gather."""
    rng = np.random.default_rng(0)
    space = ArraySpace(memory_bytes)
    replay = ChunkReplay(TASK.action, OBS, CHUNK, steps, space=space)
    template = rng.normal(size=(STEPS + 1, OBS)).astype(np.float32)
    for number in range(steps // STEPS):
        replay.add(_episode(template, number))
    observations = rng.normal(size=(steps, OBS)).astype(np.float32)
    actions = rng.normal(size=(steps, ACTION)).astype(np.float32)
    rewards = np.zeros(steps, np.float32)
    offsets = np.arange(CHUNK)

    def gather() -> None:
        starts = rng.integers(steps - CHUNK, size=BATCH)
        window = starts[:, None] + offsets
        _ = observations[starts], actions[window], rewards[window], observations[starts + CHUNK]

    per_step = 29 + 4 * (OBS + ACTION)
    return {
        "batches_per_s": _rate(lambda: replay.sample(BATCH, rng)),
        "gather_per_s": _rate(gather),
        "memory_bytes_per_step": per_step - space.mapped_bytes / steps,
        "disk_bytes_per_step": space.mapped_bytes / steps,
    }


def load(folder: Path, episodes: int) -> Figures:
    """Time to commit whole episodes without images, and to read them into a replay."""
    rng = np.random.default_rng(0)
    template = rng.normal(size=(STEPS + 1, OBS)).astype(np.float32)
    store = EpisodeStore.create(folder, TASK)
    started = time.perf_counter()
    with StoreWriter(folder, flush="never") as writer:
        for number in range(episodes):
            writer.add(_episode(template, number))
    written = time.perf_counter()
    store.refresh()
    replay = ChunkReplay(TASK.action, OBS, CHUNK, episodes * STEPS)
    add_stored(replay, store)
    read = time.perf_counter()
    return {
        "write_steps_per_s": episodes * STEPS / (written - started),
        "read_steps_per_s": episodes * STEPS / (read - written),
    }


def _images(rng: np.random.Generator) -> np.ndarray:
    """Images with the noise of a camera: smooth shapes and three grey levels of noise."""
    rows, columns = np.mgrid[: CAMERA[0], : CAMERA[1]]
    shapes = 128 + 60 * np.sin(rows / 17)[..., None] * np.cos(columns / 23)[..., None] + np.zeros(CAMERA)
    noise = rng.normal(0, 3, (RECORDED_CHUNK, *CAMERA))
    return np.clip(shapes + noise, 0, 255).astype(np.uint8)


def _episode(template: np.ndarray, number: int) -> Episode:
    return Episode(
        observations=template,
        actions=np.full((STEPS, ACTION), np.sin(number)),
        rewards=np.zeros(STEPS),
        terminated=False,
        truncated=True,
        success=number % 2 == 0,
        chunk_starts=np.arange(STEPS) % CHUNK == 0,
    )


def _rate(call: Callable[[], object], seconds: float = 1.0) -> float:
    for _ in range(20):
        call()
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        call()
        count += 1
    return count / (time.perf_counter() - started)


def _provenance() -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": commit.stdout.strip() or "unknown",
    }


def show(console: Console, title: str, rows: dict[str, Figures]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in next(iter(rows.values())):
        table.add_column(name, justify="right")
    for label, figures in rows.items():
        table.add_row(
            label, *(f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in figures.values())
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=400, help="recorded chunks per flush policy")
    parser.add_argument("--folder", type=Path, help="where to write; else the folder of temporary files")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    console, about = Console(), _provenance()
    console.print(about)
    results: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results["recording, 2 cameras of 128×128, chunks of 10 steps"] = {
            f"flush {flush}": record(Path(folder) / flush, flush, options.chunks) for flush in FLUSHES
        }
        results["whole episodes of 200 steps, no images"] = {"500 episodes": load(Path(folder) / "load", 500)}
    results["sampling, batch 256"] = {
        **{f"{steps:,} steps in memory": sample(steps, None) for steps in (10_000, 100_000, 1_000_000)},
        "1,000,000 steps, budget 64 MiB": sample(1_000_000, 64 * 2**20),
    }
    for title, rows in results.items():
        show(console, title, rows)
    if options.json:
        options.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
