"""The story: one user's interests at their height, overtaken, refreshed and left alone.

Told through the client alone, and computed from the answers: where they do not show what the log
says happened, it ends in an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ebbing.cli import CommandError
from ebbing.client import Client, user_event
from ebbing.demo.narrator import Narrator
from ebbing.demo.protagonist import Protagonist
from ebbing.demo.tables import beside, profile_table, slate_table
from ebbing.terminal import date, plain, state_name
from ebbing.v1.interest_pb2 import (
    INTEREST_STATE_FADING,
    INTEREST_STATE_FORGOTTEN,
    UserInterest,
)
from ebbing.v1.interest_service_pb2 import GetInterestProfileResponse
from ebbing.v1.recommendation_service_pb2 import Slate

__all__ = ["closing_sentence", "shown_by_the_answers", "tell"]

DAY_S = 86400.0
MINUTE_S = 60.0
INTEREST_ROWS = 4
SLATE_ROWS = 5
OPENED = 3
"""Items of the slate the user opens."""
STRONG_PLACE = 3
"""A strong interest is among so many strongest."""
WAITS_DAYS = (30, 90)
"""How long nothing happens, in days."""


def tell(client: Client, who: Protagonist, narrator: Narrator) -> None:
    """Tell the story.

    Raises:
        CommandError: the answers do not show it.
        EbbingError: the gateway refused a call.
    """
    story = _Story(client, who, narrator)
    early = story.at_the_height()
    late = story.overtaken(early)
    now = story.a_few_new_events()
    story.nothing_happens(now)
    narrator.step("What the answers have shown")
    narrator.say(f"[bold green]{plain(closing_sentence(who, early, late))}[/]")


def shown_by_the_answers(
    client: Client, candidates: Sequence[Protagonist], advance: Callable[[int], None]
) -> list[Protagonist]:
    """Those of whom the gateway says what counting says; ``advance`` is told of each one asked.

    Raises:
        CommandError: of none; says what is missing for the first.
        EbbingError: the gateway refused a call.
    """
    shown, refused = [], []
    for who in candidates:
        early, late = (_all_interests(client, who.user_id, at) for at in (who.peak, who.end))
        try:
            closing_sentence(who, early, late)
            shown.append(who)
        except CommandError as error:
            refused.append(error)
        advance(1)
    if not shown:
        raise refused[0]
    return shown


def closing_sentence(
    who: Protagonist, early: GetInterestProfileResponse, late: GetInterestProfileResponse
) -> str:
    """What the two profiles say of the two interests.

    Overtaken means: expected back less, and of less interest now. In the long run the older one
    may well have been the larger, and its long-term reading remembers that.

    Raises:
        CommandError: not that one was strong, faded and was overtaken; names what is missing.
    """
    before, after = _find(early, who.faded), _find(late, who.faded)
    rival_before, rival_after = _find(early, who.risen), _find(late, who.risen)
    order = [one.interest for one in early.interests]
    place = order.index(who.faded) + 1 if who.faded in order else None
    shown = {
        "was strong": place is not None and place <= STRONG_PLACE,
        "faded": after.state in (INTEREST_STATE_FADING, INTEREST_STATE_FORGOTTEN),
        "lost retention": after.retention < before.retention,
        "was overtaken": rival_before.retention < before.retention
        and rival_after.retention > after.retention
        and rival_after.short_term > after.short_term,
    }
    faded, risen = _course(before, after), _course(rival_before, rival_after)
    if missing := [what for what, so in shown.items() if not so]:
        raise CommandError(
            f"the answers do not show that {who.faded} of {who.user_id} {' and '.join(missing)} "
            f"({faded}, now {state_name(after.state)}; {who.risen}: {risen})"
        )
    rank = "the strongest interest" if place == 1 else f"number {place} of {len(order)} interests"
    return (
        f"{who.faded} was {rank} of {who.user_id} on {date(who.peak)}. "
        f"By {date(who.end)} it is {state_name(after.state)} ({faded}), "
        f"overtaken by {who.risen} ({risen})."
    )


def _course(before: UserInterest, after: UserInterest) -> str:
    return (
        f"retention {before.retention:.2f} → {after.retention:.2f}, "
        f"short-term interest {before.short_term:.2f} → {after.short_term:.2f}"
    )


def _all_interests(client: Client, user_id: str, at: float) -> GetInterestProfileResponse:
    return client.interest_profile(user_id, at, page_size=1000)


def _find(profile: GetInterestProfileResponse, interest: str) -> UserInterest:
    """The interest in the profile; one never engaged has no strength and no retention."""
    found = (one for one in profile.interests if one.interest == interest)
    return next(found, UserInterest(interest=interest))


class _Story:
    def __init__(self, client: Client, who: Protagonist, narrator: Narrator) -> None:
        self._client = client
        self._who = who
        self._narrator = narrator

    def _profile(self, at: float, title: str) -> GetInterestProfileResponse:
        who = self._who
        profile = _all_interests(self._client, who.user_id, at)
        named = (who.faded, who.risen)
        self._narrator.show(
            profile_table(f"{title}, {date(at)}", profile, named, rows=INTEREST_ROWS)
        )
        return profile

    def _slate(self, at: float) -> Slate:
        return self._client.recommend(self._who.user_id, at)

    def _compare(self, left: tuple[str, Slate], right: tuple[str, Slate]) -> None:
        tables = [slate_table(title, slate, rows=SLATE_ROWS) for title, slate in (left, right)]
        self._narrator.show(beside(tables[0], tables[1], self._narrator.width))

    def at_the_height(self) -> GetInterestProfileResponse:
        who = self._who
        self._narrator.step(f"{date(who.peak)}: {who.faded} is at its height")
        self._narrator.say("Profiles of any past moment are answered from the event log.")
        return self._profile(who.peak, f"Interests of {who.user_id}")

    def overtaken(self, early: GetInterestProfileResponse) -> GetInterestProfileResponse:
        who = self._who
        self._narrator.step(f"{date(who.end)}: where the log of {who.user_id} ends")
        self._narrator.say(
            f"There was no {plain(who.faded)} any more, and {who.risen_events} events of "
            f"{plain(who.risen)} since."
        )
        late = self._profile(who.end, f"Interests of {who.user_id}")
        then, now = (_find(profile, who.faded).retention for profile in (early, late))
        self._narrator.say(
            f"Retention of {plain(who.faded)} went from {then:.2f} to {now:.2f}, and the slates "
            "follow. F(u,i) is how forgotten an item's interests are, p(i|u,t) = softmax(−α F)."
        )
        self._compare(
            (f"Slate of {date(who.peak)}", self._slate(who.peak)),
            (f"Slate of {date(who.end)}", self._slate(who.end)),
        )
        return late

    def a_few_new_events(self) -> Slate:
        """The user opens the first items of the slate; the next answers must know."""
        client, who, narrator = self._client, self._who, self._narrator
        moment = who.end + OPENED * MINUTE_S
        before, was = self._slate(moment), _all_interests(client, who.user_id, moment)
        if not before.items:
            raise CommandError(f"the slate of {who.user_id} is empty; there is nothing to open")
        opened = [item.item_id for item in before.items[:OPENED]]
        narrator.step(f"{who.user_id} opens {len(opened)} of these items, and asks again")
        client.write_events(
            user_event(
                who.user_id,
                "click",
                who.end + (place + 1) * MINUTE_S,
                item_id=item_id,
                event_id=f"story-{place}",
                attribution_token=before.attribution_token,
            )
            for place, item_id in enumerate(opened)
        )
        acknowledged = time.monotonic()
        after = self._slate(moment)
        took_ms = (time.monotonic() - acknowledged) * 1000
        had, has = ([item.item_id for item in slate.items] for slate in (before, after))
        if had == has:
            raise CommandError("the slate is the same after new events: they were not seen")
        new = [item_id for item_id in has if item_id not in had]
        narrator.say(f"Opened: {plain(', '.join(opened))}.")
        narrator.say(
            f"The next slate came {took_ms:.0f} ms after the acknowledgement and knows: "
            f"{len(new)} of its {len(has)} items are new, "
            f"{len(set(opened) & set(has)) or 'none'} of the opened is offered again."
        )
        now = _all_interests(client, who.user_id, moment)
        most = max(now.interests, key=lambda one: one.strength - _find(was, one.interest).strength)
        narrator.say(
            f"So does the profile: {plain(most.interest)}, "
            f"{_course(_find(was, most.interest), most)}."
        )
        return after

    def nothing_happens(self, now: Slate) -> None:
        """Forgetting goes on by itself."""
        who, narrator = self._who, self._narrator
        for days in WAITS_DAYS:
            narrator.step(f"{days} days later, and nothing has happened since")
            self._profile(who.end + days * DAY_S, f"Interests of {who.user_id}")
        narrator.say("No event came and no job ran: an answer is computed for its moment.")
        last = who.end + WAITS_DAYS[-1] * DAY_S
        self._compare(
            (f"Slate after those events, {date(who.end)}", now),
            (f"Slate of {date(last)}", self._slate(last)),
        )
