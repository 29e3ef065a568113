"""Episodes of a data set of any format, read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from serfn.core.errors import DataError, SerfnError
from serfn.core.spec import ActionSpec
from serfn.data.episode import Episode

FormatName = str
"""Name of a format: `lerobot`, `minari`, `npz`, `robomimic`, `store`, or that of another package."""


@dataclass(frozen=True)
class BadEpisode:
    """An episode that cannot be used, while those beside it can.

    Attributes:
        file: The file or folder that is damaged.
        episode: Its name or number there, such as `episode 3`.
        reason: What is wrong with it, and the remedy.
        step: Control step at which that was found; None where it concerns the whole episode.
    """

    file: Path
    episode: str
    reason: str
    step: int | None = None

    def __str__(self) -> str:
        """One line with everything."""
        return f"'{self.file}', {self.episode}: {self.reason}"


EpisodeResult = Episode | BadEpisode


@dataclass(frozen=True)
class EpisodeSource:
    """A data set that was opened and understood; its episodes are read when they are asked for.

    Args:
        path: Where it lies.
        format: What it is.
        count: Number of its episodes.
        results: Returns a new iterator over the episodes, in order, each of which is checked when it is read;
            one that cannot be used is a `BadEpisode` in its place. Use `read`.
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
    results: Callable[[], Iterator[EpisodeResult]]
    content: str
    control_hz: float | None = None
    action_spec: ActionSpec | None = None
    observation_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    guessed_order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def read(
        self, bad: list[BadEpisode] | None = None, action_spec: ActionSpec | None = None
    ) -> Iterator[Episode]:
        """Yield the episodes in order.

        Args:
            bad: Takes the episodes that cannot be used, which are left out; None refuses the first one.
            action_spec: Bounds that the actions must keep; None takes those of the data set, if it has any.

        Raises:
            DataError: An episode cannot be used, and `bad` is None; or the data set cannot be read.
        """
        spec, sizes = action_spec or self.action_spec, None
        for index, result in enumerate(self.results()):
            found = result
            if isinstance(result, Episode):
                found = _misfit(self.path, index, result, spec, sizes) or result
            if isinstance(found, Episode):
                sizes = sizes or _sizes(found)
                yield found
            elif bad is None:
                raise DataError(str(found), found.step)
            else:
                bad.append(found)

    def without_bad(self, bad: list[BadEpisode]) -> EpisodeSource:
        """Return the source without the episodes that cannot be used, which `bad` has after each reading."""

        def results() -> Iterator[EpisodeResult]:
            bad.clear()
            yield from self.read(bad)

        return replace(self, results=results)


def left_out(bad: Sequence[BadEpisode], total: int) -> str:
    """Return the sentence that says how many episodes were left out, and the first of them."""
    return f"{len(bad)} of {total} episodes are bad and left out, the first: {bad[0]}"


def examine(file: Path, episode: str, read: Callable[[], Episode], *also: type[Exception]) -> EpisodeResult:
    """Return the episode that `read` returns, or what is wrong with it.

    Args:
        file: File or folder that is read.
        episode: Name or number of the episode in it.
        read: Reads it.
        also: Exceptions of the file's library that derive from no built-in one.

    Raises:
        ConfigError: A package that reads the format is missing.
    """
    what = f"{episode} of '{file}'"
    try:
        with understood(what, *also):
            return read()
    except DataError as error:
        reason = str(error).replace(f"cannot read {what}: ", "it cannot be read: ")
        return BadEpisode(file, episode, reason, error.step)


def _sizes(episode: Episode) -> tuple[int, int]:
    return episode.observations.shape[1], episode.actions.shape[1]


def _misfit(
    path: Path, index: int, episode: Episode, spec: ActionSpec | None, sizes: tuple[int, int] | None
) -> BadEpisode | None:
    """Return what is wrong with an episode beside the others, if anything."""
    if sizes is not None and (own := _sizes(episode)) != sizes:
        reason = (
            f"it has {own[0]} observation and {own[1]} action dimensions, those before it {sizes[0]} and "
            f"{sizes[1]}; use episodes of one task"
        )
        return BadEpisode(path, f"episode {index}", reason)
    if spec is not None and spec.dim == episode.actions.shape[1]:
        try:
            spec.check(episode.actions)
        except DataError as error:
            return BadEpisode(path, f"episode {index}", str(error), error.step)
    return None


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
