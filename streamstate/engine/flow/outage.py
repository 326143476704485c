"""Notice that brokers do not answer, or that transactions do not succeed, for too long."""

from __future__ import annotations

import logging

from streamstate.engine.ports import Clock
from streamstate.errors import BrokerUnavailable

log = logging.getLogger("streamstate.worker")

LOG_MS = 60_000
# Failures further apart than this are separate outages: between them there was nothing to commit. Longer than the
# time-out of a commit.
STREAK_MS = 180_000


class OutageMonitor:
    """Logs an outage every minute and fails after ``limit_ms``.

    Args:
        clock: measures the outage.
        limit_ms: how long an outage may last.
    """

    def __init__(self, clock: Clock, limit_ms: int) -> None:
        self._clock = clock
        self._limit_ms = limit_ms
        self._silent_since_ms: int | None = None
        self._failing_since_ms: int | None = None
        self._failed_ms = 0
        self._logged_ms: int | None = None

    def begin(self) -> None:
        """Start to count: no broker has answered yet."""
        self._silent_since_ms = self._clock.monotonic_ms()

    def answered(self) -> None:
        """End an outage: the brokers answered every request of this tick."""
        self._silent_since_ms = None

    def committed(self) -> None:
        """End a series of failed transactions. An idle tick does not: after a roll-back it has nothing to commit."""
        self._silent_since_ms = self._failing_since_ms = None

    def outage(self, reason: str, *, expected: bool = False) -> None:
        """Count and log an outage.

        Args:
            reason: what failed.
            expected: other processes cause it for some seconds when they end, so log it only when it lasts.

        Raises:
            BrokerUnavailable: the outage has lasted for the limit.
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
        """Count a failed transaction.

        Raises:
            BrokerUnavailable: no transaction has succeeded for the limit.
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
