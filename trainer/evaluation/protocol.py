"""What is asked: the events of a log that are tests, and what may be known when they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from trainer.data.log import EventLog

Name = Literal["leave-one-out", "temporal", "external"]
Asked = Literal["first", "all"]

CUT_QUANTILE = 0.8
"""Share of the events that lies before the cut of the temporal protocol, unless a run has its own.
"""

REPEATS_FROM = 0.05
"""Share of training events that come back to an item of the user from which on a log is one whose
users come back: what they had is then recommended again, and asked for again."""


class EvaluationError(Exception):
    """A log or a run that nothing can be measured on; the message says why, and what helps."""


@dataclass(frozen=True)
class HeldOut:
    """Tests of a log, each asked at the time of its event, of a user known by what came before."""

    protocol: Name
    events: np.ndarray
    """(T,) event numbers of the tests, ascending."""
    unseen: np.ndarray
    """(N,) event numbers of what would be tests, had anybody had the item in training; ascending.
    They are measured by themselves."""
    known: EventLog
    """What may be trained on and counted: the log without all that a test could be made of."""
    repeats: bool
    """Whether what a user had is recommended and asked for again."""
    repeat_share: float
    """Share of `known` events that come back to an item of the user."""
    repeats_asked: bool
    """Whether somebody decided on `repeats`, rather than the log."""
    alone: int
    """Users left out because nothing is known of them but the test."""
    repeated: int
    """Tests left out because the user had the item before, and it is not recommended again."""
    cut: float | None = None
    """Seconds since the epoch up to which events are known, of the temporal protocol."""
    asked: Asked | None = None
    """Which of a user's events after the cut are tests."""

    def __str__(self) -> str:
        """The protocol in a paragraph, with all that was decided."""
        return f"{self.protocol}: {self._questions()}; {self._catalogue()}"

    def _questions(self) -> str:
        if self.protocol == "external":
            return (
                "each user's last event in a log of other users is the test, asked for at its own "
                "time; the user's events before it are history; none of these users trains"
            )
        if self.cut is None:
            return (
                "each user's last event is the test, asked for at its own time; all events before "
                "it are history, and train"
            )
        which = "each user's first event" if self.asked == "first" else "every event"
        return (
            f"{which} after {moment(self.cut)} is a test, asked for at its own time; the user's "
            "events before it are history, and those up to the cut train"
        )

    def _catalogue(self) -> str:
        why = (
            "as asked"
            if self.repeats_asked
            else f"{self.repeat_share:.1%} of the training events come back to an item"
        )
        seen = (
            f"seen items stay recommended, and are tests too ({why})"
            if self.repeats
            else f"seen items are not recommended, and no tests ({why})"
        )
        return (
            f"the whole catalogue is ranked; {seen}; tests of an item nobody had in training are "
            "measured apart"
        )


