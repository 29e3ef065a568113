"""Names of the numbers that make up an observation or an action, by one convention everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

POSITION, TARGET = "joint_position.", "joint_target."
"""What comes before a joint's name in observations: where it is, and where it is driven to."""


def part_names(parts: Iterable[tuple[str, int, Sequence[str]]]) -> tuple[str, ...]:
    """Return a name for each dimension of parts that are put side by side.

    Args:
        parts: Name, number of dimensions and, where they are known, names of the dimensions of each part.

    Returns:
        Names of dimensions as they are where known; else `part` for a single number and `part.0`, `part.1`, …
        for several. Empty where nothing is known but the name of the whole.

    >>> part_names([("pose", 2, ("x", "y")), ("grip", 1, ()), ("object", 2, ())])
    ('x', 'y', 'grip', 'object.0', 'object.1')
    >>> part_names([("actions", 2, ())])
    ()
    """
    parts = list(parts)
    if len(parts) == 1 and not parts[0][2]:
        return ()
    names: list[str] = []
    for name, size, inner in parts:
        if len(inner) == size:
            names += map(str, inner)
        else:
            names += [name] if size == 1 else [f"{name}.{index}" for index in range(size)]
    return tuple(names)


def commanded_joints(observation_names: Sequence[str], actions: int) -> tuple[str, ...]:
    """Return the joints whose targets the actions are, as the names of observations tell.

    Where observations are named `joint_position.X` and `joint_target.X`, the actions are the targets of the
    joints X, in the order of the observations. Empty where there are not as many of them as actions.
    """
    joints = tuple(name.removeprefix(TARGET) for name in observation_names if name.startswith(TARGET))
    if len(joints) != actions or not {POSITION + joint for joint in joints} <= set(observation_names):
        return ()
    return joints
