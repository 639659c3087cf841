"""Explanations as a person reads them: a table an interest, with signed bars that add up."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ebbing.explain.findings import Findings
from ebbing.terminal import date, painted, plain
from ebbing.v1.interest_service_pb2 import ExplainInterestResponse

__all__ = ["bar", "interest_table", "show"]

DAY_S = 86400.0
HALF_BAR = 12
"""Characters of a bar on either side of zero."""
SMALLEST = 0.005
"""Log-odds below which a part is but named: it would be shown as 0.00."""
EIGHTHS = " ▏▎▍▌▋▊▉"
WIDTH_WITHOUT_TERMINAL = 110


def bar(value: float, longest: float) -> Text:
    """A signed bar around an axis: red to the left where it is below 0, green to the right."""
    length = HALF_BAR * min(1.0, abs(value) / longest) if longest else 0.0
    if value < 0:
        # Of the blocks that begin at the right there is only the half one.
        whole, half = divmod(round(length * 2), 2)
        drawn = "▐" * half + "█" * whole
        return Text.assemble(" " * (HALF_BAR - len(drawn)), (drawn, "red"), "│", " " * HALF_BAR)
    whole = int(length)
    drawn = ("█" * whole + EIGHTHS[int((length - whole) * 8)]).rstrip()
    return Text.assemble(" " * HALF_BAR, "│", (drawn, "green"), " " * (HALF_BAR - len(drawn)))


def _half_life(one: ExplainInterestResponse) -> str:
    if not one.interest.HasField("half_life"):
        return "no half-life within 10 y"
    return f"half-life {one.interest.half_life.ToMicroseconds() / 1e6 / DAY_S:.1f} d"


def interest_table(one: ExplainInterestResponse, horizon_days: float, longest: float) -> Table:
    """One interest: its state and reason, and the parts of its retention.

    Args:
        one: the interest, explained.
        horizon_days: horizon of retention, days.
        longest: log-odds that fill a bar.
    """
    interest = one.interest
    table = Table(
        title=f"[bold]{plain(interest.interest)}[/] {painted(interest.state)} · "
        f"retention [bold]{interest.retention:.1%}[/] within {horizon_days:g} d · "
        f"{_half_life(one)} · strength {interest.strength:.2f}\n"
        f"[dim]{plain(interest.reason.text)}[/]",
        title_justify="left",
        title_style="",
        expand=True,
        show_footer=True,
    )
    total = math.fsum(part.log_odds for part in one.contributions)
    table.add_column("part", Text("together"), overflow="fold")
    table.add_column("log-odds", f"{total:+.2f}", justify="right")
    table.add_column("against │ for".center(2 * HALF_BAR + 1), bar(total, longest), no_wrap=True)
    together = f"{1 / (1 + math.exp(-total)):.1%} within {horizon_days:g} d"
    table.add_column("why", together, overflow="fold", ratio=1)
    parts = sorted(one.contributions, key=lambda part: -abs(part.log_odds))
    shown = [part for part in parts if abs(part.log_odds) >= SMALLEST]
    for part in shown:
        table.add_row(
            plain(part.name),
            f"{part.log_odds:+.2f}",
            bar(part.log_odds, longest),
            f"[dim]{plain(part.text)}[/]",
        )
    if rest := parts[len(shown) :]:
        left = math.fsum(part.log_odds for part in rest)
        names = plain(", ".join(part.name for part in rest))
        table.add_row(f"{len(rest)} more", f"{left:+.2f}", bar(left, longest), f"[dim]{names}[/]")
    return table


def _headline(findings: Findings) -> str:
    profile = findings.profile
    drift = f"{profile.drift:.2f}" if profile.HasField("drift") else "undefined"
    score = f"{profile.article_score:.2f}" if profile.HasField("article_score") else "undefined"
    return (
        f"[bold]{plain(profile.user_id)}[/] as of {date(findings.at_s)} · "
        f"{profile.event_count} events · drift F(u,t) {drift} · R(u,t) {score} · "
        f"forgetting parameters {plain(profile.forgetting_version)}"
    )


def show(findings: Findings, console: Console | None = None) -> None:
    """Print everything; to stdout, unless told otherwise."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_WITHOUT_TERMINAL)
    console.print(_headline(findings))
    parts = [part.log_odds for one in findings.explained for part in one.contributions]
    totals = [math.fsum(p.log_odds for p in one.contributions) for one in findings.explained]
    longest = max(map(abs, [*parts, *totals]), default=1.0)
    for one in findings.explained:
        console.print()
        console.print(interest_table(one, findings.horizon_days, longest))
    _point_out(findings, console)


def _point_out(findings: Findings, console: Console) -> None:
    known = len(findings.profile.interests)
    if not findings.explained:
        console.print("No event of this user shows an interest.")
    elif len(findings.explained) < known:
        more = "or more " if findings.profile.next_page_token else ""
        console.print(
            f"\n[dim]{len(findings.explained)} of {known} {more}interests; --most shows more,"
            " --interest a single one.[/]"
        )
