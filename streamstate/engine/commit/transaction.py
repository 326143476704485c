"""The worker's transaction: outputs, changelog records and input offsets, all or nothing.

States: ``idle -> open -> sealed -> idle``. From ``open`` and ``sealed`` an error leads to ``failed``, which only
``abort`` leaves. A commit whose outcome stays unknown ends the producer: a new one with the same transactional id makes
the broker finish or abort the open transaction, and only then does the worker ask which offsets are committed.

A commit runs as a job beside the worker's loop. Until ``settled`` has returned its outcome, nothing else may touch the
producer; outputs wait in the worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from streamstate.engine.ports import (
    AbortRequired,
    Background,
    Clock,
    Consumer,
    Fenced,
    GroupMetadata,
    Job,
    Output,
    Position,
    Producer,
    ProducerFatal,
    Refused,
    Retriable,
    TopicPartition,
)

log = logging.getLogger("streamstate.transaction")

CALL_MS = 5_000


class TransactionFailed(Exception):
    """The open transaction did not commit, or its outcome is unknown: roll back and start from what Kafka has.

    Attributes:
        migrated: true when the group or another producer has taken over.
        refused: true when the broker refuses a record, so that processing it again cannot help.
    """

    def __init__(self, message: str, *, migrated: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.migrated = migrated
        self.refused = refused


class State(Enum):
    """Where the transaction stands. ``DOWN``: there is no producer, or it was not initialised yet."""

    DOWN = "down"
    IDLE = "idle"
    OPEN = "open"
    SEALED = "sealed"
    FAILED = "failed"


class Committer(Protocol):
    """Makes work durable, exactly once or at least once."""

    def ready(self) -> bool:
        """Become usable; return false when that must be tried again."""
        ...

    def send(self, outputs: Sequence[Output]) -> None:
        """Hand over outputs, opening a transaction if none is open. Raises TransactionFailed."""
        ...

    def begin_commit(
        self, offsets: Mapping[TopicPartition, Position], metadata: GroupMetadata, timeout_ms: int
    ) -> None:
        """Begin to commit all sent records and these offsets. Until the commit is settled, neither ``send`` nor another
        ``begin_commit`` is allowed. May raise TransactionFailed at once."""
        ...

    def settled(self, timeout_ms: int) -> bool:
        """Return true when the commit has ended; wait ``timeout_ms`` for that. Raises TransactionFailed, once, when the
        commit failed."""
        ...

    def shorten_deadline(self, timeout_ms: int) -> None:
        """Give the commit under way up after at most this time."""
        ...

    def abort(self) -> None:
        """Drop sent records that are not committed, as far as possible. Waits for a commit under way first."""
        ...

    def close(self) -> None: ...


class Transaction:
    """Exactly once, on a transactional producer.

    Args:
        make_producer: makes a producer with this worker's transactional id.
        clock: measures deadlines.
        background: runs the commits.
    """

    def __init__(self, make_producer: Callable[[], Producer], clock: Clock, background: Background) -> None:
        self._make_producer = make_producer
        self._clock = clock
        self._background = background
        self._job: Job | None = None
        self._deadline_ms = 0
        self._producer: Producer | None = None
        self.state = State.DOWN

    def ready(self) -> bool:
        if self._job is not None:
            return True
        if self.state is State.FAILED:
            self.abort()
        if self.state is not State.DOWN:
            return True
        if self._producer is None:
            self._producer = self._make_producer()
        try:
            self._producer.init(CALL_MS)
        except Retriable as error:
            log.info("waiting for the transactional id: %s", error)
            return False
        except (Fenced, ProducerFatal, AbortRequired) as error:
            log.warning("could not take the transactional id, starting over with a new producer: %s", error)
            self._drop_producer()
            return False
        self.state = State.IDLE
        return True

    def send(self, outputs: Sequence[Output]) -> None:
        producer = self._usable()
        try:
            if self.state is State.IDLE:
                producer.begin()
                self.state = State.OPEN
            producer.send(outputs)
        except Retriable as error:
            raise self._failed(error, "sending") from error
        except (AbortRequired, Fenced, ProducerFatal) as error:
            raise self._failed(error, "sending") from error

    def begin_commit(
        self, offsets: Mapping[TopicPartition, Position], metadata: GroupMetadata, timeout_ms: int
    ) -> None:
        producer = self._usable()
        self._deadline_ms = self._clock.monotonic_ms() + timeout_ms
        self._job = self._background.start(lambda: self._commit(producer, offsets, metadata))

    def settled(self, timeout_ms: int) -> bool:
        job = self._job
        if job is None:
            return True
        if not job.done(timeout_ms):
            return False
        self._job = None
        job.result()
        return True

    def shorten_deadline(self, timeout_ms: int) -> None:
        self._deadline_ms = min(self._deadline_ms, self._clock.monotonic_ms() + timeout_ms)

    def _commit(self, producer: Producer, offsets: Mapping[TopicPartition, Position], metadata: GroupMetadata) -> None:
        try:
            if self.state is State.IDLE:
                producer.begin()
                self.state = State.OPEN
            # First, so that no rebalance comes between reading ``metadata`` and using it. A new owner waits
            # for the end of a transaction that holds offsets of its partitions.
            if offsets:
                if not metadata.is_member:
                    # A broker would take such offsets unchecked.
                    raise Fenced("this process is not a member of the group")
                self._retry(lambda left: producer.send_offsets(offsets, metadata, left), "sending offsets")
            self._retry(producer.flush, "flushing")
            self.state = State.SEALED
            # From here on a time-out leaves it unknown whether the commit took place: only repeating the same
            # commit, or a new producer under the same id, can tell.
            self._retry(producer.commit, "committing")
        except (AbortRequired, Fenced, ProducerFatal) as error:
            raise self._failed(error, "committing") from error
        self.state = State.IDLE

    def _retry(self, call: Callable[[int], None], doing: str) -> None:
        while True:
            left = self._deadline_ms - self._clock.monotonic_ms()
            try:
                call(max(1, min(left, CALL_MS)))
                return
            except Retriable as error:
                if self._clock.monotonic_ms() >= self._deadline_ms:
                    raise self._failed(error, doing) from error
                log.info("%s: trying again: %s", doing, error)

    def _failed(self, error: Exception, doing: str) -> TransactionFailed:
        unknown = self.state is State.SEALED and isinstance(error, Retriable)
        if unknown or isinstance(error, ProducerFatal):
            # An unknown commit must not be aborted by this producer: that could contradict the broker.
            self._drop_producer()
        else:
            self.state = State.FAILED
        return TransactionFailed(
            f"{doing}: {error}", migrated=isinstance(error, Fenced), refused=isinstance(error, Refused)
        )

    def abort(self) -> None:
        self._settle()
        if self.state not in (State.OPEN, State.SEALED, State.FAILED) or self._producer is None:
            return
        try:
            self._producer.abort(CALL_MS)
        except (Retriable, AbortRequired, Fenced, ProducerFatal) as error:
            log.warning("aborting failed, starting over with a new producer: %s", error)
            self._drop_producer()
            return
        self.state = State.IDLE

    def _settle(self) -> None:
        """Wait for the end of a commit under way, successful or not."""
        self.shorten_deadline(0)
        try:
            while not self.settled(CALL_MS):
                pass
        except TransactionFailed as failure:
            log.info("given up: %s", failure)

    def _usable(self) -> Producer:
        assert self._job is None, "used while a commit is under way"
        if self._producer is None or self.state not in (State.IDLE, State.OPEN):
            raise TransactionFailed(f"there is no usable producer ({self.state.value})")
        return self._producer

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        self.state = State.DOWN
        if producer is not None:
            producer.close()

    def close(self) -> None:
        self.abort()
        self._drop_producer()
        self._background.close()


class AtLeastOnce:
    """At least once, without transactions: after a failure records are processed again. A commit ends before
    ``begin_commit`` returns.

    Args:
        make_producer: makes an idempotent producer.
        consumer: commits the offsets.
        clock: measures deadlines.
    """

    def __init__(self, make_producer: Callable[[], Producer], consumer: Consumer, clock: Clock) -> None:
        self._make_producer = make_producer
        self._consumer = consumer
        self._clock = clock
        self._producer: Producer | None = None

    def ready(self) -> bool:
        if self._producer is None:
            self._producer = self._make_producer()
        return True

    def send(self, outputs: Sequence[Output]) -> None:
        self.ready()
        assert self._producer is not None, "not ready"
        try:
            self._producer.send(outputs)
        except (Retriable, AbortRequired, Fenced, ProducerFatal) as error:
            raise self._failed(error) from error

    def begin_commit(
        self, offsets: Mapping[TopicPartition, Position], metadata: GroupMetadata, timeout_ms: int
    ) -> None:
        self.ready()
        assert self._producer is not None, "not ready"
        deadline = self._clock.monotonic_ms() + timeout_ms
        flushed = False
        while True:
            try:
                if not flushed:
                    self._producer.flush(max(1, min(deadline - self._clock.monotonic_ms(), CALL_MS)))
                    flushed = True
                if offsets:
                    self._consumer.commit(offsets)
                return
            except Retriable as error:
                if self._clock.monotonic_ms() >= deadline:
                    raise self._failed(error) from error
            except (AbortRequired, Fenced, ProducerFatal) as error:
                raise self._failed(error) from error

    def settled(self, timeout_ms: int) -> bool:
        return True

    def shorten_deadline(self, timeout_ms: int) -> None:
        """Do nothing: no commit is ever under way."""

    def _failed(self, error: Exception) -> TransactionFailed:
        self.abort()
        return TransactionFailed(
            f"committing: {error}", migrated=isinstance(error, Fenced), refused=isinstance(error, Refused)
        )

    def abort(self) -> None:
        # Queued records may go out or not: either way they are processed again.
        self.close()

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()
