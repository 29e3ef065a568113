"""The ORCA-hand family: one hand model, one plant description and one file per task."""
