"""Ebbing: gRPC serving for recommenders whose users' interests evolve and fade.

This package is what the gateway, the trainer and every client share: the generated stubs
(``ebbing.v1``), typed clients (``ebbing.client``), the model input layout and the pure
mathematics of interest and forgetting (``ebbing.interest``).
"""

__version__ = "0.1.0"
