"""A Triton backend that is copied into a backend directory and run there, never imported here."""
