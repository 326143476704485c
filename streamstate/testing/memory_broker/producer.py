"""The worker's producer on the in-memory broker.

Rule of this module: the states of a transaction are those of a real client, also the ones nobody wants: refused
records that make the transaction abortable, a commit whose answer was lost, a producer that is of no more use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamstate.engine.ports import (
    AbortRequired,
    DeliveryCallback,
    Fenced,
    GroupMetadata,
    Output,
    Position,
    ProducerFatal,
    Refused,
    Retriable,
    TopicPartition,
)
from streamstate.testing.memory_broker.broker import MemoryBroker, RecordRefused
from streamstate.testing.memory_broker.client import Client, port
from streamstate.testing.memory_broker.log import check_types
from streamstate.testing.memory_broker.transactions import ProducerState

__all__ = ["MemoryProducer"]

_OUT_OF_ORDER = "OUT_OF_ORDER_SEQUENCE_NUMBER"


class MemoryProducer(Client):
    """Implements the port ``Producer``.

    Args:
        broker: the broker.
        transactional_id: None for a producer without transactions, whose ``begin`` does nothing, whose
            ``commit`` is a ``flush`` and whose ``abort`` drops what is queued.
        client_id: the actor in the broker's hook.
        transaction_timeout_ms: after which the broker aborts an open transaction.
        queue_records: how many records wait in the client before they go to the broker by themselves; 0: those of one
            ``send`` go together at its end.
    """

    kind = "producer"

    def __init__(
        self,
        broker: MemoryBroker,
        transactional_id: str | None = None,
        *,
        client_id: str = "producer",
        transaction_timeout_ms: int = 10_000,
        queue_records: int = 100,
    ) -> None:
        super().__init__(broker, client_id)
        self._transactional_id = transactional_id
        self._timeout_ms = transaction_timeout_ms
        self._queue_records = queue_records
        self._queue: list[tuple[TopicPartition, Output]] = []
        self._state: ProducerState | None = None
        # new, ready, open, committing or aborting
        self._phase = "new" if transactional_id else "ready"
        self._touched = False
        self._refused: AbortRequired | None = None
        self._dead: Fenced | ProducerFatal | None = None
        # Partitions at which the broker refused a batch: its sequence numbers are missing there.
        self._gaps: set[TopicPartition] = set()
        self._out_of_order = False

    @port
    def init(self, timeout_ms: int) -> None:
        """See the port."""
        self._alive()
        if self._transactional_id is None:
            return
        self._expect("new", "ready")
        self.broker.require(timeout_ms)
        self._state = self.broker.transactions.init(self._transactional_id, self._timeout_ms)
        self._phase = "ready"

    @port
    def begin(self) -> None:
        """See the port."""
        self._alive()
        if self._transactional_id is not None:
            self._expect("ready")
            self._phase = "open"
            self._touched = False

    @port
    def send(self, outputs: Sequence[Output]) -> None:
        """See the port. Records go to the broker when the queue is full, and with ``flush`` and ``commit``."""
        self._alive()
        self._expect("open" if self._transactional_id else "ready")
        if self._refused is not None:
            raise self._refused
        for output in outputs:
            topic, value, key, partition, _, timestamp, headers = output
            check_types(topic, key, value, partition, timestamp, headers)
            self._queue.append((self.broker.place(topic, key, partition), output))
            if 0 < self._queue_records <= len(self._queue) and self.broker.available:
                self._drain()
        if self._queue_records == 0 and self._queue and self.broker.available:
            self._drain()

    @port
    def flush(self, timeout_ms: int) -> None:
        """See the port."""
        self._alive()
        self._flush(timeout_ms)

    @port
    def send_offsets(
        self, offsets: Mapping[TopicPartition, Position], metadata: GroupMetadata, timeout_ms: int
    ) -> None:
        """See the port. ``metadata`` comes from a ``MemoryConsumer``."""
        self._alive()
        self._expect("open")
        if self._refused is not None:
            raise self._refused
        self.broker.require(timeout_ms)
        group = self.broker.use_group(metadata.token)
        state = self._owned()
        try:
            group.validate(metadata.generation, metadata.member_id, offsets)
        except Fenced as error:
            # The producer itself is well: once the transaction is aborted it can go on.
            self._refused = AbortRequired(str(error))
            raise
        try:
            self.broker.transactions.add_group(state, group.name)
        except Fenced as error:
            self._dead = error
            raise
        self._touched = True
        group.pending.setdefault(state.producer_id, {}).update(offsets)

    @port
    def commit(self, timeout_ms: int) -> None:
        """See the port."""
        self._alive()
        if self._transactional_id is None:
            self._flush(timeout_ms)
            return
        self._expect("open", "committing")
        self._flush(timeout_ms)
        self._end("committing", timeout_ms, commit=True)

    @port
    def abort(self, timeout_ms: int) -> None:
        """See the port."""
        self._alive()
        queued, self._queue = self._queue, []
        for _, output in queued:
            _acknowledge(output, AbortRequired("dropped: the transaction was aborted"), -1)
        if self._transactional_id is not None:
            self._expect("open", "aborting")
            self._end("aborting", timeout_ms, commit=False)
        self._refused = None
        if self._out_of_order:
            self._gaps.clear()
            self._out_of_order = False

    @port
    def close(self) -> None:
        """See the port. An open transaction stays open, for the successor or the time-out to abort."""
        self._queue.clear()

    def failed(self, call: str, error: Exception) -> None:
        """An injected error leaves the same trace as a real one: after a lost answer only the same call is
        possible, and repeating it must do no harm."""
        if isinstance(error, Fenced | ProducerFatal):
            self._dead = error
        elif isinstance(error, AbortRequired):
            self._refused = error
            if self._phase == "committing":
                # The commit that was tried before did not take place either: it can be aborted now.
                self._phase = "open"
        elif isinstance(error, Retriable) and self._transactional_id is not None:
            self._phase = {"commit": "committing", "abort": "aborting", "init": "new"}.get(call, self._phase)

    def _alive(self) -> None:
        if self._dead is not None:
            raise self._dead

    def _expect(self, *phases: str) -> None:
        if self._phase not in phases:
            raise RuntimeError(
                f"{self.client_id}: called while {self._phase}, which is possible only while {' or '.join(phases)}"
            )

    def _owned(self) -> ProducerState:
        assert self._state is not None, "init comes first"
        return self._state

    def _flush(self, timeout_ms: int) -> None:
        if self._queue:
            self.broker.require(timeout_ms)
            self._drain()
        if self._refused is not None:
            error = self._refused
            if self._transactional_id is None:
                self._refused = None
            elif self._phase == "committing":
                self._phase = "open"
            raise error

    def _drain(self) -> None:
        """Write what is queued. A refused record takes the rest of its partition's batch with it."""
        self.broker.expire()
        queued, self._queue = self._queue, []
        refused: dict[TopicPartition, RecordRefused] = {}
        for at, (_, value, key, _, _, timestamp, headers) in queued:
            if not refused or at not in refused:
                try:
                    if self._gaps:
                        self._check_sequence(at)
                    self.broker.check(at, key, value, timestamp, headers)
                except RecordRefused as error:
                    refused[at] = error
        if self._transactional_id is not None:
            self._gaps.update(at for at, error in refused.items() if error.reason != "UNKNOWN_TOPIC_OR_PART")
        state = self._state
        producer_id = -1 if state is None else state.producer_id
        if state is not None:
            try:
                for at in {at: None for at, _ in queued if at not in refused}:
                    self.broker.transactions.add_partition(state, at)
            except Fenced as error:
                self._dead = error
                for at, output in queued:
                    _acknowledge(output, refused.get(at, error), -1)
                raise
        for at, output in queued:
            if refused and at in refused:
                lasting = refused[at].reason != _OUT_OF_ORDER
                self._refused = (Refused if lasting else AbortRequired)(str(refused[at]))
                _acknowledge(output, refused[at], -1)
                continue
            _, value, key, _, _, timestamp, headers = output
            offset = self.broker.add(at, key, value, timestamp, headers, producer_id)
            self._touched = True
            _acknowledge(output, None, offset)

    def _check_sequence(self, at: TopicPartition) -> None:
        """librdkafka goes on counting after a refused batch, so that the next transaction that writes to the
        partition fails too; aborting that one raises the epoch and starts the count anew."""
        if self._refused is None and at in self._gaps:
            self._out_of_order = True
            raise RecordRefused(_OUT_OF_ORDER, f"after a refused batch for {at.topic}[{at.partition}]")

    def _end(self, phase: str, timeout_ms: int, commit: bool) -> None:
        self._phase = phase
        if self._touched:
            self.broker.require(timeout_ms)
            try:
                self.broker.transactions.end(self._owned(), commit)
            except (Fenced, ProducerFatal) as error:
                self._dead = error
                raise
        self._phase = "ready"


def _acknowledge(output: Output, error: Exception | None, offset: int) -> None:
    callback: DeliveryCallback | None = output[4]
    if callback is not None:
        callback(error, offset)
