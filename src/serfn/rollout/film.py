"""Film strips: a few frames of one episode side by side, to see what the numbers mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serfn.core.errors import SerfnError
from serfn.core.protocols import ChunkActor
from serfn.rollout.environments import task_spec

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


def rehearse(env: gymnasium.Env, actor: ChunkActor, *, seed: int) -> Rehearsal:
    """Run one episode without rendering; `record_frames` with the same seed shows the same episode."""
    *_, (length, info) = _steps(env, actor, seed)
    outcome = info.get("is_success", info.get("success"))
    return Rehearsal(length, None if outcome is None else bool(outcome))


def record_frames(
    env: gymnasium.Env, actor: ChunkActor, *, seed: int, length: int | None = None, count: int = 6
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
    return [Frame(step / rate_hz, _render(env)) for step, _ in _steps(env, actor, seed) if step in shown]


def _steps(env: gymnasium.Env, actor: ChunkActor, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run an episode and yield the number of steps done, from 0, with `info`, after each of them."""
    observation, info = env.reset(seed=seed)
    actor.reset(seed)
    step, over = 0, False
    yield step, info
    while not over:
        chunk = actor.act(np.asarray(observation, np.float32)[None])[0]
        for action in chunk[: actor.n_action_steps]:
            observation, _, terminated, truncated, info = env.step(action)
            step, over = step + 1, bool(terminated or truncated)
            yield step, info
            if over:
                break


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


def _render(env: gymnasium.Env) -> np.ndarray:
    try:
        image = env.render()
    except Exception as error:  # OpenGL bindings raise whatever their platform gives them
        raise SerfnError(
            f"the environment cannot render here ({type(error).__name__}: {error}); on a machine without a "
            "display set MUJOCO_GL=egl or MUJOCO_GL=osmesa, or skip the film"
        ) from error
    if not isinstance(image, np.ndarray):
        raise SerfnError(
            f"the environment renders {type(image).__name__}; make it with render_mode='rgb_array'"
        )
    return image
