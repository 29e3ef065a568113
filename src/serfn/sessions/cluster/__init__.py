"""Several robots and one learner on a Ray cluster."""
