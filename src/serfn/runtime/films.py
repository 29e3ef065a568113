"""Film strips of a run, each with its caption."""

from __future__ import annotations

import json
from pathlib import Path

from serfn.core.files import write_atomically
from serfn.core.protocols import ChunkActor
from serfn.evaluation.film import record_frames, save_film_strip
from serfn.runtime.simulations import Simulations


def add_film(
    folder: Path, name: str, caption: str, simulations: Simulations, actor: ChunkActor, *, seed: int
) -> None:
    """Record one episode as `<name>.png`, and its caption in `films.json`.

    Args:
        folder: Folder of the films, made if needed.
        name: Name of the film; an earlier one of this name is replaced.
        caption: What it shows.
        simulations: Environments to act in.
        actor: What acts.
        seed: Seed of the episode.

    Raises:
        SerfnError: The environment does not render, or not on this machine.
    """
    env = simulations.rendering()
    try:
        frames = record_frames(env, actor, seed=seed)
    finally:
        env.close()
    folder.mkdir(exist_ok=True)
    save_film_strip(frames, folder / f"{name}.png")
    captions = folder / "films.json"
    known = json.loads(captions.read_text(encoding="utf-8")) if captions.is_file() else {}
    write_atomically(captions, json.dumps({**known, f"{name}.png": caption}))
