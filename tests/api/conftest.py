"""The small environment of `tests.toy` for every test of this folder."""

from tests.toy import demos, make_config, toy_environment

__all__ = ["demos", "make_config", "toy_environment"]
