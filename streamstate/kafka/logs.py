"""The log of the Kafka clients, at a bounded rate.

While brokers are away a client reports every attempt to reach them, some twenty lines a second. The worker says once a
minute what that means; of the client's own lines one per kind and interval is enough.
"""

from __future__ import annotations

import logging
import time

INTERVAL_S = 10.0
# Part of every first contact with a new broker; the client repeats the request by itself.
HARMLESS = "Coordinator load in progress"


class RateLimit(logging.Filter):
    """Lets one line per kind (its first word, such as FAIL) pass in each interval."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See ``logging.Filter``."""
        text = record.getMessage()
        if HARMLESS in text:
            return False
        kind = text.partition(" ")[0]
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._next[kind] = now + INTERVAL_S
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            record.msg, record.args = f"{text} ({left_out} more {kind} lines since the last one)", ()
        return True


def client_logger() -> logging.Logger:
    """The logger to give to every Kafka client: ``streamstate.librdkafka``."""
    logger = logging.getLogger("streamstate.librdkafka")
    if not any(isinstance(known, RateLimit) for known in logger.filters):
        logger.addFilter(RateLimit())
    return logger
