"""Film strips: a few frames of one episode side by side, to see what the numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serfn.core.errors import SerfnError
from serfn.core.protocols import ChunkActor
from serfn.rollout.environments import task_spec
from serfn.rollout.guarded import GuardedEnv
from serfn.rollout.loop import EpisodeRun, Step, Watcher, run_together

_GAP = 4
_CAPTION_HEIGHT = 36
_CAPTION_SIZE = 26


@dataclass(frozen=True)
class Frame:
    """A rendered image `[height, width, 3]` uint8 and its time in the episode."""

    time_s: float
    rgb: np.ndarray


@dataclass(frozen=True)
class Rehearsal:
    """What one episode came to: its control steps, and whether it succeeded (None if the task is silent)."""

    length: int
    success: bool | None


class _Camera(Watcher):
    """Renders the frames that are shown, known by the number of steps before them."""

    def __init__(self, shown: set[int], rate_hz: float) -> None:
        self.frames: list[Frame] = []
        self._shown = shown
        self._rate_hz = rate_hz

    def began(self, run: EpisodeRun) -> None:
        self._look(run)

    def stepped(self, run: EpisodeRun, step: Step) -> None:
        self._look(run)

    def _look(self, run: EpisodeRun) -> None:
        if run.steps in self._shown:
            self.frames.append(Frame(run.steps / self._rate_hz, run.env.render()))


def rehearse(env: GuardedEnv, actor: ChunkActor, *, seed: int) -> Rehearsal:
    """Run one episode without rendering; `record_frames` with the same seed shows the same episode."""
    run = _run(env, actor, seed)
    return Rehearsal(run.steps, run.success)


def record_frames(
    env: GuardedEnv, actor: ChunkActor, *, seed: int, length: int | None = None, count: int = 6
) -> list[Frame]:
    """Run one episode and return `count` frames spread over it, the first and the last included.

    Rendering is by far the slower part, so that only the frames that are shown are rendered.

    Args:
        env: One environment made with `render_mode="rgb_array"`.
        actor: Acts on a batch of one.
        seed: Seed of the environment and the actor.
        length: Control steps of the episode; None rehearses it to learn them.
        count: Number of frames, at least 2; a shorter episode gives fewer.

    Raises:
        SerfnError: `count` is below 2, or the environment does not render.
    """
    if count < 2:
        raise SerfnError(f"count is {count}; a film strip needs at least 2 frames")
    rate_hz = task_spec(env).control_hz
    if length is None:
        length = rehearse(env, actor, seed=seed).length
    shown = set(np.linspace(0, length, count).round().astype(int).tolist())
    camera = _Camera(shown, rate_hz)
    _run(env, actor, seed, [camera])
    return camera.frames


def _run(env: GuardedEnv, actor: ChunkActor, seed: int, watchers: Sequence[Watcher] = ()) -> EpisodeRun:
    ((_, run),) = run_together([env], [seed], actor, watchers=lambda number: watchers)
    if run.failure is not None:
        raise run.failure
    return run


def save_film_strip(frames: Sequence[Frame], path: Path, *, frame_width: int = 240) -> None:
    """Write frames side by side as one PNG, each with its time below.

    Args:
        frames: Frames of equal size, in order.
        path: File to write; its folder must exist.
        frame_width: Width of each frame in the strip, pixels.

    Raises:
        SerfnError: There are no frames.
    """
    if not frames:
        raise SerfnError("a film strip needs at least one frame, got none")
    height, width = frames[0].rgb.shape[:2]
    frame_height = round(frame_width * height / width)
    strip_width = len(frames) * frame_width + (len(frames) - 1) * _GAP
    # Transparent between and below the frames: the strip lies on light and dark pages alike.
    strip = Image.new("RGBA", (strip_width, frame_height + _CAPTION_HEIGHT), (0, 0, 0, 0))
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=_CAPTION_SIZE)
    decimals = 1 if frames[-1].time_s >= 2 else 2
    for index, frame in enumerate(frames):
        left = index * (frame_width + _GAP)
        image = Image.fromarray(np.ascontiguousarray(frame.rgb[..., :3], np.uint8))
        strip.paste(image.resize((frame_width, frame_height), Image.Resampling.LANCZOS), (left, 0))
        caption = f"{frame.time_s:.{decimals}f} s"
        draw.text((left + 2, frame_height + 2), caption, fill=(128, 128, 128, 255), font=font)
    strip.save(path)
