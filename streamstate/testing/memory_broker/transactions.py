"""Transactional ids: epochs, fencing, commit decisions, markers and time-outs.

Rule of this module: a transaction is decided at one moment and its markers are written at another. Between the
two a commit is certain, yet invisible to readers of committed records and pending in the groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from streamstate.engine.ports import Fenced, ProducerFatal, TopicPartition

__all__ = ["Marker", "ProducerState", "TransactionCoordinator"]


@dataclass(slots=True)
class ProducerState:
    """What the coordinator knows of one transactional id.

    Attributes:
        state: ``empty`` (none since ``init``), ``open``, ``commit`` or ``abort`` (how the last one ended).
        opened_ms: monotonic time at which the open transaction's first partition or group was added.
        partitions: in the open transaction.
        groups: with offsets in the open transaction.
    """

    transactional_id: str
    producer_id: int
    epoch: int = 0
    timeout_ms: int = 10_000
    state: str = "empty"
    opened_ms: int = 0
    partitions: dict[TopicPartition, None] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker that is decided but not written: into a partition, or into a group's pending offsets."""

    producer_id: int
    commit: bool
    target: TopicPartition | str
    due_ms: int | None


class TransactionCoordinator:
    """Every transactional id of the broker.

    Args:
        monotonic_ms: the broker's time.
        write: puts one marker where it belongs.

    Attributes:
        marker_delay_ms: how long after the decision markers are written: 0 at once, None only when
            ``write_markers`` is called or the same producer needs them written to go on.
    """

    def __init__(self, monotonic_ms: Callable[[], int], write: Callable[[Marker], None]) -> None:
        self.marker_delay_ms: int | None = 0
        self._monotonic_ms = monotonic_ms
        self._write = write
        self._producers: dict[str, ProducerState] = {}
        self._markers: deque[Marker] = deque()

    def init(self, transactional_id: str, timeout_ms: int) -> ProducerState:
        """Take the id: abort what is open under it, raise the epoch and so fence who had it. Returns what the
        new owner may see; it identifies itself by ``producer_id`` and ``epoch``."""
        state = self._producers.get(transactional_id)
        if state is None:
            state = ProducerState(transactional_id, len(self._producers) + 1)
            self._producers[transactional_id] = state
        else:
            self._decide(state, commit=False)
            self._finish(state.producer_id)
            state.epoch += 1
        state.state = "empty"
        state.timeout_ms = timeout_ms
        return ProducerState(transactional_id, state.producer_id, state.epoch, timeout_ms)

    def add_partition(self, producer: ProducerState, partition: TopicPartition) -> None:
        """Open the transaction where it is not, and let it write to the partition.

        Raises:
            Fenced: another producer took the id, or the transaction timed out.
        """
        self._open(producer).partitions[partition] = None

    def add_group(self, producer: ProducerState, group: str) -> None:
        """Open the transaction where it is not, and let it commit offsets in the group."""
        self._open(producer).groups[group] = None

    def end(self, producer: ProducerState, commit: bool) -> None:
        """Decide. Asking again for what was decided already is answered with success, so a client may repeat
        a call whose answer it lost.

        Raises:
            Fenced: another producer took the id, or the transaction timed out.
            ProducerFatal: the opposite was decided.
        """
        state = self._owned(producer)
        wanted = "commit" if commit else "abort"
        if state.state == "open":
            self._decide(state, commit)
        elif state.state not in ("empty", wanted):
            raise ProducerFatal(f"{state.transactional_id}: cannot {wanted}: the transaction ended with {state.state}")

    def expire(self) -> None:
        """Abort transactions past their time-out and write the markers that are due."""
        now = self._monotonic_ms()
        for state in self._producers.values():
            if state.state == "open" and now - state.opened_ms >= state.timeout_ms:
                state.epoch += 1
                self._decide(state, commit=False)
        due = [marker for marker in self._markers if marker.due_ms is not None and marker.due_ms <= now]
        for marker in due:
            self._markers.remove(marker)
            self._write(marker)

    def write_markers(self, limit: int | None = None, *, groups_only: bool = False) -> int:
        """Write the oldest markers that wait, all or at most ``limit``; ``groups_only``: only those that settle
        offsets, so that these are ahead of what readers of the logs see. Returns how many were written."""
        chosen = [marker for marker in self._markers if not groups_only or isinstance(marker.target, str)][:limit]
        for marker in chosen:
            self._markers.remove(marker)
            self._write(marker)
        return len(chosen)

    def open_transactions(self) -> Mapping[str, int]:
        """Transactional ids with an undecided transaction, with the ms since it was opened."""
        now = self._monotonic_ms()
        return {
            state.transactional_id: now - state.opened_ms for state in self._producers.values() if state.state == "open"
        }

    def waiting_markers(self) -> Iterable[Marker]:
        """Decided, not written, oldest first."""
        return tuple(self._markers)

    def _owned(self, producer: ProducerState) -> ProducerState:
        state = self._producers[producer.transactional_id]
        if state.epoch != producer.epoch:
            raise Fenced(
                f"{producer.transactional_id}: epoch {producer.epoch} was replaced by {state.epoch}: "
                "another producer took the id, or the transaction timed out"
            )
        return state

    def _open(self, producer: ProducerState) -> ProducerState:
        state = self._owned(producer)
        if state.state != "open":
            # A real client is told CONCURRENT_TRANSACTIONS and repeats until the last markers are written.
            self._finish(state.producer_id)
            state.state = "open"
            state.opened_ms = self._monotonic_ms()
        return state

    def _decide(self, state: ProducerState, commit: bool) -> None:
        if state.state != "open":
            return
        delay = self.marker_delay_ms
        due = None if delay is None else self._monotonic_ms() + delay
        targets: list[TopicPartition | str] = [*state.partitions, *state.groups]
        for target in targets:
            self._markers.append(Marker(state.producer_id, commit, target, due))
        state.partitions.clear()
        state.groups.clear()
        state.state = "commit" if commit else "abort"
        if delay == 0:
            self._finish(state.producer_id)

    def _finish(self, producer_id: int) -> None:
        waiting = [marker for marker in self._markers if marker.producer_id == producer_id]
        if waiting:
            self._markers = deque(marker for marker in self._markers if marker.producer_id != producer_id)
            for marker in waiting:
                self._write(marker)
