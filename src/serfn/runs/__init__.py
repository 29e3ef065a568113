"""A training run as a folder: presets, training, resuming, evaluating, logging."""
