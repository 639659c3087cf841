"""Event logs: reading them, simulating them, replaying them point in time."""
