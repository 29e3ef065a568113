"""Two small environments for every test of this folder."""

from tests.counter import random_actor, registered_environments
from tests.toy import demos, make_config, toy_environment

__all__ = ["demos", "make_config", "random_actor", "registered_environments", "toy_environment"]
