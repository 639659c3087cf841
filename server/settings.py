"""The gateway's settings: frozen, checked once, the only reader of the environment.

Each can be given as ``EBBING_<NAME>`` in the environment; flags of ``ebbing serve`` go first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType, event_type_from_name

__all__ = ["Settings"]

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Everything that can be set about a gateway."""

    model_config = SettingsConfigDict(env_prefix="EBBING_", frozen=True, extra="ignore")

    state: Path = Path("ebbing.db")
    """SQLite file that holds events and state; made if missing."""
    repository: Path = Path("triton_repo")
    """Folder of models and releases that Triton reads too."""
    release: int = Field(0, ge=0)
    """Release to serve; 0 is the newest."""
    triton: str = "127.0.0.1:8001"
    """gRPC address of Triton."""
    triton_timeout_s: float = Field(2.0, gt=0, le=60)
    """Longest time one call to Triton may take, seconds."""
    triton_start_timeout_s: float = Field(60.0, gt=0, le=600)
    """How long to wait for Triton at start, seconds."""

    host: str = "127.0.0.1"
    """Address the gRPC port binds to."""
    port: Port = 50051
    """gRPC port; 0 takes a free one."""
    metrics_port: Port = 9464
    """Port of /metrics; 0 takes a free one."""
    reflection: bool = True
    """Whether clients may ask for the contract."""
    max_message_bytes: int = Field(8 * 2**20, ge=2**16, le=2**30)
    """Largest message taken, bytes."""
    default_deadline_s: float = Field(5.0, gt=0, le=300)
    """Deadline of a call that brings none, seconds."""
    lame_duck_s: float = Field(1.0, ge=0, le=60)
    """How long after SIGTERM new calls are still answered, seconds. Health says NOT_SERVING all the
    while, so that clients and load balancers turn to other gateways before this one refuses."""
    drain_s: float = Field(10.0, ge=0, le=600)
    """How long running calls may take to end once new ones are refused, seconds."""

    max_pending_events: int = Field(20_000, ge=1000, le=1_000_000)
    """Events that may wait for their commit; beyond, writes are refused for the moment."""
    group_commit_events: int = Field(1000, ge=1, le=10_000)
    """Events committed together at most."""
    max_state_bytes: int = Field(0, ge=0)
    """Largest size of the state file, bytes; 0 is as large as the disk allows."""
    max_interests_per_user: int = Field(128, ge=8, le=1024)
    """Interests kept per user; the weakest long-term interest goes first."""
    future_tolerance_s: float = Field(60.0, ge=0, le=86400)
    """How far an event may lie in the future before it is refused, seconds."""
    event_weights: dict[EventType, float] = dict(DEFAULT_EVENT_WEIGHTS)
    """Interest one event of each type shows; 0 leaves no trace. JSON by name, others unchanged."""

    watch: bool = True
    """Whether this gateway looks for changes of interests' states; of several on one state at least
    one has to. Any gateway streams them."""
    watch_batch_users: int = Field(64, ge=1, le=10_000)
    """Users solved together at most; events that arrive meanwhile wait for it, some 20 ms."""
    watch_share: float = Field(0.1, gt=0, le=1)
    """Share of the writing thread's time that goes into users events have come from, while more
    events wait to be written. Alarms that are due are solved in any case."""
    watch_poll_s: float = Field(0.2, ge=0.01, le=10)
    """How often to look for what other gateways have written, seconds."""
    watch_renewal_s: float = Field(3600.0, ge=1, le=30 * 86400)
    """Over how long all users are solved anew where a release has other forgetting parameters,
    seconds."""
    transitions_kept_s: float = Field(7 * 86400.0, ge=60, le=365 * 86400)
    """How long a watcher may be away and still go on from its cursor, seconds."""

    alpha: float = Field(5.0, ge=0, le=1000)
    """The articles' α in p(i|u,t) = softmax(−α F)."""
    forgetting_share: float = Field(0.7, ge=0, le=1)
    """How much of a FOLLOW score hangs on retention; 0 ranks by relevance alone."""
    candidates: int = Field(128, ge=1, le=512)
    """Candidates ranked for a slate."""

    @field_validator("event_weights", mode="before")
    @classmethod
    def _weights_by_name(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        named = {event_type_from_name(k) if isinstance(k, str) else k: v for k, v in given.items()}
        return {**DEFAULT_EVENT_WEIGHTS, **named}

    @field_validator("event_weights")
    @classmethod
    def _weights_in_range(cls, weights: dict[EventType, float]) -> dict[EventType, float]:
        for kind, weight in weights.items():
            if weight and not 1e-6 <= weight <= 1000.0:
                raise ValueError(f"weight of {kind.name} must be 0, or from 0.000001 to 1000")
        return weights
