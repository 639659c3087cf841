"""Items that no model of a release has seen: placed by its encoder, so that they can be retrieved.

In the background the catalogue is compared, whenever it has changed, with what the retrieval model
of a release knows; what it does not know is placed by the item encoder of the same release. A new
item can be recommended as soon as that is done, without any training.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray

from ebbing.items import encode_items
from ebbing.v1 import catalog_service_pb2 as pb
from server.errors import EbbingError
from server.inference.errors import InferenceError
from server.inference.loaded import LoadedRelease
from server.metrics import Metrics
from server.recommend.candidates import Candidate, Source
from server.state.store import ItemRecord, Store

__all__ = ["FreshItems"]

MOST_PLACED = 20_000
"""Unknown items that are placed; of more, which a release so old has, the first by id."""
MOST_OFFERED = 32
PAGE = 1000
PLACED_TOGETHER = 32
TIMEOUT_S = 30.0
RETRY_S = 1.0

log = structlog.get_logger()


@dataclass
class _Shelf:
    """What is known of the unknown items of one release."""

    asked: set[int] = field(default_factory=set)
    """Keys of the items the release has been asked about."""
    unknown: dict[int, ItemRecord] = field(default_factory=dict)
    """Those it does not know, as they were when they were placed."""
    items: list[ItemRecord] = field(default_factory=list)
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1), np.float32))
    """(N, D) of ``items``."""
    popularity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(N,)."""


class FreshItems:
    """Offers unknown items; ``run`` keeps up with the catalogue and the releases."""

    def __init__(
        self,
        store: Store,
        in_service: Callable[[], Iterable[LoadedRelease]],
        metrics: Metrics,
        poll_s: float,
    ) -> None:
        """Set up.

        Args:
            store: holds the catalogue.
            in_service: the releases that are asked.
            metrics: tell how many items are placed.
            poll_s: how often to look for changes, seconds.
        """
        self._store = store
        self._in_service = in_service
        self._metrics = metrics
        self._poll_s = poll_s
        self._shelves: dict[int, _Shelf] = {}
        self._seen: dict[int, int] = {}

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            try:
                await self.look()
            except (EbbingError, InferenceError) as error:
                log.warning("new items wait", error=str(error))
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("new items wait: unforeseen failure")
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """One look: place what is new to any release that has an encoder.

        Raises:
            InferenceError, StoreUnavailable: it cannot be done now.
        """
        releases = {one.release: one for one in self._in_service() if one.encodes_items}
        for gone in self._shelves.keys() - releases.keys():
            del self._shelves[gone]
            self._seen.pop(gone, None)
        version = self._store.catalogue_version()
        for number, release in releases.items():
            if self._seen.get(number) != version:
                await self._compare(release, self._shelves.setdefault(number, _Shelf()))
                self._seen[number] = version

    def best(self, release: int, user: NDArray[np.float32]) -> list[Candidate]:
        """The unknown items that fit a user's vector (D,) best, with their scores."""
        shelf = self._shelves.get(release)
        if shelf is None or not shelf.items or shelf.vectors.shape[1] != len(user):
            return []
        scores = shelf.vectors @ user + shelf.popularity
        most = min(MOST_OFFERED, len(scores))
        best = np.argpartition(-scores, most - 1)[:most]
        best = best[np.argsort(-scores[best], kind="stable")]
        return [Candidate(shelf.items[i], Source.FRESH, float(scores[i])) for i in best.tolist()]

    async def _compare(self, release: LoadedRelease, shelf: _Shelf) -> None:
        """Compare the catalogue with what a release knows, page by page."""
        after, there = "", dict[int, ItemRecord]()
        while page := self._store.list_items(after, PAGE):
            new = [item.item_key for item in page if item.item_key not in shelf.asked]
            unknown = set(await release.unknown(new, TIMEOUT_S)) if new else set()
            shelf.asked.update(new)
            for item in page:
                known = item.item_key in shelf.unknown or item.item_key in unknown
                if known and len(there) < MOST_PLACED:
                    there[item.item_key] = item
            after = page[-1].item_id
            if len(page) < PAGE:
                break
            await asyncio.sleep(0)
        await self._place(release, shelf, there)

    async def _place(
        self, release: LoadedRelease, shelf: _Shelf, there: dict[int, ItemRecord]
    ) -> None:
        """Have what changed placed, and put everything up at once."""
        places = {item.item_key: i for i, item in enumerate(shelf.items)}
        changed = [item for key, item in there.items() if shelf.unknown.get(key) != item]
        vectors: dict[int, tuple[NDArray[np.float32], np.float32]] = {}
        for start in range(0, len(changed), PLACED_TOGETHER):
            part = changed[start : start + PLACED_TOGETHER]
            encoded = encode_items([i.interests for i in part], [_contents(i) for i in part])
            placed = await release.place(encoded, TIMEOUT_S)
            for row, item in enumerate(part):
                vectors[item.item_key] = placed.vectors[row], placed.popularity[row]
        for key in there:
            if key not in vectors:
                vectors[key] = shelf.vectors[places[key]], shelf.popularity[places[key]]
        shelf.unknown = there
        shelf.items = list(there.values())
        if there:
            shelf.vectors = np.stack([vectors[key][0] for key in there])
            shelf.popularity = np.array([vectors[key][1] for key in there], np.float32)
        self._metrics.placed_items.labels(str(release.release)).set(len(there))
        if changed:
            log.info("new items placed", release=release.release, items=len(changed))


def _contents(item: ItemRecord) -> dict[str, NDArray[np.float32]]:
    if not item.body:
        return {}
    content = pb.Item.FromString(item.body).content
    return {name: np.array(vector.values, np.float32) for name, vector in content.items()}