def moment(seconds: float) -> str:
    """Seconds since the epoch for people."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def quantile_cut(log: EventLog, share: float = CUT_QUANTILE) -> float:
    """Time of the event that so large a share of all events is not after."""
    return float(np.quantile(log.times, share, method="inverted_cdf"))


def parse_cut(text: str, log: EventLog) -> float:
    """Seconds since the epoch of a cut as people write it: `80%` of the events, UTC seconds, or a
    date with or without a time, `2025-06-01`, UTC unless it says otherwise.

    Raises:
        EvaluationError: it is none of these.
    """
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100.0
            if 0.0 < share < 1.0:
                return quantile_cut(log, share)
        elif np.isfinite(float(text)):
            return float(text)
    except ValueError:
        pass
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise EvaluationError(
            f"{text!r} is no time to cut at: give a share of the events such as 80%, a date such "
            "as 2025-06-01, or UTC seconds"
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def leave_one_out(log: EventLog, repeats: bool | None = None) -> HeldOut:
    """Each user's last event, of those who have more than one.

    Args:
        log: all of it.
        repeats: whether seen items are recommended; None leaves it to the log (`REPEATS_FROM`).

    Raises:
        EvaluationError: that leaves no test.
    """
    last = log.last_events()
    alone = int((np.diff(log.offsets) == 1).sum())
    tests = _held_out("leave-one-out", log, last, log.without(last), repeats, alone)
    if not len(tests.events):
        raise EvaluationError(
            f"none of the {len(log.user_ids):,} users makes a test ({_left_out(tests)}): "
            "give a log of users with several events, on items that others had too"
        )
    return tests


def temporal(
    log: EventLog, cut: float, asked: Asked = "first", repeats: bool | None = None
) -> HeldOut:
    """Events after a cut; whoever comes for the first time then is asked without a history.

    Args:
        log: all of it.
        cut: seconds since the epoch up to which events are known.
        asked: each user's first event after it, or every one.
        repeats: as for `leave_one_out`.

    Raises:
        EvaluationError: that leaves nothing to know, or no test.
    """
    after = np.flatnonzero(log.times > cut)
    if len(after) == len(log):
        raise EvaluationError(f"no event up to the cut, {moment(cut)}: cut later")
    if not len(after):
        raise EvaluationError(f"no event after the cut, {moment(cut)}: cut earlier")
    known = log.until(cut)
    if asked == "first":
        after = after[np.unique(log.users[after], return_index=True)[1]]
    tests = _held_out("temporal", log, after, known, repeats, 0, cut, asked)
    if not len(tests.events):
        raise EvaluationError(
            f"none of the {len(after):,} events after the cut, {moment(cut)}, makes a test "
            f"({_left_out(tests)}): cut at another time"
        )
    return tests


def external(log: EventLog, known: EventLog, repeats: bool | None = None) -> HeldOut:
    """Each last event of the users who come after those of the log trained on.

    Args:
        log: both logs as one, `known`'s users first.
        known: the log trained on; its items are the first of `log`.
        repeats: as for `leave_one_out`.

    Raises:
        EvaluationError: that leaves no test.
    """
    theirs = log.users >= len(known.user_ids)
    events = np.diff(log.offsets)[len(known.user_ids) :]
    last = log.last_events()
    tests = _held_out(
        "external", log, last[theirs[last]], log.where(~theirs), repeats, int((events == 1).sum())
    )
    if not len(tests.events):
        raise EvaluationError(
            f"none of its {len(events):,} users makes a test ({_left_out(tests)}): give a log of "
            "users with several events, on items that the log trained on has too"
        )
    return tests


def _held_out(
    protocol: Name,
    log: EventLog,
    events: np.ndarray,
    known: EventLog,
    repeats: bool | None,
    alone: int,
    cut: float | None = None,
    asked: Asked | None = None,
) -> HeldOut:
    if not len(known):
        raise EvaluationError(
            "no event is left to know anything from: give a log of users with several events"
        )
    share = float((~first_time(known)).mean())
    decided = share >= REPEATS_FROM if repeats is None else repeats
    wanted = events if decided else events[first_time(log)[events]]
    trained = np.bincount(known.items, minlength=len(log.item_ids)) > 0
    return HeldOut(
        protocol=protocol,
        events=wanted[trained[log.items[wanted]]],
        unseen=wanted[~trained[log.items[wanted]]],
        known=known,
        repeats=decided,
        repeat_share=share,
        repeats_asked=repeats is not None,
        alone=alone,
        repeated=len(events) - len(wanted),
        cut=cut,
        asked=asked,
    )


def first_time(log: EventLog) -> np.ndarray:
    """(E,) bool: whether the user had not had the item of the event before."""
    pairs = log.users * len(log.item_ids) + log.items
    first = np.zeros(len(log), bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    return first


def _left_out(tests: HeldOut) -> str:
    counted = {
        "of a user with one event": tests.alone,
        "of an item the user had": tests.repeated,
        "of an item nobody had in training": len(tests.unseen),
    }
    return ", ".join(f"{number:,} {what}" for what, number in counted.items())
