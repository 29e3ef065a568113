"""Which names of a foreign data set mean what: an explicit configuration, and guesses that are told.

Every importer asks for the same parts (observations, actions, images, rewards, outcome, interventions) and
chooses among the fields that it found. What the configuration leaves open is guessed from the names that the
format's own tools write; each guess becomes a note for the user. A name that is not there is an error that
lists everything that was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serfn.core.errors import ConfigError, DataError
from serfn.core.words import did_you_mean

_NUMBERS = ("bool", "int", "uint", "float")


@dataclass(frozen=True)
class NameMapping:
    """Names of a data set's fields; None lets the importer guess, and say what it guessed.

    Args:
        observations: Vectors that make up the observation, concatenated in this order.
        actions: Vectors that make up the action, concatenated in this order.
        images: Cameras to read; an empty list reads none.
        reward: Number per step.
        success: Flag per step; the episode succeeded if any is set.
        terminated: Flag per step; the one of the last step says whether the task ended by itself.
        truncated: Flag per step; the one of the last step says whether the recording was cut.
        intervention: Flag per step, set where a person acted.
        subset: Name of a list of episodes inside the data set (robomimic's masks); None reads all.
        assume_success: Take every episode as a success where the data do not say.

    Raises:
        ConfigError: No observations or actions are named, or a name is given twice.
    """

    observations: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    reward: str | None = None
    success: str | None = None
    terminated: str | None = None
    truncated: str | None = None
    intervention: str | None = None
    subset: str | None = None
    assume_success: bool = False

    def __post_init__(self) -> None:
        for part in ("observations", "actions", "images"):
            names = getattr(self, part)
            if names is None:
                continue
            if not names and part != "images":
                raise ConfigError(f"{part} names no field; name one or more, or leave it out")
            if len(set(names)) != len(names):
                raise ConfigError(f"{part} names a field twice: {', '.join(names)}; name each once")


GUESS_ALL = NameMapping()
"""Everything is guessed."""


@dataclass(frozen=True)
class Field:
    """One array of a data set.

    Args:
        name: Its name there.
        dtype: Name of the number type, or `image`, `video`, `string`.
        shape: Shape of one step's value.
        names: Names of its numbers, where the data set says.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether this is a camera: a compressed image or video, or bytes `[height, width, channels]`."""
        return self.dtype in ("image", "video") or (self.dtype == "uint8" and len(self.shape) == 3)

    @property
    def is_vector(self) -> bool:
        """Whether these are numbers that can be part of an observation or an action."""
        return self.dtype.startswith(_NUMBERS) and not self.is_image

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


def listing(fields: Iterable[Field]) -> str:
    """Return the fields as one phrase for messages."""
    return ", ".join(map(str, fields)) or "nothing"


def choose_vectors(
    part: str,
    wanted: Sequence[str] | None,
    guess: Sequence[str],
    fields: Mapping[str, Field],
    guesses: list[str],
) -> tuple[Field, ...]:
    """Return the vectors of a part, those asked for, or else the guess, which is added to `guesses`.

    Raises:
        DataError: A name is unknown, is no vector of numbers, or nothing could be guessed.
    """
    chosen = tuple(_known(name, part, fields) for name in (guess if wanted is None else wanted))
    for field in chosen:
        if not field.is_vector:
            raise DataError(f"{part}: '{field}' is no vector of numbers; found {listing(fields.values())}")
    if not chosen:
        raise DataError(f"found nothing to take as {part}; name it in the mapping; {_found(fields)}")
    if wanted is None:
        guesses.append(f"{part} = {listing(chosen)}")
    return chosen


def choose_images(
    wanted: Sequence[str] | None, fields: Mapping[str, Field], guesses: list[str]
) -> tuple[Field, ...]:
    """Return the cameras asked for, or else all of them, which is added to `guesses`.

    Raises:
        DataError: A name is unknown or no camera.
    """
    if wanted is None:
        chosen = tuple(field for field in fields.values() if field.is_image)
        if chosen:
            guesses.append(f"images = {listing(chosen)}")
        return chosen
    chosen = tuple(_known(name, "images", fields) for name in wanted)
    for field in chosen:
        if not field.is_image:
            raise DataError(f"images: '{field}' is no image; {_found(fields)}")
    return chosen


def choose_scalar(
    part: str, wanted: str | None, guess: Sequence[str], fields: Mapping[str, Field], guesses: list[str]
) -> Field | None:
    """Return the number per step asked for, or else the first guess that is there, or None.

    Raises:
        DataError: The name asked for is unknown, or the field has more than one number per step.
    """
    name = wanted if wanted is not None else next((name for name in guess if name in fields), None)
    if name is None:
        return None
    field = _known(name, part, fields)
    if not field.is_vector or field.shape not in ((), (1,)):
        raise DataError(f"{part}: '{field}' is not one number per step; {_found(fields)}")
    if wanted is None:
        guesses.append(f"{part} = {field}")
    return field


def _known(name: str, part: str, fields: Mapping[str, Field]) -> Field:
    if name not in fields:
        raise DataError(f"{part}: there is no '{name}'{did_you_mean(name, fields)}; {_found(fields)}")
    return fields[name]


def _found(fields: Mapping[str, Field]) -> str:
    return f"found {listing(fields.values())}"
