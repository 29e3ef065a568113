"""Robots behind the contract: the ORCA hand, simulations, LeRobot's robots, and one for tests."""
