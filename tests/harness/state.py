"""Parts of the state as tests set them up."""

from __future__ import annotations

from server.state.records import Records
from server.state.user_state import Bounds
from server.state.vault import PlainVault, Vault

__all__ = ["records"]


def records(max_interests: int = 64, max_bytes: int = 2**20, vault: Vault | None = None) -> Records:
    """Records as a store takes them."""
    return Records(vault or PlainVault(), Bounds(max_interests, max_bytes))
