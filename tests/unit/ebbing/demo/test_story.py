"""Whose story it is, and that it is only told where the answers show it."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from ebbing.cli import CommandError
from ebbing.demo.log import Log, LoggedEvent
from ebbing.demo.protagonist import Protagonist, choose_protagonists
from ebbing.demo.story import closing_sentence, shown_by_the_answers
from ebbing.demo.tables import beside, profile_table, slate_table
from ebbing.events import EventType
from ebbing.terminal import plain
from ebbing.v1 import interest_pb2, interest_service_pb2, recommendation_service_pb2

DAY = 86400.0
WHO = Protagonist("ada", "sports/football", "cooking/baking", 57 * DAY, 118 * DAY, 20, 20)
INTERESTS = {"ball": ("sports/football",), "cake": ("cooking/baking",), "sax": ("music/jazz",)}


def events(user: str, item: str, days: range, kind: EventType = EventType.VIEW):
    return [LoggedEvent(user, item, kind, day * DAY) for day in days]


def log_of(*parts: list[LoggedEvent]) -> Log:
    together = sorted((event for part in parts for event in part), key=lambda event: event.time)
    return Log(tuple(together), INTERESTS)


STORY = (
    events("ada", "ball", range(0, 60, 3)),
    events("ada", "cake", range(80, 120, 2)),
    events("ada", "sax", range(0, 120, 15)),
)


def test_the_user_whose_interest_faded_and_was_overtaken():
    steady = events("bob", "ball", range(0, 120, 3))
    chosen = choose_protagonists(log_of(*STORY, steady))
    assert chosen == [WHO]
    assert choose_protagonists(log_of(*STORY, steady), "ada") == chosen


def test_the_clearest_story_comes_first():
    weaker = (events("abe", "sax", range(0, 40, 10)), events("abe", "ball", range(100, 120, 5)))
    chosen = choose_protagonists(log_of(*STORY, *weaker))
    assert [who.user_id for who in chosen] == ["ada", "abe"]
    assert choose_protagonists(log_of(*STORY, *weaker), "abe") == chosen[1:]


@pytest.mark.parametrize(
    "parts",
    [
        [events("bob", "ball", range(0, 120, 3))],
        [events("bob", "ball", range(0, 60, 3)), events("bob", "cake", range(62, 70, 3))],
        [events("bob", "ball", range(0, 60, 3)), events("bob", "unknown", range(80, 120))],
        [
            events("bob", "ball", range(0, 60, 3), EventType.IMPRESSION),
            events("bob", "cake", range(80, 120, 3)),
        ],
    ],
    ids=["steady", "not quiet for long", "items unknown", "only shown"],
)
def test_a_log_without_a_story(parts):
    with pytest.raises(CommandError, match="no user of this log"):
        choose_protagonists(log_of(*parts))
    with pytest.raises(CommandError, match="bob has no interest that faded"):
        choose_protagonists(log_of(*parts), "bob")


def interest(path: str, state: str, retention: float, short: float, strength: float):
    one = interest_pb2.UserInterest(
        interest=path,
        state=interest_pb2.InterestState.Value(f"INTEREST_STATE_{state}"),
        retention=retention,
        short_term=short,
        strength=strength,
    )
    one.reason.text = "last 1 d ago"
    return one


def profile(*interests: interest_pb2.UserInterest):
    return interest_service_pb2.GetInterestProfileResponse(interests=interests, drift=0.5)


EARLY = profile(interest("sports/football", "ACTIVE", 0.9, 3, 10))
LATE = profile(
    interest("sports/football", "FADING", 0.2, 0.1, 9),
    interest("cooking/baking", "ACTIVE", 0.8, 2, 7),
)


def test_the_closing_sentence_is_made_of_the_answers():
    assert closing_sentence(WHO, EARLY, LATE) == (
        "sports/football was the strongest interest of ada on 27 Feb 1970. By "
        "29 Apr 1970 it is fading (retention 0.90 → 0.20, short-term interest 3.00 → 0.10), "
        "overtaken by cooking/baking (retention 0.00 → 0.80, short-term interest 0.00 → 2.00)."
    )


@pytest.mark.parametrize(
    ("early", "late", "missing"),
    [
        (profile(), LATE, "was strong and lost retention and was overtaken"),
        (
            EARLY,
            profile(interest("sports/football", "ACTIVE", 0.2, 0, 9), LATE.interests[1]),
            "faded",
        ),
        (
            EARLY,
            profile(interest("sports/football", "FADING", 0.95, 0, 9), LATE.interests[1]),
            "lost retention and was overtaken",
        ),
        (EARLY, profile(LATE.interests[0]), "was overtaken"),
        (
            EARLY,
            profile(LATE.interests[0], interest("cooking/baking", "ACTIVE", 0.8, 0.05, 7)),
            "was overtaken",
        ),
    ],
)
def test_answers_that_do_not_show_it_end_the_story(early, late, missing):
    with pytest.raises(CommandError, match=f"do not show that sports/football of ada {missing} "):
        closing_sentence(WHO, early, late)


class FakeClient:
    """Knows the profiles of ada, and of bob the early one alone."""

    def interest_profile(self, user_id, at, *, page_size):
        assert page_size == 1000
        return LATE if user_id == "ada" and at == WHO.end else EARLY


def test_candidates_are_kept_where_the_answers_agree():
    bob = replace(WHO, user_id="bob")
    asked = []
    assert shown_by_the_answers(FakeClient(), [bob, WHO], asked.append) == [WHO]
    assert asked == [1, 1]
    with pytest.raises(CommandError, match="of bob"):
        shown_by_the_answers(FakeClient(), [bob], asked.append)


def printed(what) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(what)
    return console.file.getvalue()


def test_a_profile_as_a_table():
    text = printed(profile_table("Interests", LATE, {"cooking/baking"}, rows=1))
    assert "sports/football" in text
    assert "cooking/baking" in text, "named ones are shown below the strongest"
    assert "> 10 y" in text
    assert "drift F(u,t) 0.50" in text
    bare = interest_service_pb2.GetInterestProfileResponse(drift_undefined_reason="NO_INTEREST")
    assert "drift undefined: NO_INTEREST" in printed(profile_table("None", bare, (), rows=1))


def test_slates_beside_each_other():
    reason = recommendation_service_pb2.InterestReason(
        interest="a/b", state=interest_pb2.INTEREST_STATE_ACTIVE, retention=0.75, share=1.0
    )
    items = [
        recommendation_service_pb2.RecommendedItem(item_id="i1", relevance=0.5, reasons=[reason]),
        recommendation_service_pb2.RecommendedItem(item_id="[red]i2"),
    ]
    slate = recommendation_service_pb2.Slate(
        items=items, degraded=True, degraded_reason="TRITON_UNAVAILABLE", release=3
    )
    table = slate_table("Slate", slate, rows=5)
    for width in (120, 60):
        text = printed(beside(table, table, width))
        assert "a/b active 0.75" in text
        assert "[red]i2" in text
        assert "nothing known" in text
        assert "degraded: TRITON_UNAVAILABLE" in " ".join(text.split())


def test_text_of_a_log_cannot_speak_to_the_terminal():
    assert plain("Caf\x1b[red]") == "Caf·\\[red]"
