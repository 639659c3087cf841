from __future__ import annotations

import pytest

from tests.harness.rankings import log_of_rows
from trainer.data.log import EventLog


@pytest.fixture
def log() -> EventLog:
    """Four users: a plain test, a repeated item, an item nobody trained on, a single event."""
    return log_of_rows([(0, 0), (0, 1), (0, 2), (1, 2), (1, 0), (1, 2), (2, 0), (2, 5), (3, 3)])
