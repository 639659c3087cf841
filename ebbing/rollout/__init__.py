"""``ebbing rollout``: which release serves whom, seen and changed from a terminal."""
