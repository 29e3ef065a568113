"""Cutting tape with scissors: the scene, its physics and conditions, the task and its demonstrator."""
