"""How long a worker goes on without success."""

from __future__ import annotations

import logging

from streamstate.engine.ports import Clock
from streamstate.errors import BrokerUnavailable

log = logging.getLogger("streamstate.worker")

LOG_MS = 60_000
# Failures further apart than this are not one outage: between them there was nothing to commit. Longer than a commit
# is tried.
STREAK_MS = 180_000


class OutageMonitor:
    """Says once a minute that nothing works, and gives up after a limit.

    Args:
        clock: for both.
        limit_ms: after which it gives up.
    """

    def __init__(self, clock: Clock, limit_ms: int) -> None:
        self._clock = clock
        self._limit_ms = limit_ms
        self._silent_since_ms: int | None = None
        self._failing_since_ms: int | None = None
        self._failed_ms = 0
        self._logged_ms: int | None = None

    def begin(self) -> None:
        """Nothing has answered yet: the limit counts from now."""
        self._silent_since_ms = self._clock.monotonic_ms()

    def answered(self) -> None:
        """Every question of this turn was answered."""
        self._silent_since_ms = None

    def committed(self) -> None:
        """A transaction succeeded. An idle turn does not say so: after a failed one there is nothing to commit."""
        self._silent_since_ms = self._failing_since_ms = None

    def outage(self, reason: str, *, expected: bool = False) -> None:
        """No broker answered.

        Args:
            reason: what failed.
            expected: it happens for some seconds when others end; worth a line only when it lasts.

        Raises:
            BrokerUnavailable: it has been so for too long.
        """
        now = self._clock.monotonic_ms()
        if self._silent_since_ms is None:
            self._silent_since_ms = now
            self._logged_ms = None
        first = self._logged_ms is None
        waited_ms = now - self._silent_since_ms
        if waited_ms >= self._limit_ms:
            raise BrokerUnavailable(
                f"no broker has answered for {waited_ms // 1000} s (limit: --broker-timeout): {reason}. Nothing is "
                f"lost; start again when the brokers are back"
            )
        if first and expected:
            self._logged_ms = now
        elif self._logged_ms is None or now - self._logged_ms >= LOG_MS:
            self._logged_ms = now
            log.warning("no progress for %d s, still trying: %s", waited_ms // 1000, reason)

    def rollback(self, reason: str) -> None:
        """A transaction failed.

        Raises:
            BrokerUnavailable: none has succeeded for too long.
        """
        now = self._clock.monotonic_ms()
        if self._failing_since_ms is None or now - self._failed_ms > STREAK_MS:
            self._failing_since_ms = now
        self._failed_ms = now
        waited_ms = now - self._failing_since_ms
        if waited_ms >= self._limit_ms:
            raise BrokerUnavailable(
                f"no transaction has succeeded for {waited_ms // 1000} s (limit: --broker-timeout): {reason}"
            )
