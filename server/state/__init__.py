"""The state store: one port, and the engines behind it."""
