"""Parts for serfn from another package."""
