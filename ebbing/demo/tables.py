"""Profiles and slates as a person reads them."""

from __future__ import annotations

from collections.abc import Collection

from rich.table import Table

from ebbing.terminal import painted, plain
from ebbing.v1.interest_pb2 import UserInterest
from ebbing.v1.interest_service_pb2 import GetInterestProfileResponse
from ebbing.v1.recommendation_service_pb2 import RecommendedItem, Slate

__all__ = ["beside", "profile_table", "slate_table"]

DAY_S = 86400.0
NARROWEST_PAIR = 110
"""Columns below which two slates stand one above the other."""


def _half_life(interest: UserInterest) -> str:
    if not interest.HasField("half_life"):
        return "> 10 y"
    return f"{interest.half_life.ToTimedelta().total_seconds() / DAY_S:.1f} d"


def profile_table(
    title: str, profile: GetInterestProfileResponse, named: Collection[str], rows: int
) -> Table:
    """The strongest interests of a profile, and those named wherever they stand."""
    table = Table(title=plain(title), title_justify="left", title_style="bold", expand=True)
    table.add_column("interest", overflow="fold", max_width=34)
    table.add_column("state")
    for heading in ("retention", "forgetting", "half-life", "short", "long"):
        table.add_column(heading, justify="right")
    table.add_column("why", overflow="fold", ratio=1)
    for place, one in enumerate(profile.interests):
        if place < rows or one.interest in named:
            name = plain(one.interest)
            table.add_row(
                f"[bold]{name}[/]" if one.interest in named else name,
                painted(one.state),
                f"{one.retention:.2f}",
                f"{one.forgetting_score:.2f}",
                _half_life(one),
                f"{one.short_term:.2f}",
                f"{one.long_term:.2f}",
                f"[dim]{plain(one.reason.text)}[/]",
            )
    drift = (
        f"drift F(u,t) {profile.drift:.2f}"
        if profile.HasField("drift")
        else f"drift undefined: {profile.drift_undefined_reason}"
    )
    table.caption = plain(
        f"{drift} · {profile.event_count} events · {len(profile.interests)} interests · "
        f"retention within {profile.horizon.ToTimedelta().days} d, by the parameters of "
        f"{profile.forgetting_version}"
    )
    table.caption_justify = "left"
    return table


def _why(item: RecommendedItem) -> str:
    if not item.reasons:
        return "nothing known of what it is about"
    reasons = sorted(item.reasons, key=lambda reason: -reason.share * reason.retention)
    parts = [
        f"{plain(reason.interest)} {painted(reason.state)} {reason.retention:.2f}"
        if reason.state
        else f"{plain(reason.interest)} never engaged"
        for reason in reasons[:2]
    ]
    more = f" +{len(reasons) - 2}" if len(reasons) > 2 else ""
    return ", ".join(parts) + more


def slate_table(title: str, slate: Slate, rows: int) -> Table:
    """The first items of a slate: what, how relevant, F(u,i), p(i|u,t), and why."""
    table = Table(title=plain(title), title_justify="left", title_style="bold", expand=True)
    table.add_column("item, and why", overflow="fold", ratio=1)
    for heading in ("rel.", "F(u,i)", "p(i|u,t)"):
        table.add_column(heading, justify="right")
    for item in slate.items[:rows]:
        table.add_row(
            f"{plain(item.item_id)}\n[dim]{_why(item)}[/]",
            f"{item.relevance:.2f}" if item.HasField("relevance") else "-",
            f"{item.forgetting:.2f}",
            f"{item.probability:.2f}",
        )
    state = f" · degraded: {slate.degraded_reason}" if slate.degraded else ""
    table.caption = plain(
        f"R(u,t) {slate.article_score:.3f} over {len(slate.items)} items · "
        f"release {slate.release}{state}"
    )
    table.caption_justify = "left"
    return table


def beside(left: Table, right: Table, width: int) -> Table:
    """Two tables side by side, or one above the other where there is no room."""
    grid = Table.grid(expand=True, padding=(0, 1))
    if width >= NARROWEST_PAIR:
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(left, right)
    else:
        grid.add_column()
        grid.add_row(left)
        grid.add_row(right)
    return grid
