"""The composition root: builds the gateway, starts it, drains it, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from ebbing.signing import TrustedKeys
from ebbing.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    interest_service_pb2,
    interest_service_pb2_grpc,
    recommendation_service_pb2,
    recommendation_service_pb2_grpc,
    release_service_pb2,
    release_service_pb2_grpc,
    user_data_service_pb2,
    user_data_service_pb2_grpc,
    user_event_service_pb2,
    user_event_service_pb2_grpc,
)
from server.assessing import ReleaseAssess
from server.catalog import Catalog
from server.failpoints import Failpoint, arm
from server.inference.errors import TritonUnavailable
from server.inference.loaded import LoadedRelease
from server.inference.releases import Releases
from server.inference.triton import TritonClient
from server.ingest import Ingest
from server.metrics import BatchMetrics, Metrics
from server.ports import cannot_listen, require_port
from server.privacy import Privacy
from server.recommend.fresh import FreshItems
from server.recommend.pipeline import Recommender
from server.recommend.shelves import Shelves
from server.recommend.social import Social
from server.recommend.sources import Sources
from server.retention import Housekeeping
from server.rollout.calls import GuardedCalls
from server.rollout.control import RolloutControl
from server.rollout.guardrails import Guardrails
from server.rpc.boundary import Boundary
from server.rpc.catalog import CatalogServicer
from server.rpc.interests import Interests
from server.rpc.recommendations import Recommendations
from server.rpc.releases import ReleaseServicer
from server.rpc.user_data import UserData
from server.rpc.user_events import UserEvents
from server.rpc.watching import Watching, reason_bytes
from server.settings import Settings
from server.state.open import open_checked
from server.state.records import Records
from server.state.store import Store
from server.state.user_state import Bounds
from server.state.vaults import vault_of
from server.users import Users
from server.watch import News, Watch, WatchConfig

__all__ = ["Gateway", "gateway", "run"]

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (user_event_service_pb2, "UserEventService"),
        (catalog_service_pb2, "CatalogService"),
        (interest_service_pb2, "InterestService"),
        (recommendation_service_pb2, "RecommendationService"),
        (release_service_pb2, "ReleaseService"),
        (user_data_service_pb2, "UserDataService"),
    )
)
TRITON_POLL_S = 0.2

log = structlog.get_logger()


@dataclass(frozen=True)
class Gateway:
    """A gateway that serves."""

    address: str
    """host:port of gRPC."""
    metrics_address: str
    """host:port of /metrics."""
    release: LoadedRelease
    """The live release."""


@dataclass(frozen=True)
class _Parts:
    """What the services are made of."""

    metrics: Metrics
    releases: Releases
    rollout: RolloutControl
    fresh: FreshItems
    catalog: Catalog
    users: Users
    ingest: Ingest
    recommender: Recommender
    privacy: Privacy
    housekeeping: Housekeeping
    news: News
    watch: Watch
    watching: Watching


def _now_us() -> int:
    return time.time_ns() // 1000


async def _wait_for_triton(triton: TritonClient, timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + timeout_s
    while not await triton.server_ready():
        if loop.time() > give_up:
            raise TritonUnavailable(
                f"Triton does not answer at {triton.address}: start it with 'ebbing triton',"
                " or name its address with --triton"
            )
        await asyncio.sleep(TRITON_POLL_S)


def _serve_metrics(
    settings: Settings, registry: CollectorRegistry
) -> tuple[str, Callable[[], None]]:
    try:
        server, thread = start_http_server(settings.metrics_port, settings.host, registry)
    except OSError as error:
        raise cannot_listen(
            settings.host, settings.metrics_port, "--metrics-port", error
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return f"{settings.host}:{server.server_port}", stop


def _assemble(
    settings: Settings, store: Store, writer: Executor, triton: TritonClient, metrics: Metrics
) -> _Parts:
    catalog = Catalog(store, writer)
    users = Users(store, settings.max_interests_per_user)
    guardrails = Guardrails(settings.guardrails)
    releases = Releases(
        settings.repository,
        triton,
        GuardedCalls(guardrails, time.monotonic, BatchMetrics(metrics)),
        time.monotonic,
        settings.triton_timeout_s,
        TrustedKeys.read(settings.release_key_file) if settings.release_key_file else None,
    )
    touched = asyncio.Event()
    ingest = Ingest(
        store,
        writer,
        catalog,
        settings.event_weights,
        metrics,
        settings.max_pending_events,
        settings.group_commit_events,
        touched.set,
    )
    rollout = RolloutControl(
        store,
        writer,
        releases,
        guardrails,
        metrics,
        _now_us,
        time.monotonic,
        settings.rollout,
    )
    fresh = FreshItems(store, releases.in_service, metrics, settings.new_items_poll_s)
    shelves = Shelves(store, catalog, time.monotonic, settings.shelves_s)
    recommender = Recommender(
        store,
        users,
        catalog,
        rollout,
        Sources(store, catalog, shelves, Social(store)),
        fresh,
        settings.business_rules,
        metrics,
        time.monotonic,
        settings.recommender,
    )
    news = News()
    assess = lru_cache(lambda parameters: ReleaseAssess(parameters, reason_bytes))
    watch = Watch(
        store.alarms,
        writer,
        lambda: assess(releases.get(0).forgetting),
        news,
        metrics,
        _now_us,
        touched,
        lambda: ingest.busy,
        WatchConfig(
            settings.watch_batch_users,
            settings.watch_share,
            settings.watch_poll_s,
            settings.watch_renewal_s,
            settings.transitions_kept_s,
        ),
    )
    return _Parts(
        metrics=metrics,
        releases=releases,
        rollout=rollout,
        fresh=fresh,
        catalog=catalog,
        users=users,
        ingest=ingest,
        recommender=recommender,
        privacy=Privacy(store, writer, catalog, metrics, settings.repository),
        housekeeping=Housekeeping(
            store, writer, metrics, _now_us, lambda: ingest.busy, settings.retention_periods
        ),
        news=news,
        watch=watch,
        watching=Watching(store.alarms, news, settings.watch_poll_s),
    )


def _grpc_server(settings: Settings, parts: _Parts) -> grpc.aio.Server:
    server = grpc.aio.server(
        interceptors=[Boundary(parts.metrics, time.monotonic, lambda: uuid.uuid4().hex[:12])],
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(settings.shared_port)),
        ],
    )
    tolerance_us = round(settings.future_tolerance_s * 1e6)
    user_event_service_pb2_grpc.add_UserEventServiceServicer_to_server(
        UserEvents(
            parts.ingest,
            parts.metrics,
            _now_us,
            tolerance_us,
            settings.retention_periods,
            settings.limits,
        ),
        server,
    )
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(
        CatalogServicer(parts.catalog, settings.limits), server
    )
    interest_service_pb2_grpc.add_InterestServiceServicer_to_server(
        Interests(
            parts.users, parts.releases, parts.metrics, _now_us, settings.alpha, parts.watching
        ),
        server,
    )
    recommendation_service_pb2_grpc.add_RecommendationServiceServicer_to_server(
        Recommendations(parts.recommender, _now_us, settings.default_deadline_s), server
    )
    release_service_pb2_grpc.add_ReleaseServiceServicer_to_server(
        ReleaseServicer(settings.repository, parts.rollout), server
    )
    user_data_service_pb2_grpc.add_UserDataServiceServicer_to_server(
        UserData(parts.privacy, parts.releases, _now_us, lambda: uuid.uuid4().hex, settings.alpha),
        server,
    )
    if settings.reflection:
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    return server


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """Start a gateway; it drains and stops when the block ends.

    Raises:
        StartError: a port is taken.
        KeyFileError, SigningKeyError: a key file cannot be used.
        EbbingError: the state cannot be used.
        ManifestError, InferenceError: the release cannot be served, or Triton does not answer.
    """
    async with AsyncExitStack() as stack:
        if settings.failpoint:
            arm(Failpoint.parse(settings.failpoint))
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        metrics = Metrics(registry)
        bounds = Bounds(settings.max_interests_per_user, settings.max_user_bytes)
        vault = vault_of(settings, os.urandom, time.monotonic)
        stack.callback(vault.close)
        records = Records(vault, bounds)
        store = open_checked(
            settings.state,
            records,
            settings.state_check,
            time.monotonic,
            settings.max_state_bytes,
            metrics.unreplicated.inc,
        )
        stack.callback(store.close)
        writer = ThreadPoolExecutor(1, "state-writer")
        stack.callback(writer.shutdown)
        triton = await stack.enter_async_context(TritonClient(settings.triton))
        parts = _assemble(settings, store, writer, triton, metrics)
        server = _grpc_server(settings, parts)
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)

        # Ports first: whoever may not have them should not wait for models to load.
        if not settings.shared_port:
            require_port(settings.host, settings.port, "--port")
        require_port(settings.host, settings.metrics_port, "--metrics-port")
        try:
            port = server.add_insecure_port(f"{settings.host}:{settings.port}")
        except RuntimeError as error:
            raise cannot_listen(settings.host, settings.port, "--port", error) from error
        metrics_address, stop_metrics = _serve_metrics(settings, registry)
        stack.callback(stop_metrics)

        await _wait_for_triton(triton, settings.triton_start_timeout_s)
        release = await parts.rollout.begin(settings.release)

        committing = asyncio.create_task(parts.ingest.run())
        stack.push_async_callback(_ended, committing)
        for work in (parts.housekeeping.run(), parts.rollout.run(), parts.fresh.run()):
            stack.push_async_callback(_ended, asyncio.create_task(work))
        if settings.watch:
            stack.push_async_callback(_ended, asyncio.create_task(parts.watch.run()))
        await server.start()

        async def drain() -> None:
            await healthy.enter_graceful_shutdown()
            # gRPC cancels whatever arrives after it was told to stop, and whatever waits unread at
            # that moment; only a client that left before loses nothing.
            await asyncio.sleep(settings.lame_duck_s)
            parts.news.close()
            parts.rollout.news.close()
            await server.stop(settings.drain_s)
            await parts.recommender.drain()
            await parts.releases.drain()

        stack.push_async_callback(drain)
        for name in ("", *SERVICES):
            await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        yield Gateway(f"{settings.host}:{port}", metrics_address, release)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def run(settings: Settings, started: Callable[[Gateway], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``started`` is told when the gateway is ready."""
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    # A gateway that still starts has nothing to drain: a signal just ends it.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    async with gateway(settings) as serving:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        log.info("serving", address=serving.address, release=serving.release.release)
        started(serving)
        await stop.wait()
        log.info("draining", at_most_s=settings.lame_duck_s + settings.drain_s)
    log.info("stopped")
