"""Observation encoders: what a policy makes of an observation before anything else reads it."""
