"""Generated from ``protos/ebbing/v1``; regenerate with ``make protos``."""
