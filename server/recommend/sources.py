"""Candidates that no model brings: of friends, of what is looked at, of interests, popular ones."""

from __future__ import annotations

from collections.abc import Iterable

from server.catalog import Catalog
from server.recommend.candidates import Candidate, Source, known
from server.recommend.shelves import Shelves
from server.recommend.slates import ColdStart
from server.recommend.social import Social
from server.state.store import Store

__all__ = ["Sources"]

MOST_POPULAR = 512
MOST_OF_FRIENDS = 256
MOST_INTERESTS = 16
PER_INTEREST = 8


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
        """What related users engaged."""
        keys = await self._social.items(user_id, at_s, MOST_OF_FRIENDS)
        return known(keys, self._catalog.lookup(keys), Source.SOCIAL)

    def of_interests(self, interests: Iterable[str], source: Source) -> list[Candidate]:
        """The popular items of some interests, one of each in turn."""
        wanted = [name for name, _ in zip(interests, range(MOST_INTERESTS), strict=False)]
        keys = self._shelves.of_all(wanted, PER_INTEREST)
        return known(keys, self._catalog.lookup(keys), source)

    async def cold(
        self, user_id: str, at_s: float, looked_at: Iterable[str]
    ) -> tuple[ColdStart, list[Candidate]]:
        """Candidates for whom models have nothing, best first, and what the first of them are.

        Friends go before what is looked at, and that before what is popular.
        """
        friends = await self.of_friends(user_id, at_s)
        context = self.of_interests(looked_at, Source.CONTEXT)
        begun = ColdStart.SOCIAL if friends else ColdStart.CONTEXT if context else ColdStart.POPULAR
        return begun, [*friends, *context, *self.popular()]
