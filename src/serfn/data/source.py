"""Episodes of a data set of any format, read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serfn.core.errors import DataError, SerfnError
from serfn.core.spec import ActionSpec
from serfn.data.episode import Episode

FormatName = str
"""Name of a format: `lerobot`, `minari`, `npz`, `robomimic`, `store`, or that of another package."""


@dataclass(frozen=True)
class EpisodeSource:
    """A data set that was opened and understood; its episodes are read when they are asked for.

    Args:
        path: Where it lies.
        format: What it is.
        count: Number of its episodes.
        read: Returns a new iterator over the episodes, in order, each of which is checked when it is read.
        content: What was found in it, in words, for error messages.
        control_hz: Control steps per second, if the data set says.
        action_spec: Bounds of the actions, if the data set says.
        observation_names: Name of each dimension of an observation, if the data set says.
        action_names: Name of each dimension of an action, if the data set says.
        guessed_order: Names of the parts of an observation, where their order is a guess.
        notes: What was guessed or had to be assumed, one sentence each, to be shown to the user.
    """

    path: Path
    format: FormatName
    count: int
    read: Callable[[], Iterator[Episode]]
    content: str
    control_hz: float | None = None
    action_spec: ActionSpec | None = None
    observation_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    guessed_order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@contextmanager
def understood(what: str, *also: type[Exception]) -> Iterator[None]:
    """Turn whatever a file library says about content that it cannot read into a `DataError`.

    Libraries for files from elsewhere fail on damaged content with nearly every built-in exception; a bug of
    ours keeps its traceback as the cause.

    Args:
        what: File and format, for the message.
        also: Exceptions of the library that derive from no built-in one.

    Raises:
        DataError: The body raised; an error of our own passes unchanged.
    """
    try:
        yield
    except SerfnError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        SystemError,
        TypeError,
        ValueError,
        *also,
    ) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DataError(
            f"cannot read {what}: {reason}; the file is damaged, incomplete or of another format"
        ) from error
