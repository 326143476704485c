"""How long a worker goes on without success."""

from __future__ import annotations

import logging

from streamstate.engine.ports import Clock
from streamstate.errors import BrokerUnavailable

log = logging.getLogger("streamstate.worker")

LOG_MS = 60_000


class Patience:
    """Says once a minute that nothing works, and gives up after a limit.

    Args:
        clock: for both.
        limit_ms: after which it gives up.
    """

    def __init__(self, clock: Clock, limit_ms: int) -> None:
        self._clock = clock
        self._limit_ms = limit_ms
        self._since_ms: int | None = None
        self._logged_ms = 0

    def success(self) -> None:
        """Something was committed, or there was nothing to commit."""
        self._since_ms = None

    def outage(self, reason: str) -> None:
        """No broker answered.

        Raises:
            BrokerUnavailable: it has been so for too long.
        """
        waited_ms = self._waited()
        if waited_ms >= self._limit_ms:
            raise BrokerUnavailable(
                f"no broker has answered for {waited_ms // 1000} s (limit: --broker-timeout): {reason}. Nothing is "
                f"lost; start again when the brokers are back"
            )
        now = self._clock.monotonic_ms()
        if waited_ms == 0 or now - self._logged_ms >= LOG_MS:
            self._logged_ms = now
            log.warning("no progress for %d s, still trying: %s", waited_ms // 1000, reason)

    def rollback(self, reason: str) -> None:
        """A transaction failed.

        Raises:
            BrokerUnavailable: none has succeeded for too long.
        """
        waited_ms = self._waited()
        if waited_ms >= self._limit_ms:
            raise BrokerUnavailable(
                f"no transaction has succeeded for {waited_ms // 1000} s (limit: --broker-timeout): {reason}"
            )

    def _waited(self) -> int:
        now = self._clock.monotonic_ms()
        if self._since_ms is None:
            self._since_ms = now
        return now - self._since_ms
