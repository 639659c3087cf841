"""Every metric of the gateway, declared once. No label ever holds a user or an item."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["BatchMetrics", "Metrics"]

_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RATIO = tuple(i / 10 for i in range(1, 11))


class Metrics:
    """The gateway's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        rpc = ("grpc_service", "grpc_method")
        self.rpc_started = Counter(
            "grpc_server_started_total", "RPCs started", rpc, registry=registry
        )
        self.rpc_handled = Counter(
            "grpc_server_handled_total",
            "RPCs ended, by status code",
            (*rpc, "grpc_code"),
            registry=registry,
        )
        self.rpc_seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time RPCs took",
            rpc,
            buckets=_LATENCY,
            registry=registry,
        )
        self.user_events = Counter(
            "ebbing_user_events_total",
            "Events by type and outcome",
            ("event_type", "outcome"),
            registry=registry,
        )
        self.unreplicated = Counter(
            "ebbing_state_unreplicated_total",
            "Events acknowledged before a replica had them; lost if their server is lost now",
            registry=registry,
        )
        self.unknown_items = Counter(
            "ebbing_unknown_item_events_total",
            "Accepted events whose item the catalogue does not hold",
            registry=registry,
        )
        self.commit_events = Histogram(
            "ebbing_commit_events",
            "Events committed together",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=registry,
        )
        self.state_seconds = Histogram(
            "ebbing_state_operation_duration_seconds",
            "Time state operations took",
            ("operation",),
            buckets=_LATENCY,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "ebbing_batch_rows",
            "Users in one call to Triton",
            ("model",),
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.queue_wait = Histogram(
            "ebbing_batch_queue_wait_seconds",
            "Time requests waited for their batch",
            ("model",),
            buckets=_LATENCY,
            registry=registry,
        )
        self.triton_seconds = Histogram(
            "ebbing_triton_request_duration_seconds",
            "Time calls to Triton took",
            ("model", "version", "outcome"),
            buckets=_LATENCY,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "ebbing_recommend_stage_duration_seconds",
            "Time the stages of a recommendation took",
            ("stage",),
            buckets=_LATENCY,
            registry=registry,
        )
        self.slates = Counter(
            "ebbing_slates_total",
            "Slates by source of their first item",
            ("source", "degraded"),
            registry=registry,
        )
        self.denied_candidates = Counter(
            "ebbing_denied_candidates_total",
            "Candidates that a business rule denied",
            ("rule",),
            registry=registry,
        )
        self.breaker_open = Gauge(
            "ebbing_breaker_open",
            "1 while a model failed many times in a row and is left alone but for probes, else 0",
            ("release", "model"),
            registry=registry,
        )
        self.placed_items = Gauge(
            "ebbing_placed_items",
            "Items of the catalogue that the release has never seen and its encoder has placed",
            ("release",),
            registry=registry,
        )
        self.oov_items = Counter(
            "ebbing_oov_items_total",
            "History items the release's vocabulary does not hold",
            ("release",),
            registry=registry,
        )
        self.retention = Histogram(
            "ebbing_retention_ratio",
            "Retention of the strongest interest of users asked about",
            buckets=_RATIO,
            registry=registry,
        )
        self.drift = Histogram(
            "ebbing_interest_drift_ratio",
            "The articles' drift F of users asked about",
            buckets=(0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0),
            registry=registry,
        )
        self.transitions = Counter(
            "ebbing_interest_transitions_total",
            "Changes of state told, by the states before and after",
            ("from", "to"),
            registry=registry,
        )
        self.alarms = Counter(
            "ebbing_forgetting_alarms_total",
            "Users solved, because their alarm was due (time) or events had come (event)",
            ("cause",),
            registry=registry,
        )
        self.alarm_lag = Histogram(
            "ebbing_forgetting_alarm_lag_seconds",
            "Time from when an alarm was due until what came of it was written",
            buckets=(*_LATENCY, 10.0, 60.0, 600.0),
            registry=registry,
        )
        self.alarms_waiting = Gauge(
            "ebbing_forgetting_alarms_waiting",
            "Users to be solved, counted up to about 100000",
            registry=registry,
        )
        self.pruned = Counter(
            "ebbing_pruned_total",
            "What was forgotten because its retention period was over",
            ("kind",),
            registry=registry,
        )
        self.state_users = Gauge(
            "ebbing_state_users", "Users of whom state is kept", registry=registry
        )
        self.state_events = Gauge("ebbing_state_events", "Events kept", registry=registry)
        self.state_stored_bytes = Gauge(
            "ebbing_state_stored_bytes", "Bytes that the store holds", registry=registry
        )
        self.state_bytes_per_user = Gauge(
            "ebbing_state_bytes_per_user",
            "Bytes that the store holds per user, events and catalogue included",
            registry=registry,
        )
        self.release_info = Gauge(
            "ebbing_release_info",
            "1 for the releases in service",
            ("release", "layout"),
            registry=registry,
        )
        self.release_traffic = Gauge(
            "ebbing_release_traffic_ratio",
            "Share of the users a release serves",
            ("release", "role"),
            registry=registry,
        )
        self.rollbacks = Counter(
            "ebbing_release_rollbacks_total",
            "Releases rolled back because they broke a guardrail",
            ("guardrail",),
            registry=registry,
        )
        self.shadow_overlap = Histogram(
            "ebbing_shadow_overlap_ratio",
            "Share of a slate shown that is in the shadow's slate too",
            buckets=_RATIO,
            registry=registry,
        )


class BatchMetrics:
    """Tells the metrics what the micro-batchers do (``server.inference.batcher.BatchObserver``)."""

    def __init__(self, metrics: Metrics) -> None:
        """Set up on the metrics of the gateway."""
        self._metrics = metrics

    def request_waited(self, model: str, version: int, seconds: float) -> None:
        """A request left the queue for Triton."""
        self._metrics.queue_wait.labels(model).observe(seconds)

    def batch_sent(self, model: str, version: int, rows: int) -> None:
        """A call left for Triton."""
        self._metrics.batch_rows.labels(model).observe(rows)

    def batch_finished(
        self, model: str, version: int, rows: int, seconds: float, outcome: str
    ) -> None:
        """A call ended."""
        self._metrics.triton_seconds.labels(model, str(version), outcome).observe(seconds)
