"""What is held on a user: all of it is read out, none of it is left, and the receipt is true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ebbing.history import LAYOUT_DIGEST, item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import Manifest
from server.catalog import Catalog
from server.metrics import Metrics
from server.privacy import (
    Piece,
    Privacy,
    Receipt,
    RecentEngagement,
    StandingInterest,
    ToldInterests,
    trained_releases,
)
from server.state.alarms import Settlement, Transition
from server.state.sqlite import SqliteStore
from server.state.store import Deletion, Interaction, RelationRecord
from server.told import Told
from tests.suites.store_suite import DAY_US, START_US, deed, item, some_log, traces_in

PARAMETERS = ForgettingParameters.builtin()
NOW_US = START_US + 400 * DAY_US
TOLD = Told(START_US / 1e6, {"music": 2, "sports": 3})
BY_ANN = [
    *some_log(3, 200),
    deed("shown", item_id="i1", days=5, weight=0.0, event_type=11),
    deed("known", item_id="kept", days=399),
]
RELATIONS = [
    RelationRecord("ann", "bob", b"1"),
    RelationRecord("cleo", "ann", b"2"),
    RelationRecord("bob", "cleo", b"3"),
]


def release(repository: Path, number: int, created: str, **window: str) -> None:
    """A release as far as its declaration goes."""
    training = {"window": window} if window else {}
    manifest = Manifest(number, created, LAYOUT_DIGEST, {}, "", training, {}, {})
    folder = Manifest.folder(repository, number)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest.to_json())


def day(days: float) -> str:
    """So many days after ``START_US``, as manifests write it."""
    return datetime.fromtimestamp(START_US / 1e6 + days * 86400, UTC).isoformat()


@pytest.fixture
def privacy(store: SqliteStore, writer: Executor, metrics: Metrics, tmp_path: Path) -> Privacy:
    return Privacy(store, writer, Catalog(store, writer), metrics, tmp_path / "repository")


@pytest.fixture
def held(store: SqliteStore, tmp_path: Path) -> Iterator[SqliteStore]:
    """A store that holds something of each kind on ann, and on others."""
    store.write_items([item("kept")])
    store.append([*BY_ANN, deed("bob's", user_id="bob")])
    store.write_relations(RELATIONS)
    release(tmp_path / "repository", 1, day(380), first=day(-10), last=day(370))
    settlements = [
        Settlement(one.owner, one.version, TOLD.encode(), NOW_US + 5, [faded(one.user_id, n)])
        for n, one in enumerate(store.alarms.due(NOW_US, 10, 10))
    ]
    assert all(store.alarms.settle(settlements, NOW_US))
    return store


def faded(user_id: str, n: int = 0) -> Transition:
    return Transition(user_id, "music", 2, 3, START_US + n, 0.25, b"")


async def pieces_of(privacy: Privacy, user_id: str = "ann") -> list[Piece]:
    return [piece async for piece in privacy.pieces(user_id, NOW_US, PARAMETERS, 5.0)]


def of_kind(pieces: list[Piece], kind: type) -> list[Piece]:
    return [piece for piece in pieces if isinstance(piece, kind)]


async def test_everything_is_read_out(privacy: Privacy, held: SqliteStore) -> None:
    pieces = await pieces_of(privacy)
    events = sorted(BY_ANN, key=lambda one: (one.time_us, one.event_id))
    assert of_kind(pieces, Interaction) == events

    interests = of_kind(pieces, StandingInterest)
    traces = traces_in(held)
    assert traces is not None
    assert {one.profile.traces.names[one.number] for one in interests} == set(traces.names)
    assert {one.at_s for one in interests} == {NOW_US / 1e6}
    strength = [one.profile.vectors.blended[one.number] for one in interests]
    assert strength == sorted(strength, reverse=True)

    assert set(of_kind(pieces, RelationRecord)) == set(RELATIONS[:2])
    recent = of_kind(pieces, RecentEngagement)
    assert len(recent) == 50
    assert recent[-1] == RecentEngagement("kept", item_key("kept"), 1, NOW_US / 1e6 - 86400)
    assert {one.item_id for one in recent[:-1]} == {""}
    assert [t.user_id for t in of_kind(pieces, Transition)] == ["ann"]
    assert of_kind(pieces, ToldInterests) == [ToldInterests(TOLD, NOW_US + 5)]
    assert not of_kind(pieces, Receipt)


async def test_a_user_with_impressions_or_relations_only(
    privacy: Privacy, held: SqliteStore
) -> None:
    held.append([deed("seen", user_id="dora", weight=0.0)])
    assert [one.event_id for one in of_kind(await pieces_of(privacy, "dora"), Interaction)] == [
        "seen"
    ]
    assert set(await pieces_of(privacy, "cleo")) == set(RELATIONS[1:])
    assert await pieces_of(privacy, "nobody") == []


async def test_an_event_slightly_ahead_of_the_clock(privacy: Privacy, store: SqliteStore) -> None:
    store.append([deed("ahead", days=400.0001)])
    (interest,) = of_kind(await pieces_of(privacy), StandingInterest)
    assert interest.at_s == START_US / 1e6 + 400.0001 * 86400


async def test_others_have_their_turn_while_a_long_log_is_read(
    privacy: Privacy, held: SqliteStore
) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await pieces_of(privacy)
    task.cancel()
    assert turns >= len(BY_ANN) // 64


async def test_nothing_is_read_before_it_is_asked_for(
    privacy: Privacy, held: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    log = held.events_of("ann")

    def counted(user_id: str) -> Iterator[Interaction]:
        nonlocal read
        for one in log:
            read += 1
            yield one

    monkeypatch.setattr(held, "events_of", counted)
    pieces = privacy.pieces("ann", NOW_US, PARAMETERS, 5.0)
    for taken in range(1, 100):
        await anext(pieces)
        assert read == taken


async def test_nothing_is_left_and_the_receipt_says_so(
    privacy: Privacy, held: SqliteStore, sample
) -> None:
    receipt = await privacy.delete("ann", "receipt-1", NOW_US)
    times = [one.time_us for one in BY_ANN]
    assert receipt == Receipt(
        Deletion("receipt-1", NOW_US, len(BY_ANN), min(times), max(times)), (1,)
    )
    assert await pieces_of(privacy) == [receipt]
    assert of_kind(await pieces_of(privacy, "cleo"), RelationRecord) == [RELATIONS[2]]
    assert {t.user_id for _, t in held.alarms.transitions(0, 100)} == {"bob"}
    assert await privacy.delete("ann", "receipt-2", NOW_US + 9) == receipt
    assert sample("ebbing_state_operation_duration_seconds_count", operation="delete") == 2


async def test_a_user_never_known_is_deleted_all_the_same(privacy: Privacy) -> None:
    receipt = await privacy.delete("nobody", "receipt-1", NOW_US)
    assert receipt == Receipt(Deletion("receipt-1", NOW_US, 0, 0, 0), ())
    assert await pieces_of(privacy, "nobody") == [receipt]


async def test_a_user_who_comes_back_has_the_receipt_beside_the_new(
    privacy: Privacy, held: SqliteStore
) -> None:
    receipt = await privacy.delete("ann", "receipt-1", NOW_US)
    held.append([deed("again", days=401), deed("stale", days=399)])
    pieces = await pieces_of(privacy)
    assert [one.event_id for one in of_kind(pieces, Interaction)] == ["again"]
    assert pieces[-1] == receipt
    second = await privacy.delete("ann", "receipt-2", NOW_US + 2 * DAY_US)
    assert (second.deletion.receipt_id, second.deletion.events) == ("receipt-2", 1)
    assert second.trained_releases == ()


DELETED = Deletion("r", START_US + 100 * DAY_US, 3, START_US, START_US + 50 * DAY_US)


@pytest.mark.parametrize(
    ("created", "first", "last", "named"),
    [
        (day(60), day(-10), day(60), True),
        (day(99), day(20), day(30), True),
        (day(60), day(50), day(60), True),
        (day(60), day(-10), day(0), True),
        (day(60), day(-10), day(-1), False),
        (day(99), day(51), day(99), False),
        (day(101), day(-10), day(60), False),
        (day(60).removesuffix("+00:00"), day(-10), day(60), True),
        ("lately", day(-10), day(60), True),
        (day(60), "", day(-1), True),
    ],
)
def test_releases_that_may_have_been_trained_on_it(
    tmp_path: Path, created: str, first: str, last: str, named: bool
) -> None:
    release(tmp_path, 4, created, first=first, last=last)
    assert trained_releases(tmp_path, DELETED) == ([4] if named else [])


def test_releases_that_say_nothing_may_have_been(tmp_path: Path) -> None:
    release(tmp_path, 2, day(60), first=day(-10), last=day(-5))
    release(tmp_path, 11, day(60))
    release(tmp_path, 3, day(60), first=day(0), last=day(1))
    (Manifest.folder(tmp_path, 3) / "manifest.json").write_text(json.dumps({"release": 3}))
    assert trained_releases(tmp_path, DELETED) == [3, 11]
    nothing = DELETED._replace(events=0, first_us=0, last_us=0)
    assert trained_releases(tmp_path, nothing) == []
    assert trained_releases(tmp_path / "nowhere", DELETED) == []
