"""What Redis servers say of themselves, and whether they can hold a store."""

from __future__ import annotations

from hashlib import blake2b

from server.errors import StoreUnavailable
from server.state.redis_keys import Place
from server.state.redis_link import Address, Command, RedisLink, Word
from server.state.redis_scripts import FOUND

__all__ = ["facts_of", "used_bytes"]

SCHEMA_VERSION = 2
OLDEST_SERVER = (6, 2)


def facts_of(
    link: RedisLink, address: Address, fingerprint: str, partitions: int, volatile: bool
) -> dict[str, str]:
    """What is known of the store; made if it is not there.

    Raises:
        StoreUnavailable: the servers cannot hold one, or the one they hold cannot be read.
    """
    origins = []
    for name in link.masters:
        about = _told(link.ask(name, "INFO"))
        _require_fit(about, address.cluster, volatile)
        origins.append(about["run_id"])
    place = Place(f"{{{address.name}}}")
    (now,) = link.read([Command(place.slot, ("TIME",))])
    # Chance is the servers': each has taken a random id when it started.
    origin = repr((address.name, origins, now)).encode()
    facts: dict[str, Word] = {
        "schema": SCHEMA_VERSION,
        "partitions": partitions,
        "store_id": blake2b(origin, digest_size=16).hexdigest(),
        "vault": fingerprint,
    }
    words = [word for fact in facts.items() for word in fact]
    (flat,) = link.write([Command.of(FOUND, place.slot, [place("facts")], *words)])
    known = dict(zip(*[(one.decode() for one in flat)] * 2, strict=True))
    if known["schema"] != str(SCHEMA_VERSION):
        raise StoreUnavailable(
            f"the state is of version {known['schema']}, this gateway reads {SCHEMA_VERSION}:"
            " run the version that wrote it"
        )
    if known["vault"] != fingerprint:
        raise StoreUnavailable(
            "the state was written with other keys: give the ones it was written with, or move"
            " it with 'ebbing state migrate'"
        )
    return known


def used_bytes(link: RedisLink) -> int:
    """Memory that all servers use, bytes."""
    return sum(int(_told(link.ask(name, "INFO", "memory"))["used_memory"]) for name in link.masters)


def _require_fit(about: dict[str, str], cluster: bool, volatile: bool) -> None:
    """Raise if a server, by what it says of itself, cannot hold a store.

    Raises:
        StoreUnavailable: it cannot.
    """
    version = tuple(map(int, about["redis_version"].split(".")[:2]))
    if version < OLDEST_SERVER:
        raise StoreUnavailable(
            f"the state server is Redis {about['redis_version']}: run Redis 6.2, Valkey, or later"
        )
    if about["role"] != "master":
        raise StoreUnavailable("the state server is a replica: name the server that takes writes")
    if about.get("cluster_enabled") == "1" and not cluster:
        raise StoreUnavailable("the state server is one of a Cluster: write redis+cluster://…")
    if about["aof_enabled"] != "1" and not volatile:
        raise StoreUnavailable(
            "the state server would lose events when it restarts: set 'appendonly yes' and"
            " 'appendfsync always' on it"
        )
    if about["maxmemory_policy"] != "noeviction":
        raise StoreUnavailable(
            "the state server would evict state when its memory is full: set 'maxmemory-policy"
            " noeviction' on it"
        )


def _told(information: bytes) -> dict[str, str]:
    """What ``INFO`` says."""
    lines = (line.partition(":") for line in information.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}
