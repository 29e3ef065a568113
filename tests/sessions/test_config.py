"""The options of a session: how many, what they mean, and their former names."""

from __future__ import annotations

import pytest

from serfn.core.config import from_dict
from serfn.core.errors import ConfigError
from serfn.core.options import count_options, option_groups
from serfn.sessions.config import RobotRunConfig

MOST = 30


def test_a_session_has_few_options_and_each_is_explained() -> None:
    groups = option_groups(RobotRunConfig)
    assert count_options(groups) <= MOST
    assert not [option for group in groups for option in group.options if not option.meaning]


def test_a_former_name_is_refused_with_the_present_one() -> None:
    with pytest.raises(ConfigError, match=r"is now 'promotion\.max_kl'"):
        from_dict(RobotRunConfig, {"promotion": {"max_divergence": 1.0}})
