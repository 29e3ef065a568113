"""Whether an episode is a success, by one rule for rollouts, films, robots and data sets.

Sources say it step by step, and in two ways: at every step, or by a key that is there only when it is true.
An episode that reaches its goal and goes on may have left it again at its end. The rule says what counts:

- `ever`: the task was solved at any step of the episode (usual: benchmarks count so);
- `final`: it is solved at the last step.

An environment names its rule in `metadata["success_rule"]`; without one it is `ever`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from serfn.core.errors import ConfigError

SuccessRule = Literal["ever", "final"]
DEFAULT_RULE: SuccessRule = "ever"
RULE_KEY = "success_rule"
"""Where the metadata of an environment name its rule."""


def success_rule(metadata: Mapping[str, Any]) -> SuccessRule:
    """Return the rule that an environment's metadata name.

    Raises:
        ConfigError: It is none.
    """
    rule = metadata.get(RULE_KEY, DEFAULT_RULE)
    if rule not in get_args(SuccessRule):
        raise ConfigError(
            f"the metadata say {RULE_KEY} {rule!r}; choose one of {', '.join(get_args(SuccessRule))}"
        )
    return cast(SuccessRule, rule)


class Success:
    """Follows one episode.

    Args:
        rule: What counts.
        told: Whether the source is known to tell successes, so that silence means no success.
    """

    def __init__(self, rule: SuccessRule = DEFAULT_RULE, told: bool = False) -> None:
        self.rule: SuccessRule = rule
        self.told = told
        self._value = False

    def add(self, said: bool | None) -> None:
        """Take what one step said; None if it said nothing."""
        now = bool(said)
        self._value = now or (self._value and self.rule == "ever")
        self.told = self.told or said is not None

    def fail(self) -> None:
        """The episode is a failure, whatever was said, such as after a simulation that diverged."""
        self._value, self.told = False, True

    @property
    def value(self) -> bool | None:
        """Whether the episode is a success so far; None if nothing was ever said."""
        return self._value if self.told else None
