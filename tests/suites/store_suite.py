"""What every state store does: a backend inherits ``StoreSuite`` and says how it is opened."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest

from ebbing.history import HISTORY_LENGTH, item_key
from ebbing.interest.trace import TraceTable
from server.errors import ItemKeyCollision
from server.state.alarms import Settlement, Span, Transition
from server.state.store import (
    HEAT_HALF_LIFE_S,
    Deletion,
    History,
    Interaction,
    InterestRecord,
    Interests,
    ItemRecord,
    RelationRecord,
    Rollout,
    Store,
    WriteOutcome,
)
from server.state.user_state import decode

__all__ = [
    "DAY_US",
    "START_US",
    "OpenStore",
    "StoreSuite",
    "assert_same_traces",
    "deed",
    "history_in",
    "item",
    "some_log",
    "traces_in",
    "traces_of",
]

OpenStore = Callable[..., Store]
"""Opens the store under test, the same one each time; ``max_interests`` and ``max_bytes`` of what
is kept of a user may be given, and the ``vault``."""

ACCEPTED, DUPLICATE, ID_REUSED, USER_DELETED = WriteOutcome
DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
"""A Tuesday in November 2023, microseconds since the epoch."""
FOR_EVER = 2**62


def deed(
    event_id: str,
    user_id: str = "ann",
    item_id: str = "",
    days: float = 0.0,
    interests: Interests = (("sports", 1.0),),
    weight: float = 1.0,
    event_type: int = 1,
    body: bytes | None = None,
) -> Interaction:
    """An interaction so many days after ``START_US``."""
    return Interaction(
        event_id=event_id,
        user_id=user_id,
        item_key=item_key(item_id) if item_id else 0,
        event_type=event_type,
        time_us=START_US + round(days * DAY_US),
        weight=weight,
        interests=interests,
        body=event_id.encode() if body is None else body,
    )


def item(item_id: str, interests: Interests = (("sports", 1.0),), body: bytes = b"") -> ItemRecord:
    """An item that may be recommended at any time."""
    return ItemRecord(item_id, item_key(item_id), interests, 0, 0, body)


def assert_same_traces(one: TraceTable | None, other: TraceTable | None) -> None:
    """The same traces to 1e-9, whatever the order in which interests first appeared."""
    assert one is not None
    assert other is not None
    assert set(one.rows) == set(other.rows)
    order = [other.index[name] for name in one.rows]
    np.testing.assert_array_equal(one.times, other.times[order])
    np.testing.assert_allclose(one.open_sums, other.open_sums[order], rtol=1e-9)
    np.testing.assert_allclose(one.closed_sums, other.closed_sums[order], rtol=1e-9, atol=1e-300)


def traces_of(log: Iterable[Interaction]) -> TraceTable:
    """The definition: the traces of a set of interactions."""
    return TraceTable.from_events((i.time_s, i.weight, i.interests) for i in log if i.weight)


def traces_in(store: Store, user_id: str = "ann") -> TraceTable | None:
    """The traces a store has of a user."""
    (state,) = store.states([user_id])
    return state and state.traces


def history_in(store: Store, user_id: str = "ann") -> History:
    """The history a store has of a user it knows."""
    (state,) = store.states([user_id])
    assert state is not None
    return state.history


def some_log(seed: int, size: int) -> list[Interaction]:
    """Interactions of one user over a year, some without a trace, some at one moment."""
    chance = random.Random(seed)
    paths = ["sports", "sports/football", "music", "music/jazz", "küche"]
    return [
        deed(
            f"e{i}",
            item_id=f"i{chance.randrange(9)}",
            days=chance.choice([chance.uniform(0, 365), 100.0, 101.5]),
            interests=tuple(
                (path, chance.uniform(0.1, 3.0))
                for path in chance.sample(paths, chance.randint(0, 3))
            ),
            weight=chance.choice([0.0, 0.5, 1.0, 4.0]),
        )
        for i in range(size)
    ]


def solved(store: Store, due_us: int | None = None, *transitions: Transition) -> None:
    """Settle whatever is to be solved at ``START_US``, all with the same answer."""
    settlements = [
        Settlement(one.owner, one.version, b"told", due_us, transitions)
        for one in store.alarms.due(START_US, 1000, 1000)
    ]
    assert all(store.alarms.settle(settlements, START_US))


def faded(user_id: str = "ann", interest: str = "sports", time_us: int = START_US) -> Transition:
    """A transition."""
    return Transition(user_id, interest, 2, 3, time_us, 0.25, b"\x00why")


class StoreSuite:
    """The behaviour of ``server.state.store.Store``."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Given by the backend: opens its store, and gives all it opened back afterwards."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Store:
        return open_store()

    # Events: exactly once.

    def test_an_event_counts_once(self, store: Store) -> None:
        assert store.append([deed("a")]) == [ACCEPTED]
        assert store.append([deed("a"), deed("b", days=1), deed("a")]) == [
            DUPLICATE,
            ACCEPTED,
            DUPLICATE,
        ]
        assert_same_traces(traces_in(store), traces_of([deed("a"), deed("b", days=1)]))

    def test_an_id_with_another_body_is_refused_and_leaves_the_first(self, store: Store) -> None:
        assert store.append([deed("a", item_id="i")]) == [ACCEPTED]
        other = deed("a", item_id="j", days=1, interests=(("music", 1.0),), body=b"other")
        assert store.append([other]) == [ID_REUSED]
        assert_same_traces(traces_in(store), traces_of([deed("a")]))
        assert [i.body for i in store.interactions("ann", FOR_EVER)] == [b"a"]
        assert store.popular(10) == [item_key("i")]

    def test_an_id_with_another_body_within_one_append(self, store: Store) -> None:
        outcomes = store.append([deed("a"), deed("a", body=b"other"), deed("a"), deed("b")])
        assert outcomes == [ACCEPTED, ID_REUSED, DUPLICATE, ACCEPTED]
        assert [i.event_id for i in store.interactions("ann", FOR_EVER)] == ["a", "b"]

    def test_an_id_is_one_among_all_users(self, store: Store) -> None:
        store.append([deed("a")])
        assert store.append([deed("a", user_id="bob", body=b"bob's")]) == [ID_REUSED]
        assert traces_in(store, "bob") is None

    def test_appending_nothing(self, store: Store) -> None:
        assert store.append([]) == []

    def test_a_failure_midway_leaves_nothing(self, store: Store) -> None:
        store.append([deed("first", item_id="i")])
        with pytest.raises(ValueError, match="finite"):
            store.append([deed("good", item_id="j", days=1), deed("bad", weight=float("inf"))])
        assert_same_traces(traces_in(store), traces_of([deed("first")]))
        assert [i.event_id for i in store.interactions("ann", FOR_EVER)] == ["first"]
        assert store.popular(10) == [item_key("i")]
        # Nothing of the failure stays behind: the id is free, and the store goes on.
        assert store.append([deed("good", days=1)]) == [ACCEPTED]

    # State: a function of the set of events.

    @pytest.mark.parametrize("seed", range(4))
    def test_state_is_that_of_the_log_in_whatever_order(
        self, open_store: OpenStore, seed: int
    ) -> None:
        store, log = open_store(), some_log(seed, 60)
        shuffled = random.Random(seed).sample(log, len(log))
        for start in range(0, len(shuffled), 7):
            store.append(shuffled[start : start + 7])
        assert_same_traces(traces_in(store), traces_of(log))
        known = list(store.interactions("ann", FOR_EVER))
        wanted = [i for i in log if i.weight]
        assert known == sorted(wanted, key=lambda i: (i.time_us, i.event_id))

    def test_an_event_without_weight_is_logged_and_leaves_no_trace(self, store: Store) -> None:
        shown = deed("a", item_id="i", weight=0.0)
        assert store.append([shown]) == [ACCEPTED]
        traces = traces_in(store)
        assert traces is not None
        assert traces.names == ()
        assert traces.event_count == 0
        assert store.append([shown]) == [DUPLICATE]
        assert history_in(store).keys.size == 0
        assert list(store.interactions("ann", FOR_EVER)) == []
        assert store.first_engagement_us("ann") is None
        assert store.popular(10) == []

    def test_users_are_independent(self, store: Store) -> None:
        ann, bob = deed("a", item_id="i"), deed("b", "bob", "j", 2, (("music", 1.0),))
        store.append([ann, bob])
        assert_same_traces(traces_in(store), traces_of([ann]))
        assert_same_traces(traces_in(store, "bob"), traces_of([bob]))
        assert history_in(store).keys.tolist() == [item_key("i")]
        assert list(store.interactions("bob", FOR_EVER)) == [bob]
        assert store.first_engagement_us("bob") == bob.time_us

    def test_an_unknown_user(self, store: Store) -> None:
        assert traces_in(store, "nobody") is None
        assert list(store.interactions("nobody", FOR_EVER)) == []
        assert store.first_engagement_us("nobody") is None

    def test_the_cap_keeps_the_strongest_long_term_interests(self, open_store: OpenStore) -> None:
        store = open_store(max_interests=3)
        often = [deed(f"o{i}", days=i, interests=(("often", 1.0),)) for i in range(20)]
        # Of these the newer is the stronger; in the long term none is as strong as what came
        # often, though half a year has passed since.
        once = [deed(f"x{i}", days=200 + i, interests=((f"once{i}", 1.0),)) for i in range(10)]
        for one in (*often, *once):
            store.append([one])
        traces = traces_in(store)
        assert traces is not None
        assert set(traces.names) == {"often", "once8", "once9"}
        assert traces.event_count == 30
        assert len(list(store.interactions("ann", FOR_EVER))) == 30

    # Reading the log.

    @pytest.mark.parametrize("together", [True, False])
    def test_history_is_the_newest_by_time_then_id(self, store: Store, together: bool) -> None:
        log = [
            deed("b", item_id="tie-b", days=2, event_type=5),
            deed("B", item_id="tie-B", days=2),
            deed("a", item_id="tie-a", days=2),
            deed("late", item_id="first", days=0),
            deed("z", item_id="last", days=3),
            deed("none", days=2.5),
            deed("shown", item_id="shown", days=2.5, weight=0.0),
        ]
        for group in [log] if together else [[one] for one in log]:
            store.append(group)
        known = {i.item_key: i.event_id for i in log}
        history = history_in(store)
        assert [known[key] for key in history.keys.tolist()] == ["late", "B", "a", "b", "z"]
        assert history.types.tolist() == [1, 1, 1, 5, 1]

    @pytest.mark.parametrize("seed", range(3))
    def test_history_is_that_of_the_log_in_whatever_order(self, store: Store, seed: int) -> None:
        chance = random.Random(seed)
        log = [
            deed(f"e{n}", item_id=f"i{n}", days=chance.randrange(60), event_type=1 + n % 9)
            for n in range(130)
        ]
        while log_left := log if not store.size().events else log[store.size().events :]:
            store.append(log_left[: chance.choice([1, 1, 5, 40])])
        newest = sorted(log, key=lambda one: (one.time_us, one.event_id))[-HISTORY_LENGTH:]
        history = history_in(store)
        assert history.keys.tolist() == [one.item_key for one in newest]
        assert history.times.tolist() == [one.time_s for one in newest]
        assert history.types.tolist() == [one.event_type for one in newest]

    def test_history_has_times_and_types(self, store: Store) -> None:
        store.append([deed("a", item_id="i", event_type=5), deed("b", item_id="j", days=0.5)])
        history = history_in(store)
        assert (history.keys.dtype, history.types.dtype) == (np.dtype("i8"), np.dtype("i4"))
        assert history.times.tolist() == [1_700_000_000.0, 1_700_043_200.0]
        assert history.types.tolist() == [5, 1]

    def test_interactions_read_back_whole_up_to_a_moment(self, store: Store) -> None:
        first = deed("a", item_id="i", interests=(("sports", 0.25), ("küche", 3.0)), weight=2.5)
        second = deed("b", days=1.0, interests=(), body=b"\x00\xff")
        store.append([second, first])
        assert list(store.interactions("ann", FOR_EVER)) == [first, second]
        assert list(store.interactions("ann", second.time_us - 1)) == [first]

    def test_the_log_is_read_on_and_on(self, store: Store) -> None:
        log = [deed(f"{n:04}", days=n // 3) for n in range(1100)]
        store.append(log)
        assert list(store.interactions("ann", FOR_EVER)) == log
        assert list(store.interactions("ann", log[600].time_us)) == log[:603]
        for newest in (0, 1, 512, 600, 1024, 1100, 2000):
            kept = log[max(0, 1100 - newest) :]
            assert list(store.interactions("ann", FOR_EVER, newest)) == kept
        assert list(store.interactions("ann", log[600].time_us, 5)) == log[598:603]

    def test_reading_the_log_hides_nothing_written_meanwhile(self, store: Store) -> None:
        store.append([deed(f"{n:04}") for n in range(1100)])
        reading = iter(store.interactions("ann", FOR_EVER))
        next(reading)
        store.append([deed("later", user_id="bob")])
        assert traces_in(store, "bob") is not None

    def test_asides_between_two_moments(self, store: Store) -> None:
        shown = [deed(f"shown{n}", item_id=f"i{n}", days=n, weight=0.0) for n in (3, 1, 2, 5, 4)]
        store.append([*shown, deed("engaged", days=2.5), deed("other", "bob", days=2, weight=0.0)])

        def between(first: float, last: float) -> list[str]:
            moments = (START_US + round(days * DAY_US) for days in (first, last))
            return [one.event_id for one in store.asides("ann", *moments)]

        assert between(2, 4) == ["shown2", "shown3", "shown4"]
        assert between(2.1, 3.9) == ["shown3"]
        assert between(0, 9) == [f"shown{n}" for n in range(1, 6)]
        assert between(6, 9) == between(3, 2) == []
        assert list(store.asides("nobody", 0, 2**60)) == []

    def test_many_asides_are_read_page_by_page(self, store: Store) -> None:
        shown = [deed(f"s{n:04d}", item_id="i", days=n // 3, weight=0.0) for n in range(1300)]
        store.append(shown)
        read = store.asides("ann", START_US + 100 * DAY_US, START_US + 399 * DAY_US)
        assert [one.event_id for one in read] == [one.event_id for one in shown[300:1200]]

    def test_first_engagement_moves_back_with_a_late_event(self, store: Store) -> None:
        store.append([deed("b", days=5)])
        assert store.first_engagement_us("ann") == START_US + 5 * DAY_US
        store.append([deed("a", days=1), deed("shown", days=0, weight=0.0)])
        assert store.first_engagement_us("ann") == START_US + DAY_US

    # What is popular.

    def test_popular_weighs_engagements_by_how_recent_they_are(self, store: Store) -> None:
        half_life_days = HEAT_HALF_LIFE_S / 86400
        store.append([deed(f"old{i}", item_id="old") for i in range(3)])
        assert store.append([deed("new", item_id="new", days=2 * half_life_days)]) == [ACCEPTED]
        # Three events two half-lives ago are worth 0.75 fresh ones.
        assert store.popular(10) == [item_key("new"), item_key("old")]
        store.append([deed("old3", item_id="old"), deed("old4", item_id="old")])
        assert store.popular(10) == [item_key("old"), item_key("new")]
        assert store.popular(1) == [item_key("old")]

    def test_popular_counts_late_events_by_their_own_time(self, store: Store) -> None:
        store.append([deed("now", item_id="now", days=300)])
        store.append([deed(f"late{i}", "bob", "late", weight=100.0) for i in range(9)])
        assert store.popular(10) == [item_key("now"), item_key("late")]

    def test_popular_does_not_depend_on_the_order_of_events(self, open_store: OpenStore) -> None:
        heats: dict[str, float] = {}
        log = [i for i in some_log(11, 80) if i.weight]
        for one in log:
            heat = one.weight * 2.0 ** ((one.time_us - START_US) / 1e6 / HEAT_HALF_LIFE_S)
            heats[one.item_key] = heats.get(one.item_key, 0.0) + heat
        store = open_store()
        for start in range(0, len(log), 9):
            store.append(log[::-1][start : start + 9])
        assert store.popular(100) == sorted(heats, key=lambda key: -heats[key])

    def test_duplicates_make_nothing_popular(self, store: Store) -> None:
        store.append([deed("a", item_id="i"), deed("b", item_id="j"), deed("c", item_id="j")])
        store.append([deed("a", item_id="i")] * 5)
        assert store.popular(10) == [item_key("j"), item_key("i")]

    # The catalogue.

    def test_items_round_trip(self, store: Store) -> None:
        full = ItemRecord(
            "ü/1", item_key("ü/1"), (("a/b", 0.5), ("c", 2.0)), 10, START_US, b"\x00body"
        )
        store.write_items([full, item("plain", ())])
        assert store.items([full.item_key]) == [full]
        assert store.list_items("", 10) == [item("plain", ()), full]
        assert store.items([]) == []
        both = store.items([item_key("plain"), full.item_key, item_key("unknown")])
        assert {i.item_id for i in both} == {"plain", "ü/1"}

    def test_writing_an_item_again_replaces_it(self, store: Store) -> None:
        store.write_items([item("i", body=b"old")])
        store.write_items([item("i", (("music", 1.0),), b"new")])
        assert store.list_items("", 10) == [item("i", (("music", 1.0),), b"new")]

    def test_deleting_an_item(self, store: Store) -> None:
        store.write_items([item("i"), item("j")])
        store.delete_item("i")
        store.delete_item("never there")
        assert store.list_items("", 10) == [item("j")]
        assert store.items([item_key("i")]) == []

    def test_items_are_written_all_or_none(self, store: Store) -> None:
        store.write_items([item("i", body=b"old")])
        before = store.catalogue_version()
        collision = ItemRecord("other", item_key("i"), (), 0, 0, b"")
        with pytest.raises(ItemKeyCollision):
            store.write_items([item("new"), item("i", body=b"new"), collision])
        assert store.list_items("", 10) == [item("i", body=b"old")]
        assert store.catalogue_version() == before

    def test_the_catalogue_version_changes_with_items_only(self, store: Store) -> None:
        versions = [store.catalogue_version()]
        changes: Sequence[Callable[[], object]] = (
            lambda: store.write_items([item("i")]),
            lambda: store.write_items([item("i", body=b"new")]),
            lambda: store.delete_item("i"),
        )
        for change in changes:
            change()
            versions.append(store.catalogue_version())
        assert len(set(versions)) == 4
        store.append([deed("a", item_id="i")])
        store.write_interests([InterestRecord("sports", b"")])
        store.write_relations([RelationRecord("ann", "bob", b"")])
        assert store.catalogue_version() == versions[-1]

    def test_paging_meets_every_item_once(self, store: Store) -> None:
        store.write_items([item(f"i{n:03}") for n in random.Random(1).sample(range(25), 25)])
        met, after = [], ""
        while page := store.list_items(after, 10):
            met += [i.item_id for i in page]
            after = page[-1].item_id
        assert met == [f"i{n:03}" for n in range(25)]

    def test_interests_round_trip_and_page(self, store: Store) -> None:
        records = [InterestRecord(path, path.encode()) for path in ("a", "a/b", "b", "ü")]
        store.write_interests(records[::-1])
        assert store.list_interests("", 10) == records
        assert store.list_interests("a", 2) == records[1:3]
        store.write_interests([InterestRecord("a", b"new")])
        assert store.list_interests("", 1) == [InterestRecord("a", b"new")]
        assert store.list_interests("ü", 10) == []

    def test_relations_round_trip_and_page(self, store: Store) -> None:
        anns = [RelationRecord("ann", other, other.encode()) for other in ("bob", "cyd", "dan")]
        store.write_relations([*anns[::-1], RelationRecord("bob", "ann", b"back")])
        found = store.list_relations("ann", "", 10)
        assert sorted(found) == anns  # in an order of the vault's
        assert store.list_relations("ann", found[0].other_user_id, 1) == found[1:2]
        assert store.list_relations("bob", "", 10) == [RelationRecord("bob", "ann", b"back")]
        store.write_relations([RelationRecord("ann", "bob", b"new")])
        assert sorted(store.list_relations("ann", "", 10))[0] == RelationRecord(
            "ann", "bob", b"new"
        )
        assert store.list_relations("nobody", "", 10) == []

    # Alarms and transitions.

    def test_an_engagement_touches_its_user(self, store: Store) -> None:
        assert store.alarms.due(START_US, 10, 10) == []
        log = [deed("a"), deed("b", days=1), deed("c", user_id="bob")]
        store.append(log)
        assert store.alarms.next_due_us() is None
        ann, bob = store.alarms.due(START_US, 10, 10)
        assert (ann.user_id, ann.due_us, ann.touched, ann.told) == ("ann", None, True, b"")
        assert_same_traces(ann.traces, traces_of(log[:2]))
        assert bob.user_id == "bob"
        assert_same_traces(bob.traces, traces_of(log[2:]))
        assert store.alarms.waiting(START_US, 10) == 2

    def test_what_changes_no_trace_touches_nobody(self, store: Store) -> None:
        store.append([deed("a")])
        solved(store)
        store.append([deed("a"), deed("a", body=b"other"), deed("shown", weight=0.0)])
        store.append([deed("bob's", user_id="bob", weight=0.0)])
        store.write_items([item("i")])
        assert store.alarms.due(START_US, 10, 10) == []

    def test_a_settled_alarm_waits_until_it_is_due(self, store: Store) -> None:
        store.append([deed("a")])
        solved(store, START_US + 5)
        assert store.alarms.due(START_US + 4, 10, 10) == []
        assert store.alarms.next_due_us() == START_US + 5
        assert store.alarms.waiting(START_US + 4, 10) == 0
        (ann,) = store.alarms.due(START_US + 5, 10, 10)
        assert (ann.due_us, ann.touched, ann.told) == (START_US + 5, False, b"told")
        assert store.alarms.waiting(START_US + 5, 10) == 1
        assert store.alarms.settle(
            [Settlement(ann.owner, ann.version, b"new", None)], START_US
        ) == [True]
        assert store.alarms.due(FOR_EVER, 10, 10) == []
        assert store.alarms.next_due_us() is None

    def test_what_came_between_is_not_lost(self, store: Store) -> None:
        store.append([deed("a"), deed("b", user_id="bob")])
        ann, bob = store.alarms.due(START_US, 10, 10)
        store.append([deed("between", days=1)])
        settlements = [
            Settlement(one.owner, one.version, b"told", None, [faded(one.user_id)])
            for one in (ann, bob)
        ]
        assert store.alarms.settle(settlements, START_US) == [False, True]
        (again,) = store.alarms.due(START_US, 10, 10)
        assert (again.user_id, again.told) == ("ann", b"")
        assert_same_traces(again.traces, traces_of([deed("a"), deed("between", days=1)]))
        assert [t.user_id for _, t in store.alarms.transitions(0, 10)] == ["bob"]

    def test_an_alarm_is_settled_once(self, open_store: OpenStore) -> None:
        one, other = open_store(), open_store()
        one.append([deed("a")])
        (mine,), (theirs,) = one.alarms.due(START_US, 10, 10), other.alarms.due(START_US, 10, 10)
        settlement = Settlement(mine.owner, mine.version, b"told", None, [faded()])
        assert one.alarms.settle([settlement], START_US) == [True]
        late = Settlement(theirs.owner, theirs.version, b"told", None, [faded()])
        assert other.alarms.settle([late], START_US) == [False]
        assert len(other.alarms.transitions(0, 10)) == 1

    def test_the_touched_do_not_keep_the_due_waiting(self, store: Store) -> None:
        store.append([deed(f"a{n}", user_id=f"due-{n}") for n in range(10)])
        for n, one in enumerate(store.alarms.due(START_US, 100, 100)):
            store.alarms.settle([Settlement(one.owner, one.version, b"", n)], START_US)
        store.append([deed(f"b{n}", user_id=f"bulk-{n}") for n in range(50)])
        first = [one.user_id for one in store.alarms.due(START_US, 4, 4)]
        assert first[:4] == ["due-0", "due-1", "due-2", "due-3"]
        assert [user.startswith("bulk") for user in first[4:]] == [True] * 4
        assert len(store.alarms.due(START_US, 100, 0)) == 10
        assert len(store.alarms.due(START_US, 0, 100)) == 50
        assert store.alarms.waiting(START_US, 1000) == 60
        assert store.alarms.waiting(START_US, 5) <= 10

    def test_whoever_is_touched_first_comes_first(self, store: Store) -> None:
        for n, user in enumerate(["zoe", "ann", "bob"]):
            store.append([deed(f"a{n}", user_id=user)])
        for n in range(5):
            store.append([deed(f"b{n}", user_id="ann", days=n)])
        store.append([deed("c", user_id="abe")])
        assert [one.user_id for one in store.alarms.due(START_US, 100, 100)] == [
            "zoe",
            "ann",
            "bob",
            "abe",
        ]

    def test_transitions_are_numbered_in_the_order_they_were_written(self, store: Store) -> None:
        assert store.alarms.span() == Span(1, 0)
        store.append([deed("a"), deed("b", user_id="bob")])
        told = [faded("x", f"interest {n}", START_US - n) for n in range(3)]
        solved(store, None, *told)
        assert store.alarms.span() == Span(1, 6)
        assert store.alarms.transitions(0, 100) == list(enumerate([*told, *told], 1))
        assert store.alarms.transitions(4, 1) == [(5, told[1])]
        assert store.alarms.transitions(6, 100) == []

    def test_old_transitions_are_forgotten_and_numbers_go_on(self, store: Store) -> None:
        for n in range(5):
            store.append([deed(f"a{n}")])
            (ann,) = store.alarms.due(START_US, 10, 10)
            store.alarms.settle(
                [Settlement(ann.owner, ann.version, b"", None, [faded(interest=str(n))])],
                START_US + n,
            )
        assert store.alarms.prune(START_US, 100) == 0
        assert store.alarms.prune(START_US + 4, 3) == 3
        assert store.alarms.span() == Span(4, 5)
        assert store.alarms.prune(START_US + 100, 100) == 2
        assert store.alarms.span() == Span(6, 5)
        store.append([deed("b")])
        solved(store, None, faded())
        assert store.alarms.transitions(0, 100) == [(6, faded())]
        assert store.alarms.span() == Span(6, 6)

    def test_other_parameters_touch_everybody_a_share_at_a_time(self, store: Store) -> None:
        assert store.alarms.renew("one", 0.5) is False
        store.append([deed(f"a{n}", user_id=f"user-{n}") for n in range(10)])
        solved(store, START_US + 5)
        assert store.alarms.renew("one", 0.5) is False
        assert store.alarms.due(START_US, 100, 100) == []
        assert store.alarms.renew("two", 0.4) is True
        assert len(store.alarms.due(START_US, 100, 100)) == 4
        assert store.alarms.renew("two", 0.4) is True
        assert store.alarms.renew("two", 0.4) is False
        due = store.alarms.due(START_US, 100, 100)
        assert {one.due_us for one in due} == {START_US + 5}
        assert len(due) == 10
        solved(store)
        assert store.alarms.renew("two", 0.4) is False
        assert store.alarms.due(START_US, 100, 100) == []

    def test_a_store_knows_itself_again(self, open_store: OpenStore) -> None:
        store = open_store()
        store.append([deed("a")])
        solved(store, START_US + 5, faded())
        again = open_store()
        assert again.alarms.store_id == store.alarms.store_id
        assert len(again.alarms.store_id) >= 16
        assert again.alarms.next_due_us() == START_US + 5
        assert again.alarms.transitions(0, 10) == [(1, faded())]

    # What is written stays.

    def test_reopening_gives_the_same(self, open_store: OpenStore) -> None:
        first, log = open_store(), some_log(5, 40)
        first.append(log)
        first.write_items([item("i"), item("j")])
        first.write_interests([InterestRecord("sports", b"s")])
        first.write_relations([RelationRecord("ann", "bob", b"r")])

        def known(store: Store) -> Iterator[object]:
            yield [a.tolist() for a in history_in(store)]
            yield list(store.interactions("ann", FOR_EVER))
            yield store.popular(100)
            yield store.catalogue_version()
            yield store.list_items("", 10)
            yield store.list_interests("", 10)
            yield store.list_relations("ann", "", 10)

        traces, before = traces_in(first), list(known(first))
        first.close()
        again = open_store()
        assert list(known(again)) == before
        assert_same_traces(traces_in(again), traces)
        assert again.append(log) == [DUPLICATE] * len(log)

    # How much is kept of a user.

    def test_the_bytes_of_a_user_are_bounded_however_many_events(
        self, open_store: OpenStore
    ) -> None:
        store = open_store(max_interests=1000, max_bytes=4096)
        for n in range(40):
            names = [(f"topic/{n * 10 + k:04}", 1.0) for k in range(10)]
            store.append(
                [
                    deed(f"{n}-{m}", item_id=f"i{m}", days=n + m / 20, interests=tuple(names))
                    for m in range(15)
                ]
            )
            record = store.user("ann")
            assert record is not None
            assert len(record.state) <= 4096
        traces = traces_in(store)
        assert traces is not None
        # The newest are the strongest; events are counted all the same.
        assert traces.event_count == 600
        assert {f"topic/{390 + k:04}" for k in range(10)} <= set(traces.names)
        assert len(list(store.interactions("ann", FOR_EVER))) == 600

    # Everything on a user, and the deletion of it.

    def test_all_events_of_a_user_are_told_in_order(self, store: Store) -> None:
        log = [deed(f"e{n}", days=9 - n, weight=float(n % 2)) for n in range(9)]
        store.append([*log, deed("other", user_id="bob")])
        assert list(store.events_of("ann")) == log[::-1]
        assert list(store.events_of("nobody")) == []

    def test_a_user_is_told_whole(self, store: Store) -> None:
        assert store.user("ann") is None
        store.append([deed("a")])
        solved(store, START_US + 5)
        record = store.user("ann")
        assert record is not None
        assert (record.user_id, record.told, record.due_us) == ("ann", b"told", START_US + 5)
        assert_same_traces(decode(record.state).traces, traces_of([deed("a")]))

    def test_relations_with_a_user_are_those_from_and_to_it(self, store: Store) -> None:
        relations = [
            RelationRecord("ann", "bob", b"1"),
            RelationRecord("cyd", "ann", b"2"),
            RelationRecord("bob", "cyd", b"3"),
        ]
        store.write_relations(relations)
        assert sorted(store.relations_with("ann")) == relations[:2]
        assert store.relations_with("nobody") == []

    def test_a_deleted_user_is_gone(self, store: Store) -> None:
        log = [deed(f"e{n}", item_id="i", days=n, weight=float(n > 0)) for n in range(5)]
        store.append([*log, deed("bob's", user_id="bob")])
        told = [faded("ann"), faded("ann", "music")]
        settlements = [
            Settlement(
                one.owner, one.version, b"told", START_US, told if one.user_id == "ann" else []
            )
            for one in store.alarms.due(START_US, 10, 10)
        ]
        assert all(store.alarms.settle(settlements, START_US))
        assert store.alarms.transitions_of("ann") == told
        store.write_relations(
            [RelationRecord("ann", "bob", b""), RelationRecord("bob", "ann", b"")]
        )
        now_us = START_US + 10 * DAY_US
        deletion = store.delete_user("ann", "receipt", now_us)
        assert deletion == Deletion("receipt", now_us, 5, log[0].time_us, log[-1].time_us)
        assert store.deletion("ann") == deletion
        assert store.states(["ann", "bob"])[0] is None
        assert traces_in(store, "bob") is not None
        assert store.user("ann") is None
        assert list(store.events_of("ann")) == []
        assert list(store.interactions("ann", FOR_EVER)) == []
        assert store.first_engagement_us("ann") is None
        assert store.relations_with("ann") == []
        assert store.relations_with("bob") == []
        assert store.alarms.transitions_of("ann") == []
        assert store.alarms.transitions(0, 10) == []
        assert [one.user_id for one in store.alarms.due(FOR_EVER, 10, 10)] == ["bob"]
        assert [one.user_id for one in store.log("", 100)[0]] == ["bob"]
        assert [one.user_id for one in store.users("", 100)[0]] == ["bob"]
        assert (store.size().users, store.size().events) == (1, 1)

    def test_deleting_again_tells_the_same(self, open_store: OpenStore) -> None:
        store = open_store()
        store.append([deed("a")])
        first = store.delete_user("ann", "first", START_US + 1)
        assert store.delete_user("ann", "second", START_US + 2) == first
        store.close()
        assert open_store().delete_user("ann", "third", START_US + 3) == first

    def test_deleting_whom_nobody_knows(self, store: Store) -> None:
        assert store.deletion("ann") is None
        deletion = store.delete_user("ann", "receipt", START_US)
        assert deletion == Deletion("receipt", START_US, 0, 0, 0)
        assert store.append([deed("a", days=-1)]) == [USER_DELETED]

    def test_late_and_replayed_events_do_not_bring_a_user_back(self, store: Store) -> None:
        log = [deed("a", item_id="i"), deed("b", item_id="i", days=1)]
        store.append(log)
        # The newest event lies after the moment of the deletion, by the clock of its sender.
        store.delete_user("ann", "receipt", START_US)
        late = deed("late", days=0.5)
        assert store.append([*log, late, deed("bob's", user_id="bob")]) == [
            USER_DELETED,
            USER_DELETED,
            USER_DELETED,
            ACCEPTED,
        ]
        assert traces_in(store) is None
        assert list(store.events_of("ann")) == []
        assert store.size().events == 1

    def test_who_comes_back_begins_anew(self, store: Store) -> None:
        store.append([deed("a", days=1)])
        first = store.delete_user("ann", "first", START_US + DAY_US)
        back = deed("back", days=2, interests=(("music", 1.0),))
        assert store.append([back]) == [ACCEPTED]
        assert_same_traces(traces_in(store), traces_of([back]))
        (ann,) = store.alarms.due(FOR_EVER, 10, 10)
        assert (ann.user_id, ann.told) == ("ann", b"")
        second = store.delete_user("ann", "second", START_US + 3 * DAY_US)
        assert second == Deletion("second", START_US + 3 * DAY_US, 1, back.time_us, back.time_us)
        assert second != first
        assert store.append([deed("a", days=1), back]) == [USER_DELETED] * 2

    def test_an_alarm_of_a_deleted_user_is_not_settled(self, store: Store) -> None:
        store.append([deed("a")])
        (ann,) = store.alarms.due(START_US, 10, 10)
        store.delete_user("ann", "receipt", START_US)
        settlement = Settlement(ann.owner, ann.version, b"told", START_US, [faded()])
        assert store.alarms.settle([settlement], START_US) == [False]
        assert store.alarms.transitions(0, 10) == []
        assert store.user("ann") is None

    # Retention periods.

    def test_old_events_are_forgotten_and_stay_counted(self, store: Store) -> None:
        log = [deed(f"e{n}", item_id=f"i{n}", days=n, weight=float(n != 1)) for n in range(6)]
        store.append(log)
        assert store.prune_events(log[3].time_us, 2) == 2
        assert store.prune_events(log[3].time_us, 10) == 1
        assert store.prune_events(log[3].time_us, 10) == 0
        assert list(store.events_of("ann")) == log[3:]
        assert store.first_engagement_us("ann") == log[3].time_us
        assert_same_traces(traces_in(store), traces_of(log))
        assert store.size().events == 3
        # Their ids are free again.
        assert store.append([deed("e0", days=9)]) == [ACCEPTED]

    def test_who_has_been_away_for_long_is_forgotten(self, store: Store) -> None:
        store.append([deed(f"{days}", user_id=f"after-{days}", days=days) for days in range(6)])
        store.append([deed("newer", user_id="after-0", days=5)])
        assert store.prune_users(START_US + 3 * DAY_US, 1) == 1
        assert store.prune_users(START_US + 3 * DAY_US, 10) == 1
        assert store.prune_users(START_US + 3 * DAY_US, 10) == 0
        kept = {one.user_id for one in store.users("", 100)[0]}
        assert kept == {"after-0", "after-3", "after-4", "after-5"}
        assert list(store.events_of("after-1")) == []
        # Nobody asked for it: whoever comes back is welcome, with old events too.
        assert store.append([deed("1", user_id="after-1", days=1)]) == [ACCEPTED]

    def test_whoever_was_here_of_late_stays_however_long_known(self, store: Store) -> None:
        log = [
            deed(f"{n}-{day}", user_id=f"user-{n}", days=day) for n in range(9) for day in (0, n)
        ]
        log += [deed("again", user_id="user-8", days=400)]
        for one in log:
            store.append([one])
        assert store.prune_users(START_US + 3 * DAY_US, 2) == 2
        assert store.prune_users(START_US + 3 * DAY_US, 2) == 1
        assert store.prune_users(START_US + 3 * DAY_US, 2) == 0
        assert store.prune_users(START_US + 399 * DAY_US, 99) == 5
        assert [one.user_id for one in store.users("", 100)[0]] == ["user-8"]

    def test_the_newest_engagements_are_told_to_the_last_of_one_moment(self, store: Store) -> None:
        log = [deed(f"e{n}", item_id=f"i{n}", days=min(n, 3)) for n in range(9)]
        store.append(log)
        for newest in range(11):
            told = list(store.interactions("ann", log[-1].time_us, newest))
            assert told == log[len(log) - min(newest, 9) :]
        assert list(store.interactions("ann", log[2].time_us, 2)) == log[1:3]

    def test_deletions_are_forgotten_in_the_end(self, store: Store) -> None:
        for n in range(3):
            store.delete_user(f"user-{n}", f"receipt-{n}", START_US + n)
        assert store.prune_deletions(START_US + 2, 1) == 1
        assert store.prune_deletions(START_US + 2, 9) == 1
        assert [store.deletion(f"user-{n}") is None for n in range(3)] == [True, True, False]

    # The whole of it, page by page.

    def test_the_whole_log_is_read_page_by_page(self, store: Store) -> None:
        log = [
            deed(f"e{n}", user_id=f"user-{n % 7}", days=n, weight=float(n % 3)) for n in range(50)
        ]
        store.append(log)
        met: list[Interaction] = []
        after = ""
        while True:
            page, after = store.log(after, 8)
            met += page
            if len(page) < 8:
                break
        assert sorted(met, key=lambda one: one.time_us) == log
        assert store.log(after, 8)[0] == []

    def test_all_users_are_read_page_by_page(self, store: Store) -> None:
        names = {f"user-{n:02}" for n in range(25)}
        store.append([deed(f"e-{name}", user_id=name) for name in names])
        met: list[str] = []
        after = ""
        while True:
            page, after = store.users(after, 10)
            met += [one.user_id for one in page]
            if len(page) < 10:
                break
        assert len(met) == 25
        assert set(met) == names

    def test_users_move_with_what_was_told_of_them(self, store: Store) -> None:
        store.append([deed("a", item_id="i"), deed("b", days=1)])
        solved(store, START_US + 5)
        record = store.user("ann")
        assert record is not None
        store.delete_user("ann", "receipt", START_US)
        store.write_users([record])
        assert store.user("ann") == record
        assert_same_traces(traces_in(store), traces_of([deed("a"), deed("b", days=1)]))
        (ann,) = store.alarms.due(FOR_EVER, 10, 10)
        assert (ann.user_id, ann.due_us, ann.told) == ("ann", START_US + 5, b"told")
        store.write_users([record._replace(due_us=None)])
        assert store.alarms.next_due_us() is None
        assert store.size().users == 1

    @pytest.mark.parametrize("seed", range(2))
    def test_rebuilding_gives_what_was_there(self, store: Store, seed: int) -> None:
        log = some_log(seed, 80)
        for start in range(0, 80, 9):
            store.append(log[::-1][start : start + 9])
        assert store.rebuild(["ann", "nobody"]) == 0
        wrong = store.user("ann")
        assert wrong is not None
        store.delete_user("bob", "receipt", START_US)
        # What is kept of the user was another's.
        store.append([deed("other", user_id="cyd")])
        other = store.user("cyd")
        assert other is not None
        store.write_users([wrong._replace(state=other.state)])
        assert traces_in(store).event_count == 1  # type: ignore[union-attr]
        assert store.rebuild(["ann"]) == 1
        assert_same_traces(traces_in(store), traces_of(log))
        assert store.rebuild(["ann"]) == 0
        assert store.size().users == 2

    def test_rebuilding_keeps_what_the_log_has_lost(self, store: Store) -> None:
        log = [deed(f"e{n}", days=n) for n in range(6)]
        store.append(log)
        store.prune_events(log[3].time_us, 10)
        assert store.rebuild(["ann"]) == 0
        assert_same_traces(traces_in(store), traces_of(log))

    def test_the_rollout_is_replaced_by_whoever_saw_it_last(self, open_store: OpenStore) -> None:
        one, other = open_store(), open_store()
        assert one.rollout() == Rollout(0, b"")
        assert one.write_rollout(Rollout(1, b"mine")) is True
        assert other.write_rollout(Rollout(1, b"theirs")) is False
        assert other.rollout() == Rollout(1, b"mine")
        assert other.write_rollout(Rollout(2, b"theirs")) is True
        assert open_store().rollout() == Rollout(2, b"theirs")

    def test_sizes(self, store: Store) -> None:
        assert store.size()[:2] == (0, 0)
        store.append([deed("a"), deed("b", weight=0.0), deed("c", user_id="bob")])
        store.append([deed("a"), deed("d", user_id="bob")])
        assert store.size()[:2] == (2, 4)
        assert store.size().stored_bytes > 0
