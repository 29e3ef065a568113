"""A small environment and actor with known behaviour for every test of this folder."""

from tests.counter import random_actor, registered_environments

__all__ = ["random_actor", "registered_environments"]
