"""Callers who ask for slates as fast as they are answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from ebbing.client import EbbingError
from tests.harness.gateway import GatewayProcess
from tests.harness.release import LOG


class Callers:
    """Ask in a closed loop until the block ends, each for one user after another."""

    def __init__(
        self,
        gateway: GatewayProcess,
        users: Sequence[str],
        threads: int = 4,
        pause_s: float = 0.0,
    ) -> None:
        """Set up for users of the generated log; each asks again after a pause."""
        self.answered: Counter[int] = Counter()
        """Slates by the release that answered."""
        self.degraded = 0
        self.failures: list[EbbingError] = []
        self.slowest_s = 0.0
        self._gateway, self._users, self._pause_s = gateway, users, pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with self._gateway.client() as client:
            while not self._stop.wait(self._pause_s):
                user = self._users[number % len(self._users)]
                number += 1
                began = time.monotonic()
                try:
                    slate = client.recommend(user, LOG.end)
                except EbbingError as error:
                    self.failures.append(error)
                    continue
                with self._lock:
                    self.answered[slate.release] += 1
                    self.degraded += slate.degraded
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
