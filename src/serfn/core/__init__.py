"""Words that every other layer shares: errors, specifications, configuration, seeding, results."""
