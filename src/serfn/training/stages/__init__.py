"""The four stages: imitation, critic warm-up, offline improvement, online improvement."""
