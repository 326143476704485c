"""Purge repartition topics: delete records once they are committed as processed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from streamstate.engine.ports import Admin, Clock, PortError
from streamstate.engine.task.task import Task

log = logging.getLogger("streamstate.worker")


class RepartitionPurger:
    """Deletes committed records of repartition topics at an interval.

    Args:
        admin: deletes records.
        clock: measures the interval.
        topics: real names of the repartition topics.
        interval_ms: time between two purges.
    """

    def __init__(self, admin: Admin, clock: Clock, topics: Iterable[str], interval_ms: int) -> None:
        self._admin = admin
        self._clock = clock
        self._topics = frozenset(topics)
        self._interval_ms = interval_ms
        self._last_ms = clock.monotonic_ms()

    def committed(self, tasks: Iterable[Task]) -> None:
        """Delete what these tasks have processed and committed, when the interval is over."""
        now = self._clock.monotonic_ms()
        if not self._topics or now - self._last_ms < self._interval_ms:
            return
        self._last_ms = now
        before = {
            partition: input_.committed
            for task in tasks
            for partition, input_ in task.inputs.items()
            if partition.topic in self._topics and input_.committed
        }
        if before:
            try:
                self._admin.delete_records(before)
            except PortError as error:
                # Only disk space depends on it.
                log.warning("repartition topics could not be purged, the next try is in a while: %s", error)
