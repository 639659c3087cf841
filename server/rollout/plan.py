"""The plan: which releases are in service, for what, and why. Pure; every change is a new plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import Any

from server.errors import AlreadyLive, NothingToRollBack, TrialUnderWay

__all__ = ["Plan", "Role", "Trial"]

KEPT_REASONS = 16
"""Releases whose reason is remembered after they left service, newest first."""


class Role(IntEnum):
    """What a release is for; numbers are those of ``ebbing.v1.ReleaseRole``."""

    IDLE = 1
    LIVE = 2
    CANARY = 3
    SHADOW = 4
    RETIRED = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """A release that is being tried beside the live one."""

    release: int
    """Its number."""
    role: Role
    """CANARY: its answers are shown. SHADOW: they are only compared."""
    share: float
    """Share of the users whom it answers, from 0 to 1."""

    def meets(self, user_id: str) -> bool:
        """Whether a user is among the share; whoever is stays so while the share grows."""
        digest = hashlib.blake2b(f"{self.release}\0{user_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * 2.0**64


@dataclass(frozen=True)
class Plan:
    """Which releases serve whom. At most one is a canary and one a shadow."""

    version: int = 0
    """Grows with every change; 0 before there is any plan."""
    live: int = 0
    """Serves whoever no canary serves; 0 before there is any plan."""
    before: int = 0
    """Was live before it, and still is in service; 0: none."""
    trials: tuple[Trial, ...] = ()
    """What is tried beside it."""
    live_us: int = 0
    """When the live release became so, microseconds since the epoch."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Why releases stand where they stand, by number; the newest last."""

    @classmethod
    def read(cls, version: int, body: bytes) -> Plan:
        """A plan as ``body`` wrote it.

        Raises:
            ValueError: it is none.
        """
        if not body:
            return cls(version)
        try:
            fields: dict[str, Any] = json.loads(body)
            fields["trials"] = tuple(
                Trial(t["release"], Role(t["role"]), t["share"]) for t in fields["trials"]
            )
            fields["reasons"] = {int(number): why for number, why in fields["reasons"].items()}
            return cls(**{**fields, "version": version})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"no rollout plan: {error}") from error

    @property
    def body(self) -> bytes:
        """The plan as a store keeps it, its version aside."""
        fields = asdict(self)
        del fields["version"]
        return json.dumps(fields).encode()

    @property
    def in_service(self) -> frozenset[int]:
        """Releases that gateways hold ready."""
        named = {self.live, self.before, *(trial.release for trial in self.trials)}
        return frozenset(named - {0})

    def trial(self, role: Role) -> Trial | None:
        """What is tried in a role."""
        return next((trial for trial in self.trials if trial.role is role), None)

    def role_of(self, release: int) -> tuple[Role, float]:
        """What a release is for, and the share of the users it answers."""
        canary = self.trial(Role.CANARY)
        if release == self.live:
            return Role.LIVE, 1.0 - (canary.share if canary else 0.0)
        for trial in self.trials:
            if trial.release == release:
                return trial.role, trial.share
        return (Role.RETIRED, 0.0) if release == self.before else (Role.IDLE, 0.0)

    def serving(self, user_id: str) -> int:
        """The release that answers a user: always the same one while the plan is."""
        canary = self.trial(Role.CANARY)
        return canary.release if canary and canary.meets(user_id) else self.live

    def shadowing(self, user_id: str) -> int:
        """The release that is asked beside, for comparison; 0: none."""
        shadow = self.trial(Role.SHADOW)
        return shadow.release if shadow and shadow.meets(user_id) else 0

    def tried(self, trial: Trial) -> Plan:
        """With a release tried, or tried with another share.

        Raises:
            AlreadyLive: it serves everybody already.
            TrialUnderWay: another release is being tried in that role.
        """
        if trial.release == self.live:
            raise AlreadyLive(
                f"release {trial.release} is live already: there is nothing to try",
                {"release": str(trial.release)},
            )
        other = self.trial(trial.role)
        if other and other.release != trial.release:
            raise TrialUnderWay(
                f"release {other.release} is the {trial.role.name.lower()}: promote it or roll it"
                " back first",
                {"release": str(other.release)},
            )
        rest = tuple(t for t in self.trials if t.release != trial.release)
        said = f"{trial.role.name.lower()} for {trial.share:.4g} of the users"
        before = 0 if self.before == trial.release else self.before
        return self._next({trial.release: said}, trials=(*rest, trial), before=before)

    def promoted(self, release: int, now_us: int, why: str = "") -> Plan:
        """With a release that has all the traffic; the live one stays at hand.

        Raises:
            AlreadyLive: it has it already.
        """
        if release == self.live:
            raise AlreadyLive(f"release {release} is live already", {"release": str(release)})
        reasons = {release: why or "promoted"}
        if self.live:
            reasons = {self.live: f"replaced by release {release}", **reasons}
        rest = tuple(trial for trial in self.trials if trial.release != release)
        return self._next(reasons, live=release, live_us=now_us, before=self.live, trials=rest)

    def rolled_back(self, now_us: int, why: str, release: int = 0) -> Plan:
        """Without what is being tried; or, where nothing is, with the release before live again.

        With a ``release`` named, it is that one which is rolled back.

        Raises:
            NothingToRollBack: nothing is tried, and no release was live before; or the one named
                is not in service, or is live without one before it.
        """
        if release:
            changed = self.without(release, now_us, why)
            if changed is self:
                raise NothingToRollBack(
                    f"release {release} is not in service, or no release was live before it",
                    {"release": str(release)},
                )
            return changed
        if self.trials:
            reasons = {trial.release: f"rolled back: {why}" for trial in self.trials}
            return self._next(reasons, trials=())
        if not self.before:
            raise NothingToRollBack("nothing is being tried, and no release was live before")
        return self._back(now_us, why)

    def without(self, release: int, now_us: int, why: str) -> Plan:
        """With one release rolled back, whatever it is for; unchanged if that cannot be."""
        if release == self.live:
            return self._back(now_us, why) if self.before else self
        if release == self.before:
            return self._next({release: why}, before=0)
        rest = tuple(trial for trial in self.trials if trial.release != release)
        if len(rest) == len(self.trials):
            return self
        return self._next({release: f"rolled back: {why}"}, trials=rest)

    def _back(self, now_us: int, why: str) -> Plan:
        reasons = {
            self.live: f"rolled back: {why}",
            self.before: f"live again after release {self.live}",
        }
        return self._next(reasons, live=self.before, live_us=now_us, before=0)

    def _next(self, reasons: Mapping[int, str], **changes: Any) -> Plan:
        told = {number: why for number, why in self.reasons.items() if number not in reasons}
        told |= reasons
        changed = replace(self, version=self.version + 1, **changes)
        gone = [number for number in told if number not in changed.in_service]
        for number in gone[: max(len(gone) - KEPT_REASONS, 0)]:
            del told[number]
        return replace(changed, reasons=told)
