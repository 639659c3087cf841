"""Candidates that no model brings: of friends, of what is looked at, of interests, popular ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from server.catalog import Catalog
from server.recommend.candidates import Candidate, Source, known
from server.recommend.shelves import Shelves
from server.recommend.slates import ColdStart
from server.recommend.social import Social
from server.state.store import Store

__all__ = ["Sources"]

MOST_POPULAR = 512
FASHION = 20.0
"""The most popular item counts as much as a twentieth of all friends, the next ones ever less."""
MOST_INTERESTS = 16
PER_INTEREST = 32


class Sources:
    """Brings candidates."""

    def __init__(self, store: Store, catalog: Catalog, shelves: Shelves, social: Social) -> None:
        """Set up on what they come from."""
        self._store = store
        self._catalog = catalog
        self._shelves = shelves
        self._social = social

    def popular(self) -> list[Candidate]:
        """What is engaged most of late, by anybody."""
        keys = self._store.popular(MOST_POPULAR)
        return known(keys, self._catalog.lookup(keys), Source.POPULAR)

    async def of_friends(self, user_id: str, at_s: float) -> list[Candidate]:
        """What related users engaged, best first."""
        shares = await self._social.shares(user_id, at_s)
        return self._blended(shares, shares)

    def _blended(self, keys: Iterable[int], shares: Mapping[int, float]) -> list[Candidate]:
        """Items by the share of friends who engaged them and by their place among the popular."""
        places = {key: place for place, key in enumerate(self._store.popular(MOST_POPULAR))}
        worth = {
            key: shares.get(key, 0.0) + 1.0 / (FASHION + places.get(key, MOST_POPULAR))
            for key in keys
        }
        best = sorted(worth, key=lambda key: (-worth[key], key))[:MOST_POPULAR]
        items = self._catalog.lookup(best)
        return [
            Candidate(items[key], Source.SOCIAL if key in shares else Source.POPULAR)
            for key in best
            if key in items
        ]

    async def of_interests(self, interests: Iterable[str], source: Source) -> list[Candidate]:
        """Items of some interests, popular ones first, one of each interest in turn."""
        wanted = [name for name, _ in zip(interests, range(MOST_INTERESTS), strict=False)]
        keys = await self._shelves.of_all(wanted, PER_INTEREST)
        return known(keys, self._catalog.lookup(keys), source)

    async def cold(
        self, user_id: str, at_s: float, looked_at: Iterable[str]
    ) -> tuple[ColdStart, list[Candidate]]:
        """Candidates for whom models have nothing, best first, and what the first of them are.

        Friends go before what is looked at, and that before what is popular; what friends engage
        and what is popular are weighed against each other where nothing is looked at.
        """
        shares = await self._social.shares(user_id, at_s)
        context = await self.of_interests(looked_at, Source.CONTEXT)
        if not shares:
            begun = ColdStart.CONTEXT if context else ColdStart.POPULAR
            return begun, [*context, *self.popular()]
        if context:
            friends = self._blended(shares, shares)
            return ColdStart.SOCIAL, [*friends, *context, *self.popular()]
        everything = [*shares, *self._store.popular(MOST_POPULAR)]
        return ColdStart.SOCIAL, self._blended(everything, shares)
