"""Where a state is."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings import Settings
from server.state.open import location, open_store
from server.state.sqlite import SqliteStore
from tests.harness.state import records


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ebbing.db", Path("ebbing.db")),
        (Path("a/b.db"), Path("a/b.db")),
        ("sqlite:///var/lib/a%20b.db", Path("/var/lib/a b.db")),
        ("redis://store:6379/1?name=x", "redis://store:6379/1?name=x"),
        ("rediss+cluster://a:1,b:2", "rediss+cluster://a:1,b:2"),
    ],
)
def test_locations(given: str, meant: Path | str) -> None:
    assert location(given) == meant
    assert Settings(state=given).state == meant


@pytest.mark.parametrize("given", ["mysql://host/db", "sqlite://host/file", "sqlite:///", "://"])
def test_what_is_no_location(given: str) -> None:
    with pytest.raises(ValueError, match="name a file"):
        location(given)
    with pytest.raises(ValueError, match="name a file"):
        Settings(state=given)


def test_a_file_is_opened(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state.db", records())
    assert isinstance(store, SqliteStore)
    store.close()
