"""Robots, teleoperators and judges by name, ours and those of other packages."""
