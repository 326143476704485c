"""Choose how many records a poll takes, and end a batch early.

A batch is a list that the task's loop iterates over. To end it after the record in hand, the list is emptied, also from
a signal handler or another thread. So the loop checks nothing per record.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamstate.engine.ports import Clock, Message

MIN_BATCH = 1
FIRST_BATCH = 10


class BatchSizer:
    """Adapts the size of batches to the time that they take.

    Args:
        clock: for the time that a batch takes.
        target_ms: time that a batch should take, so that commits, rebalances and signals never wait for long.
        most: upper limit of records in a batch.

    Attributes:
        size: of the next batch, in records.
        halted: true once the batch in hand is to end.
    """

    def __init__(self, clock: Clock, target_ms: int, most: int) -> None:
        self._clock = clock
        self._target_ms = target_ms
        self._most = most
        self._began_ms: int | None = None
        self._took_ms = 0
        self._feed: list[Message] = []
        self._stopped = False
        self.size = min(FIRST_BATCH, most)
        self.halted = False

    def begin(self) -> None:
        """Start to measure a batch."""
        self._took_ms = 0
        self._began_ms = self._clock.monotonic_ms()
        self.halted = self._stopped

    def rest(self) -> None:
        """Stop measuring until ``resume``: the time of a commit is not the time of records."""
        assert self._began_ms is not None, "no batch is in hand"
        self._took_ms += self._clock.monotonic_ms() - self._began_ms
        self._began_ms = None

    def resume(self) -> None:
        """Measure again, see ``rest``."""
        self._began_ms = self._clock.monotonic_ms()

    def feed(self, messages: Sequence[Message]) -> list[Message]:
        """Return a list of these records to iterate over; ``halt`` removes those that were not reached."""
        self._feed = list(messages)
        # After the assignment, so that a halt between the two lines counts.
        if self.halted:
            self._feed.clear()
        return self._feed

    def end(self, processed: int, taken: int) -> None:
        """End a batch and choose the size of the next one.

        Args:
            processed: records that the batch processed.
            taken: records that the poll returned.
        """
        if self._began_ms is not None:
            self.rest()
        self._feed = []
        if self._took_ms > 2 * self._target_ms and processed:
            self.size = max(MIN_BATCH, processed * self._target_ms // self._took_ms)
        elif self._took_ms <= self._target_ms and max(processed, taken) >= self.size:
            self.size = min(self._most, self.size * 2)

    def halt(self) -> None:
        """End the batch in hand after the record in hand."""
        self.halted = True
        self._feed.clear()

    def stop(self) -> None:
        """End this batch and all later ones after their record in hand."""
        self._stopped = True
        self.halt()

    def halt_if_slow(self, limit_ms: int) -> None:
        """End the batch in hand if it has taken longer than ``limit_ms``."""
        began_ms = self._began_ms
        if began_ms is not None and self._clock.monotonic_ms() - began_ms > limit_ms:
            self.halt()
