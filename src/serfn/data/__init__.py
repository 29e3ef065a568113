"""Recorded experience: episodes, replay of chunk windows, demonstrations and their files."""
