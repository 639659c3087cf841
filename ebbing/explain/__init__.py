"""``ebbing explain``: why a user's interests stand where they do, and how they went and will go."""
