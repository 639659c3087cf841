"""The demonstration: train, publish, serve, and watch one user's interests evolve and fade."""
