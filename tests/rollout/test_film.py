from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serfn.core.errors import SerfnError
from serfn.rollout.environments import make_env
from serfn.rollout.film import Frame, record_frames, rehearse, save_film_strip


def test_frames_span_the_episode(random_actor) -> None:  # noqa: ANN001
    env = make_env("test/Counter-v0", render_mode="rgb_array", endless=True)
    frames = record_frames(env, random_actor, seed=0, count=4)
    assert len(frames) == 4
    assert frames[0].time_s == 0.0 and frames[-1].time_s == 2.0  # 20 steps at 10 Hz
    gaps = np.diff([frame.time_s for frame in frames])
    assert (gaps > 0.3).all()
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [round(100 * frame.time_s) for frame in frames]


def test_short_episode_gives_fewer_frames(random_actor) -> None:  # noqa: ANN001
    env = make_env("test/Counter-v0", render_mode="rgb_array")
    assert len(record_frames(env, random_actor, seed=0, count=9)) == 4


def test_a_rehearsal_tells_length_and_success_of_the_episode_that_is_filmed(random_actor) -> None:  # noqa: ANN001
    env = make_env("test/Counter-v0", render_mode="rgb_array")
    odd, even = (rehearse(env, random_actor, seed=seed) for seed in (0, 1))
    assert (odd.length, odd.success) == (3, False)
    assert (even.length, even.success) == (4, True)
    frames = record_frames(env, random_actor, seed=1, length=even.length, count=2)
    assert [frame.time_s for frame in frames] == [0.0, 0.4]


def test_a_film_executes_as_many_steps_of_a_chunk_as_an_evaluation(random_actor) -> None:  # noqa: ANN001
    env = make_env("test/Counter-v0", render_mode="rgb_array", endless=True)
    random_actor.n_action_steps = 2
    rehearse(env, random_actor, seed=0)
    assert len(random_actor.batches) == 10  # 20 steps, two of each chunk


def test_environment_that_does_not_render_is_named(random_actor) -> None:  # noqa: ANN001
    env = make_env("test/Counter-v0")
    env.unwrapped.render = lambda: None  # type: ignore[method-assign]
    with pytest.raises(SerfnError, match="render_mode='rgb_array'"):
        record_frames(env, random_actor, seed=0)
    env.unwrapped.render = lambda: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(SerfnError, match=r"ZeroDivisionError.*MUJOCO_GL"):
        record_frames(env, random_actor, seed=0)


def test_strip_is_one_image(tmp_path: Path) -> None:
    frames = [Frame(0.1 * i, np.full((30, 40, 3), i, np.uint8)) for i in range(3)]
    save_film_strip(frames, tmp_path / "film.png", frame_width=80)
    with Image.open(tmp_path / "film.png") as image:
        assert image.width == 3 * 80 + 2 * 4
        assert image.height > 60


def test_bad_counts_are_named(tmp_path: Path, random_actor) -> None:  # noqa: ANN001
    with pytest.raises(SerfnError, match="count is 1"):
        record_frames(make_env("test/Counter-v0"), random_actor, seed=0, count=1)
    with pytest.raises(SerfnError, match="at least one frame"):
        save_film_strip([], tmp_path / "film.png")
