"""Film strips of a run: one of a success and one of a failure where both exist, each with its caption."""

from __future__ import annotations

import json
from pathlib import Path

from serfn.core.files import write_atomically
from serfn.core.protocols import ChunkActor
from serfn.rollout.film import Rehearsal, record_frames, rehearse, save_film_strip
from serfn.rollout.guarded import GuardedEnv
from serfn.rollout.simulations import Simulations

TRIES = 8
"""Episodes among which a success and a failure are looked for."""

_OUTCOMES: dict[bool | None, str] = {True: "success", False: "failure"}


def add_films(
    folder: Path, name: str, caption: str, simulations: Simulations, actor: ChunkActor, *, seed: int
) -> None:
    """Record the first success and the first failure of `TRIES` episodes, or one episode of a silent task.

    The files are `<name>_success.png` and `<name>_failure.png`, or `<name>.png` where the task does not tell
    success; captions are kept in `films.json`. Earlier films of this name are replaced.

    Args:
        folder: Folder of the films, made if needed.
        name: Name of the films.
        caption: What they show.
        simulations: Environments to act in.
        actor: What acts.
        seed: Seed of the first episode.

    Raises:
        SerfnError: The environment does not render, or not on this machine.
    """
    env = simulations.rendering()
    try:
        films = {
            outcome: record_frames(env, actor, seed=number, length=rehearsal.length)
            for outcome, (number, rehearsal) in _first_of_each(env, actor, seed).items()
        }
    finally:
        env.close()
    folder.mkdir(exist_ok=True)
    captions = folder / "films.json"
    known = json.loads(captions.read_text(encoding="utf-8")) if captions.is_file() else {}
    for outdated in (f"{name}.png", *(f"{name}_{word}.png" for word in _OUTCOMES.values())):
        (folder / outdated).unlink(missing_ok=True)
        known.pop(outdated, None)
    for outcome, frames in films.items():
        word = _OUTCOMES.get(outcome)
        file = f"{name}.png" if word is None else f"{name}_{word}.png"
        save_film_strip(frames, folder / file)
        known[file] = caption if word is None else f"{caption}: a {word}"
    write_atomically(captions, json.dumps(known))


def _first_of_each(env: GuardedEnv, actor: ChunkActor, seed: int) -> dict[bool | None, tuple[int, Rehearsal]]:
    """Return seed and rehearsal of the first episode of each outcome, successes first."""
    found: dict[bool | None, tuple[int, Rehearsal]] = {}
    for number in range(seed, seed + TRIES):
        rehearsal = rehearse(env, actor, seed=number)
        found.setdefault(rehearsal.success, (number, rehearsal))
        if None in found or len(found) == len(_OUTCOMES):
            break
    return {outcome: found[outcome] for outcome in (*_OUTCOMES, None) if outcome in found}
