"""Looking at a whole data set of any format: bad episodes one by one, and what is odd about the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from serfn.data.datasets import open_source
from serfn.data.demonstrations import Demonstrations, check_coverage, infer_action_spec
from serfn.data.extremes import extremes
from serfn.data.mapping import GUESS_ALL, NameMapping
from serfn.data.source import BadEpisode
from serfn.data.store.check import Finding, check_store
from serfn.data.store.store import is_store


def check_data(
    path: Path,
    mapping: NameMapping = GUESS_ALL,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """Read every episode of a data set; nothing is changed.

    Args:
        path: File or folder of any format.
        mapping: Which of its names mean what.
        watch: Takes the number of episodes read and of all.

    Returns:
        A damage for every episode that cannot be used, with file, episode, step and reason, and a note for
        what is odd: values that are alone, dimensions that never move, actions at their bounds.

    Raises:
        DataError: It is no data set, or cannot be opened at all.
    """
    findings, bad = (check_store(path, watch) if is_store(path) else []), list[BadEpisode]()
    source = open_source(path, replace(mapping, images=()) if is_store(path) else mapping)
    episodes = []
    for done, episode in enumerate(source.read(bad), start=1):
        # Their images are read for the check and not kept.
        episodes.append(replace(episode, images={}))
        if not is_store(path):
            watch(done + len(bad), source.count)
    if not is_store(path):
        findings += [Finding(str(episode)) for episode in bad]
        findings += [Finding(note, damage=False) for note in source.notes]
    if not episodes:
        return findings
    spec = source.action_spec or infer_action_spec(episodes)
    odd = (
        *extremes(episodes),
        *check_coverage(Demonstrations(tuple(episodes), spec), chunk_size=1).notes,
    )
    return findings + [Finding(note, damage=False) for note in odd]
