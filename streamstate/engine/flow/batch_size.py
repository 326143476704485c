"""How many records are taken at once, and how a batch ends before its end.

Rule of this module: nothing is looked at per record. A batch is a list that the task's loop runs over; whoever wants
it to end after the record in hand empties the list, also from a signal handler or another thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamstate.engine.ports import Clock, Message

MIN_BATCH = 1
FIRST_BATCH = 10


class BatchSizer:
    """The size of batches, which aims at a time, and the batch in hand.

    Args:
        clock: for the time that a batch takes.
        target_ms: that a batch should take, so that commits, rebalances and signals are never far away.
        most: records in a batch.

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
        """A batch begins."""
        self._took_ms = 0
        self._began_ms = self._clock.monotonic_ms()
        self.halted = self._stopped

    def rest(self) -> None:
        """What comes now, up to ``resume``, is not part of what records take."""
        assert self._began_ms is not None, "no batch is in hand"
        self._took_ms += self._clock.monotonic_ms() - self._began_ms
        self._began_ms = None

    def resume(self) -> None:
        """See ``rest``."""
        self._began_ms = self._clock.monotonic_ms()

    def feed(self, messages: Sequence[Message]) -> list[Message]:
        """The same records, to run over; what is not reached when the batch is halted goes missing from it."""
        self._feed = list(messages)
        # Asked after the list is in its place, so that whoever halts between the two is heard.
        if self.halted:
            self._feed.clear()
        return self._feed

    def end(self, processed: int, taken: int) -> None:
        """The batch has ended: choose the size of the next one.

        Args:
            processed: records that it processed.
            taken: records that were there to take.
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
        """The same, for this batch and all that follow."""
        self._stopped = True
        self.halt()

    def halt_if_slow(self, limit_ms: int) -> None:
        """End the batch in hand if it has taken longer than ``limit_ms`` by now."""
        began_ms = self._began_ms
        if began_ms is not None and self._clock.monotonic_ms() - began_ms > limit_ms:
            self.halt()
