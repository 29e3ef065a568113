"""Which fields of a data set are read as what, chosen alike for every format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serfn.core.naming import part_names
from serfn.data.formats.outcome import Outcome, decide, outcome_notes
from serfn.data.mapping import Field, NameMapping, choose_images, choose_scalar, choose_vectors, listing


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Names that a format's own tools give to the parts; of single numbers, the first one there counts.

    `ordered` says whether the order of several observations is that of the environment they come from.
    """

    observations: Sequence[str]
    actions: Sequence[str]
    reward: Sequence[str] = ()
    success: Sequence[str] = ()
    terminated: Sequence[str] = ()
    truncated: Sequence[str] = ()
    intervention: Sequence[str] = ()
    ordered: bool = False


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which fields are read as what; see `serfn.data.mapping.NameMapping`.

    `notes` says what was guessed, what is not read, and what has to be assumed about the end of episodes.
    `guessed_order` names the parts of the observation where nobody said their order.
    """

    observations: tuple[Field, ...]
    actions: tuple[Field, ...]
    images: tuple[Field, ...]
    reward: Field | None
    success: Field | None
    terminated: Field | None
    truncated: Field | None
    intervention: Field | None
    assume_success: bool
    notes: tuple[str, ...]
    guessed_order: tuple[str, ...] = ()

    def names(self, fields: Sequence[Field], prefix: str = "") -> tuple[str, ...]:
        """Return a name for each dimension of fields side by side, without `prefix`; empty if unknown."""
        return part_names(
            (field.name.removeprefix(prefix).replace("/", "."), math.prod(field.shape), field.names)
            for field in fields
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """Everything that is read."""
        scalars = (self.reward, self.success, self.terminated, self.truncated, self.intervention)
        chosen = (*self.observations, *self.actions, *self.images, *scalars)
        return tuple(dict.fromkeys(field for field in chosen if field is not None))

    def outcome(self, steps: int, values: Callable[[Field], np.ndarray]) -> Outcome:
        """Return how an episode of `steps` steps ended.

        Args:
            steps: Number of steps.
            values: Returns the `[T]` numbers of a field.

        Raises:
            DataError: See `decide`.
        """

        def column(field: Field | None) -> np.ndarray | None:
            return None if field is None else values(field)

        return decide(
            steps,
            rewards=column(self.reward),
            success=column(self.success),
            terminated=column(self.terminated),
            truncated=column(self.truncated),
            assume_success=self.assume_success,
        )

    def interventions(self, values: Callable[[Field], np.ndarray]) -> np.ndarray | None:
        """Return `[T]` bool where a person acted, or None where the data set does not say."""
        return None if self.intervention is None else values(self.intervention) > 0


def choose_parts(fields: Mapping[str, Field], mapping: NameMapping, guess: Guess) -> Parts:
    """Choose what the mapping names, and guess what it leaves open.

    Raises:
        DataError: A name is unknown or of the wrong kind, observations or actions could not be guessed, or
            nothing tells the rewards; everything that was found is listed.
    """
    guesses: list[str] = []

    def scalar(part: str, wanted: str | None, names: Sequence[str]) -> Field | None:
        return choose_scalar(part, wanted, names, fields, guesses)

    observations = choose_vectors(
        "observations", mapping.observations, _there(guess.observations, fields), fields, guesses
    )
    actions = choose_vectors("actions", mapping.actions, _there(guess.actions, fields), fields, guesses)
    images = choose_images(mapping.images, fields, guesses)
    reward = scalar("reward", mapping.reward, guess.reward)
    success = scalar("success", mapping.success, guess.success)
    terminated = scalar("terminated", mapping.terminated, guess.terminated)
    truncated = scalar("truncated", mapping.truncated, guess.truncated)
    intervention = scalar("intervention", mapping.intervention, guess.intervention)
    chosen = (*observations, *actions, *images, reward, success, terminated, truncated, intervention)
    notes = []
    if guesses:
        notes.append(f"guessed {'; '.join(guesses)} (a mapping can name others)")
        if left := [field for field in fields.values() if field not in chosen]:
            notes.append(f"not read: {listing(left)}")
    notes += outcome_notes(
        reward, success, terminated, truncated, mapping.assume_success, listing(fields.values())
    )
    guessed = mapping.observations is None and not guess.ordered
    return Parts(
        observations=observations,
        actions=actions,
        images=images,
        reward=reward,
        success=success,
        terminated=terminated,
        truncated=truncated,
        intervention=intervention,
        assume_success=mapping.assume_success,
        notes=tuple(notes),
        guessed_order=tuple(field.name for field in observations)
        if guessed and len(observations) > 1
        else (),
    )


def _there(names: Sequence[str], fields: Mapping[str, Field]) -> list[str]:
    return [name for name in names if name in fields]
