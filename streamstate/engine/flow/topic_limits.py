"""What each topic takes: the latest timestamp, the largest record, and whether records need a key.

A broker refuses a timestamp further ahead than ``message.timestamp.after.max.ms`` (an hour by default), a record
larger than ``max.message.bytes`` (1 MiB) and one without a key for a compacted topic, and with it every other record
of its batch, which fails the transaction. So operators check before they send.
"""

from __future__ import annotations

from collections.abc import Callable

from streamstate.engine.ports import Admin, Retriable
from streamstate.operators.base.context import NO_LIMIT_MS
from streamstate.operators.base.failures import TaskInterrupted

# What a record needs in a batch of its own beside its key, its value and its headers, at most.
FRAMING_BYTES = 93


class TopicLimits:
    """Knows the limits of each topic, and keeps them current.

    Args:
        admin: asked once per topic.
        now_ms: the wall clock.
        record_bytes: the largest record that the producer takes.
        compressed: the producer compresses, so that a record's size does not tell whether a topic takes it.
    """

    def __init__(
        self, admin: Admin, now_ms: Callable[[], int], record_bytes: int = 1_000_000, *, compressed: bool = False
    ) -> None:
        self._admin = admin
        self._now_ms = now_ms
        self._record_bytes = record_bytes
        self._compressed = compressed
        self._cells: dict[str, list[int]] = {}
        self._limited: list[tuple[list[int], int]] = []

    def of(self, topic: str) -> list[int]:
        """Three numbers that are always current: the latest timestamp (ms) that ``topic`` takes now, the most bytes
        of a record's key, value and headers, and 1 where every record needs a key, else 0.

        Raises:
            TaskInterrupted: no broker answers; what was under way starts over.
        """
        cell = self._cells.get(topic)
        if cell is not None:
            return cell
        try:
            config = self._admin.config([topic]).get(topic, {})
        except Retriable as error:
            raise TaskInterrupted(f"the limits of topic {topic!r} are not known: {error}") from error
        most = self._record_bytes
        if not self._compressed:
            most = min(most, int(config.get("max.message.bytes", most)))
        cell = self._cells[topic] = [
            NO_LIMIT_MS,
            most - FRAMING_BYTES,
            int("compact" in config.get("cleanup.policy", "")),
        ]
        after_ms = int(config.get("message.timestamp.after.max.ms", NO_LIMIT_MS))
        if config.get("message.timestamp.type") != "LogAppendTime" and after_ms < NO_LIMIT_MS - self._now_ms():
            self._limited.append((cell, after_ms))
            cell[0] = self._now_ms() + after_ms
        return cell

    def refresh(self, now_ms: int) -> None:
        """Move the latest timestamps on to the present time."""
        for cell, after_ms in self._limited:
            cell[0] = now_ms + after_ms
