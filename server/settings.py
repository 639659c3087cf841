"""The gateway's settings: frozen, checked once, the only reader of the environment.

Each can be given as ``EBBING_<NAME>`` in the environment; flags of ``ebbing serve`` go first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType, event_type_from_name
from server.failpoints import Failpoint
from server.limits import Limits
from server.recommend.rules import Rules, load_rules
from server.recommend.slates import RecommenderConfig
from server.recommend.strategies import StrategyConfig
from server.retention import RetentionPeriods
from server.rollout.control import RolloutConfig
from server.rollout.guardrails import GuardrailConfig
from server.state.open import StateCheck, location

__all__ = ["Settings", "environment_with"]

CONTRACT = Limits()
SHORTEST_PERIOD_S = 30 * 86400.0
Port = Annotated[int, Field(ge=0, le=65535)]


PREFIX = "EBBING_"


def environment_with(given: Mapping[str, object]) -> dict[str, str]:
    """The environment for another process that shall have these settings, by name, and ours."""
    return {
        **os.environ,
        **{f"{PREFIX}{name.upper()}": str(value) for name, value in given.items()},
    }


class Settings(BaseSettings):
    """Everything that can be set about a gateway."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    state: Path | str = Path("ebbing.db")
    """SQLite file that holds events and state, made if missing; or the URL of a Redis."""
    state_check: StateCheck = "quick"
    """What of a state file is checked before anything is served from it: all (``full``, some 25 s
    per GB), what there is time for in half a second (``quick``), or only that nothing is missing
    (``off``). Whatever is read of users later is checked in any case."""
    pseudonym_key_file: Path | None = None
    """Key file for the names users are stored under; without it, users are stored under their ids.
    Its first key names them. A state is of one such key: under another it has to be moved."""
    master_key_file: Path | None = None
    """Key file that wraps users' data keys; without it, nothing is encrypted. Its first key wraps,
    any of them unwraps. Both files are made with ``ebbing keys new``."""
    keyring: str = ""
    """SQLite file of users' data keys, which is in no backup of the state; made if missing. Without
    it, the name of the state file and ``.keys``."""
    repository: Path = Path("triton_repo")
    """Folder of models and releases that Triton reads too."""
    release: int = Field(0, ge=0)
    """Release that the rollout of a new state begins with; 0 is the newest. Afterwards the state
    knows which one is live, and ``ebbing rollout`` changes it."""
    release_key_file: Path | None = None
    """File of public keys; a release is served only if one of them signed it. Without it, releases
    are served that are whole and unchanged since somebody published them, whoever that was."""
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
    workers: int = Field(1, ge=1, le=64)
    """Gateway processes that share the gRPC port and the state; the metrics of each have a port of
    their own, one after another."""
    shared_port: bool = False
    """Whether other processes may serve on the same gRPC port; set for the workers."""
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
    max_user_bytes: int = Field(12 * 1024, ge=4096, le=2**20)
    """Bytes kept per user besides the event log; over it, too, the weakest interest goes first."""
    future_tolerance_s: float = Field(60.0, ge=0, le=86400)
    """How far an event may lie in the future before it is refused, seconds."""
    event_weights: dict[EventType, float] = dict(DEFAULT_EVENT_WEIGHTS)
    """Interest one event of each type shows; 0 leaves no trace. JSON by name, others unchanged."""

    events_kept_s: float = Field(0.0, ge=0, le=100 * 365 * 86400)
    """How long events are kept, seconds, at least 30 days; 0 is for ever. Older ones are forgotten,
    and new ones that old, less 3 days, are refused: once forgotten they could not be told from
    others. What they said of interests stays in the users' states; but trainers, answers as of past
    moments and a rebuild of states have only the events that are kept."""
    inactive_users_kept_s: float = Field(0.0, ge=0, le=100 * 365 * 86400)
    """How long after their newest event users are kept, seconds, at least 30 days; 0 is for ever.
    Then they are forgotten wholly, as if they had never been; if they come back they are new."""
    deletions_kept_s: float = Field(0.0, ge=0, le=100 * 365 * 86400)
    """How long it is remembered that a user was deleted, seconds; 0 is for ever. It keeps events
    from before the deletion out, so it may be set only with ``events_kept_s``, and not below it."""

    max_id_bytes: int = Field(CONTRACT.id_bytes, ge=16, le=CONTRACT.id_bytes)
    """Bytes of an id that is written, at most."""
    max_path_bytes: int = Field(CONTRACT.path_bytes, ge=16, le=CONTRACT.path_bytes)
    """Bytes of an interest's path that is written, at most."""
    max_text_bytes: int = Field(CONTRACT.text_bytes, ge=64, le=CONTRACT.text_bytes)
    """Bytes of an event's query or attribution token, or an item's attribute, at most."""
    max_interests_per_event: int = Field(CONTRACT.interests, ge=1, le=CONTRACT.interests)
    """Interests of one event or item, at most."""
    max_batch_events: int = Field(CONTRACT.events, ge=1, le=CONTRACT.events)
    """Events of one call, at most. ``ebbing.client`` sends as many as the contract allows."""
    max_batch_rows: int = Field(CONTRACT.rows, ge=1, le=CONTRACT.rows)
    """Items, interests or relations of one call, at most. As for events."""

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

    rollout_poll_s: float = Field(1.0, ge=0.05, le=60)
    """How often to look for a change of the rollout that another gateway made, and to judge what is
    tried, seconds."""
    release_linger_s: float = Field(15.0, ge=0, le=3600)
    """How long a release that left the rollout stays loaded, seconds, well above
    ``rollout_poll_s``: other gateways of the same Triton may still ask it."""
    probation_s: float = Field(600.0, ge=0, le=30 * 86400)
    """How long after its promotion a release may still be rolled back by a guardrail, seconds."""
    guardrail_samples: int = Field(50, ge=10, le=1024)
    """Slates of either release before one that is tried is judged by more than its failures."""
    guardrail_failures: float = Field(0.05, ge=0, le=1)
    """Largest share of slates for which the models of a release that is tried may fail, above that
    of the release it is compared with."""
    guardrail_slowdown: float = Field(1.3, gt=1, le=100)
    """Largest median time of its models, over that of the other release."""
    guardrail_oov: float = Field(0.2, ge=0, le=1)
    """Largest share of history items it does not know, above that of the other release."""
    guardrail_empty: float = Field(0.05, ge=0, le=1)
    """Largest share of slates for which its models offer nothing, above that of the other."""
    guardrail_overlap: float = Field(0.0, ge=0, le=1)
    """Least mean share of the slates shown that a shadow's slates must have; 0 asks for none."""
    guardrail_retention: float = Field(0.25, ge=0, le=1)
    """Largest difference in the mean retention of what its slates are about."""

    alpha: float = Field(5.0, ge=0, le=1000)
    """The articles' α in p(i|u,t) = softmax(−α F)."""
    forgetting_share: float = Field(0.7, ge=0, le=1)
    """How much of a FOLLOW score hangs on retention; 0 ranks by relevance alone."""
    candidates: int = Field(200, ge=1, le=512)
    """Candidates ranked for a slate; 200 is all that retrieval offers."""
    explore_share: float = Field(0.9, ge=0, le=1)
    """How much of an EXPLORE score hangs on what the user has not engaged yet."""
    rekindle_share: float = Field(0.3, gt=0, le=1)
    """Share of the places of a slate that REKINDLE may take, at least one."""
    rekindle_daily: int = Field(3, ge=1, le=1000)
    """Times a day that items of an interest are shown to win it back, by the impressions sent."""
    diversity: float = Field(0.0, ge=0, le=1)
    """How much unlikeness counts in a slate where a request does not say; 0: not at all."""
    max_per_interest: int = Field(0, ge=0, le=100)
    """Items of one main interest in a slate, as far as others are at hand; 0: any number."""
    rules: Path | None = None
    """TOML file of business rules, see ``server.recommend.rules``; read at start."""
    new_items_poll_s: float = Field(0.25, ge=0.01, le=60)
    """How often to look for items that the releases in service have never seen, seconds."""
    shelves_s: float = Field(10.0, ge=0, le=3600)
    """How old the popular items of each interest may be, seconds."""

    failpoint: str = ""
    """For tests only: where the gateway kills itself, such as ``append.logged:kill:3``, see
    ``server.failpoints``; empty: nowhere."""

    @property
    def retention_periods(self) -> RetentionPeriods:
        """How long things are kept."""
        return RetentionPeriods(
            self.events_kept_s, self.inactive_users_kept_s, self.deletions_kept_s
        )

    @property
    def recommender(self) -> RecommenderConfig:
        """How slates are made."""
        return RecommenderConfig(
            alpha=self.alpha,
            candidates=self.candidates,
            diversity=self.diversity,
            per_interest=self.max_per_interest,
            strategies=StrategyConfig(
                forgetting_share=self.forgetting_share,
                explore_share=self.explore_share,
                rekindle_share=self.rekindle_share,
                rekindle_daily=self.rekindle_daily,
            ),
        )

    @property
    def business_rules(self) -> Rules:
        """The business rules.

        Raises:
            RuleError: their file does not read, or a rule is none.
        """
        return load_rules(self.rules) if self.rules else Rules()

    @property
    def rollout(self) -> RolloutConfig:
        """How to keep to the rollout."""
        return RolloutConfig(self.rollout_poll_s, self.release_linger_s, self.probation_s)

    @property
    def guardrails(self) -> GuardrailConfig:
        """What a release that is tried may do."""
        return GuardrailConfig(
            samples=self.guardrail_samples,
            failures=self.guardrail_failures,
            slowdown=self.guardrail_slowdown,
            oov=self.guardrail_oov,
            empty=self.guardrail_empty,
            overlap=self.guardrail_overlap,
            retention=self.guardrail_retention,
        )

    @property
    def limits(self) -> Limits:
        """How much one write may hold."""
        return Limits(
            id_bytes=self.max_id_bytes,
            path_bytes=self.max_path_bytes,
            text_bytes=self.max_text_bytes,
            interests=self.max_interests_per_event,
            events=self.max_batch_events,
            rows=self.max_batch_rows,
        )

    @field_validator("state", mode="before")
    @classmethod
    def _state_located(cls, given: object) -> object:
        return location(given) if isinstance(given, str) else given

    @field_validator("events_kept_s", "inactive_users_kept_s")
    @classmethod
    def _period_long_enough(cls, kept_s: float) -> float:
        if 0 < kept_s < SHORTEST_PERIOD_S:
            raise ValueError(f"must be at least {SHORTEST_PERIOD_S:.0f} (30 days), or 0 for ever")
        return kept_s

    @field_validator("deletions_kept_s")
    @classmethod
    def _deletions_outlast_events(cls, kept_s: float, info: ValidationInfo) -> float:
        # Fields are checked in order, so the others are there, unless they are wrong themselves.
        events_s = info.data.get("events_kept_s", 0.0)
        least_s = events_s + info.data.get("future_tolerance_s", 0.0)
        if kept_s and (not events_s or kept_s < least_s):
            raise ValueError(
                f"must be 0 for ever, or at least {least_s:.0f} with events_kept_s above 0: events"
                " of before the deletion would be taken again"
            )
        return kept_s

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

    @field_validator("failpoint")
    @classmethod
    def _failpoint_exists(cls, text: str) -> str:
        if text:
            Failpoint.parse(text)
        return text
