"""Settings: from the environment, checked, and then fixed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from server.limits import Limits
from server.retention import RetentionPeriods
from server.settings import Settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EBBING_{name.upper()}", raising=False)


def test_defaults_hold_without_any_setting() -> None:
    settings = Settings()
    assert settings.state == Path("ebbing.db")
    assert (settings.host, settings.port) == ("127.0.0.1", 50051)
    assert settings.event_weights == dict(DEFAULT_EVENT_WEIGHTS)


def test_the_environment_is_read_and_flags_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBBING_PORT", "1234")
    monkeypatch.setenv("EBBING_STATE", "/var/lib/ebbing.db")
    monkeypatch.setenv("EBBING_REFLECTION", "false")
    monkeypatch.setenv("EBBING_ALPHA", "2.5")
    monkeypatch.setenv("PORT", "99")
    settings = Settings()
    assert (settings.port, settings.alpha, settings.reflection) == (1234, 2.5, False)
    assert settings.state == Path("/var/lib/ebbing.db")
    assert Settings(port=5).port == 5


def test_weights_are_given_by_name_and_leave_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBBING_EVENT_WEIGHTS", '{"purchase": 4, "Dislike": 0.5}')
    weights = Settings().event_weights
    assert weights[EventType.PURCHASE] == 4.0
    assert weights[EventType.DISLIKE] == 0.5
    assert weights[EventType.VIEW] == DEFAULT_EVENT_WEIGHTS[EventType.VIEW]
    assert set(weights) == set(DEFAULT_EVENT_WEIGHTS)


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "70000"),
        ("port", "-1"),
        ("port", "ssh"),
        ("metrics_port", "65536"),
        ("release", "-1"),
        ("release", "newest"),
        ("triton_timeout_s", "0"),
        ("triton_timeout_s", "nan"),
        ("triton_start_timeout_s", "601"),
        ("reflection", "perhaps"),
        ("max_message_bytes", "1000"),
        ("default_deadline_s", "0"),
        ("default_deadline_s", "inf"),
        ("drain_s", "-1"),
        ("max_pending_events", "999"),
        ("group_commit_events", "0"),
        ("max_state_bytes", "-1"),
        ("max_interests_per_user", "7"),
        ("future_tolerance_s", "86401"),
        ("event_weights", '{"view": -1}'),
        ("event_weights", '{"view": 1001}'),
        ("event_weights", '{"view": NaN}'),
        ("event_weights", '{"nonsense": 1}'),
        ("event_weights", '{"view": "much"}'),
        ("event_weights", "[1]"),
        ("events_kept_s", "-1"),
        ("events_kept_s", "nan"),
        ("events_kept_s", "86400"),
        ("inactive_users_kept_s", "2591999"),
        ("deletions_kept_s", "31536000"),
        ("max_id_bytes", "129"),
        ("max_id_bytes", "15"),
        ("max_path_bytes", "257"),
        ("max_text_bytes", "1025"),
        ("max_interests_per_event", "0"),
        ("max_interests_per_event", "33"),
        ("max_batch_events", "1001"),
        ("max_batch_rows", "0"),
        ("watch", "sometimes"),
        ("watch_batch_users", "0"),
        ("watch_share", "0"),
        ("watch_share", "1.1"),
        ("watch_poll_s", "0"),
        ("watch_renewal_s", "0"),
        ("transitions_kept_s", "59"),
        ("alpha", "-0.1"),
        ("alpha", "nan"),
        ("forgetting_share", "1.1"),
        ("candidates", "513"),
    ],
)
def test_a_bad_value_names_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"EBBING_{name.upper()}", value)
    with pytest.raises(ValidationError) as error:
        Settings()
    assert {violation["loc"][0] for violation in error.value.errors()} == {name}


def test_weights_that_are_no_json_name_their_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBBING_EVENT_WEIGHTS", "view=2")
    with pytest.raises(SettingsError, match="event_weights"):
        Settings()


def test_nothing_is_forgotten_unless_told_to() -> None:
    assert Settings().retention_periods == RetentionPeriods(0.0, 0.0, 0.0)
    assert Settings().limits == Limits()


def test_a_deletion_is_remembered_for_as_long_as_events_are_taken() -> None:
    year_s = 365 * 86400.0
    kept = Settings(events_kept_s=year_s, deletions_kept_s=year_s + 60, inactive_users_kept_s=9e6)
    assert kept.retention_periods == RetentionPeriods(year_s, 9e6, year_s + 60)
    for deletions_s in (year_s, year_s + 59):  # an event may lie a minute ahead
        with pytest.raises(ValidationError, match="taken again"):
            Settings(events_kept_s=year_s, deletions_kept_s=deletions_s)


def test_limits_of_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBBING_MAX_ID_BYTES", "64")
    monkeypatch.setenv("EBBING_MAX_BATCH_EVENTS", "100")
    assert Settings().limits == Limits(id_bytes=64, events=100)
