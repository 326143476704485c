"""The latest timestamp each output topic takes.

A broker refuses a timestamp further ahead than ``message.timestamp.after.max.ms`` (an hour by default), and with it
every other record of its batch, which fails the transaction. So operators check before they send.
"""

from __future__ import annotations

from collections.abc import Callable

from streamstate.engine.ports import Admin, Retriable
from streamstate.operators import NO_LIMIT_MS, TaskInterrupted


class TopicLimits:
    """Limits by topic, kept current.

    Args:
        admin: asked once per topic.
        now_ms: wall clock.
    """

    def __init__(self, admin: Admin, now_ms: Callable[[], int]) -> None:
        self._admin = admin
        self._now_ms = now_ms
        self._cells: dict[str, list[int]] = {}
        self._limited: list[tuple[list[int], int]] = []

    def latest(self, topic: str) -> list[int]:
        """A one-element list that always holds the latest timestamp (ms) ``topic`` takes now.

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
        cell = self._cells[topic] = [NO_LIMIT_MS]
        after_ms = int(config.get("message.timestamp.after.max.ms", NO_LIMIT_MS))
        if config.get("message.timestamp.type") != "LogAppendTime" and after_ms < NO_LIMIT_MS - self._now_ms():
            self._limited.append((cell, after_ms))
            cell[0] = self._now_ms() + after_ms
        return cell

    def refresh(self, now_ms: int) -> None:
        """Time has passed."""
        for cell, after_ms in self._limited:
            cell[0] = now_ms + after_ms
