"""Event types: their names in logs, their numbers on the wire, their weights."""

from __future__ import annotations

import pytest

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType, event_type_from_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("purchase", EventType.PURCHASE),
        ("VIEW", EventType.VIEW),
        ("Click", EventType.CLICK),
        ("review", EventType.RATING),
        ("rating", EventType.RATING),
        ("checkin", EventType.CHECK_IN),
        ("check-in", EventType.CHECK_IN),
        (" add to cart ", EventType.ADD_TO_CART),
        ("add-to-cart", EventType.ADD_TO_CART),
        ("cart", EventType.ADD_TO_CART),
    ],
)
def test_names_as_logs_spell_them(name: str, expected: EventType) -> None:
    assert event_type_from_name(name) is expected


@pytest.mark.parametrize("kind", [kind for kind in EventType if kind])
def test_every_type_reads_back_by_its_name(kind: EventType) -> None:
    assert event_type_from_name(kind.name.lower()) is kind


@pytest.mark.parametrize("name", ["", "unspecified", "buy", "1"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="use one of view, click, search") as caught:
        event_type_from_name(name)
    assert repr(name) in str(caught.value)


def test_every_type_has_a_weight() -> None:
    assert set(DEFAULT_EVENT_WEIGHTS) == set(EventType) - {EventType.UNSPECIFIED}
    silent = {kind for kind, weight in DEFAULT_EVENT_WEIGHTS.items() if weight == 0}
    assert silent == {EventType.DISLIKE, EventType.IMPRESSION}


def test_the_weights_are_read_only() -> None:
    with pytest.raises(TypeError):
        DEFAULT_EVENT_WEIGHTS[EventType.VIEW] = 2.0  # type: ignore[index]
