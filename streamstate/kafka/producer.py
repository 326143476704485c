"""The port ``Producer`` on confluent-kafka."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from streamstate.engine.ports import (
    AbortRequired,
    DeliveryCallback,
    Fenced,
    GroupMetadata,
    Output,
    PortError,
    Position,
    ProducerFatal,
    Refused,
    Retriable,
    TopicPartition,
)
from streamstate.kafka.errors import RECORD_REFUSED, denied, kafka_error, text, topic_in, transactional
from streamstate.kafka.events import ClientErrors

log = logging.getLogger("streamstate.kafka")

# In the text of a failure about the offsets of a transaction, which names no topic.
OFFSETS_REFUSED = "commit offsets to transaction"
FULL_QUEUE_WAIT_S = 0.05
# How long a flush goes on at most when the call that it goes on beside has failed.
FLUSH_AHEAD_S = 0.2
# How much longer than asked a call may take before the client counts as stuck.
OVERTIME_MS = 5_000

DEFAULTS: dict[str, Any] = {
    "partitioner": "murmur2_random",
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "batch.num.messages": 50_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 262_144,
    "sticky.partitioning.linger.ms": 0,
    # Offsets-only transactions wait one back-off in send_offsets: 100 ms by default, more than all the rest.
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 50,
}


class KafkaProducer:
    """See ``streamstate.engine.ports.Producer``.

    Args:
        properties: of the client; may override what is said here, but not idempotence and acknowledgements.
        transactional_id: None for an idempotent producer without transactions.
        transaction_timeout_ms: after which the broker aborts what a dead producer left open.
        group: whose offsets its transactions commit; only for words.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 10_000,
        group: str = "",
    ) -> None:
        settings = {**DEFAULTS, **properties, "enable.idempotence": True, "acks": "all"}
        self._transactional = transactional_id is not None
        self._transactional_id = transactional_id
        if transactional_id is not None:
            settings["transactional.id"] = transactional_id
            settings["transaction.timeout.ms"] = transaction_timeout_ms
        self._group = group
        self._refused: PortError | None = None
        # In a transaction a refused record fails the commit; without one only its report tells.
        self._default_callback = None if self._transactional else self._report_failure
        self._errors = ClientErrors(settings)
        self._producer = Producer({**settings, "error_cb": self._errors}, logger=self._errors)
        self._initialised = False
        self._closed = False

    def init(self, timeout_ms: int) -> None:
        """See the port."""
        if self._transactional and not self._initialised:
            self._call(lambda: self._producer.init_transactions(timeout_ms / 1000))
        self._initialised = True

    def begin(self) -> None:
        """See the port."""
        if self._transactional:
            self._call(self._refuse_denied)
            self._call(self._producer.begin_transaction)

    def send(self, outputs: Sequence[Output]) -> None:
        """See the port."""
        produce, default = self._producer.produce, self._default_callback
        for topic, value, key, partition, callback, timestamp, headers in outputs:
            report = default if callback is None else self._reporting(callback)
            # 0 means "now" to the client, so that the first millisecond of 1970 becomes the second.
            time = timestamp or (0 if timestamp is None else 1)
            try:
                # By position: keyword parsing costs a third of the call.
                produce(topic, value, key, partition, report, None, time, headers)  # type: ignore[arg-type]
            except BufferError:
                self._send_late(topic, value, key, partition, report, None, time, headers)
            except KafkaException as error:
                raise _of_topic(topic, error) from error

    def _send_late(self, topic: str, *arguments: Any) -> None:
        """Send a record for which the client's queue has no room yet."""
        while True:
            try:
                self._producer.poll(FULL_QUEUE_WAIT_S)
                self._producer.produce(topic, *arguments)
                return
            except BufferError:
                continue
            except KafkaException as error:
                raise _of_topic(topic, error) from error

    def flush(self, timeout_ms: int) -> None:
        """See the port."""
        try:
            left = self._producer.flush(timeout_ms / 1000)
        except KafkaException as error:
            # A fatal error of the client is raised by whatever call is the next to serve its events.
            raise self._named(error) from error
        except SystemError as error:
            # Seen when the producer is fenced within this very call.
            raise ProducerFatal(f"the client failed in flush: {error}") from error
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused
        if left:
            raise Retriable(f"{left} records are not acknowledged yet")

    def send_offsets(
        self, offsets: Mapping[TopicPartition, Position], metadata: GroupMetadata, timeout_ms: int
    ) -> None:
        """See the port."""
        positions = [
            ClientPartition(topic, partition, position.offset, position.metadata)
            for (topic, partition), position in offsets.items()
        ]
        producer = self._producer

        def send() -> None:
            try:
                producer.send_offsets_to_transaction(positions, metadata.token, timeout_ms / 1000)
            except KafkaException as error:
                if kafka_error(error).code() != KafkaError._STATE:
                    raise
                # The transaction has failed meanwhile, of a record perhaps. Asked again, the client says of what.
                producer.send_offsets_to_transaction(positions, metadata.token, timeout_ms / 1000)

        # The records leave meanwhile: one wait for the broker after the other would be a third of a commit.
        self._bounded(
            send,
            timeout_ms + OVERTIME_MS,
            "sending offsets",
            lambda: _flushed(producer),
        )

    def commit(self, timeout_ms: int) -> None:
        """See the port."""
        if self._transactional:
            self._call(lambda: self._producer.commit_transaction(timeout_ms / 1000))
        else:
            self.flush(timeout_ms)

    def abort(self, timeout_ms: int) -> None:
        """See the port."""
        if self._transactional:
            self._call(lambda: self._producer.abort_transaction(timeout_ms / 1000))
        else:
            self._producer.purge()
            self._producer.flush(timeout_ms / 1000)
        self._refused = None

    def close(self) -> None:
        """Let go. What is queued is dropped: it was not committed."""
        if self._closed:
            return
        self._closed = True
        self._producer.purge()
        try:
            self._producer.flush(0)
        except (KafkaException, SystemError) as error:
            log.debug("a producer that failed is closed: %s", error)
        # Not by the client's close(): with a transaction open it aborts that first, and waits for a broker without
        # any limit, whatever time-out it is given. Without its last reference the client is destroyed at once.
        del self._producer

    def _bounded(self, call: Callable[[], Any], limit_ms: int, doing: str, meanwhile: Callable[[], bool]) -> None:
        """For calls that can outlast their time-out: librdkafka (2.16) looks for the group's coordinator without
        any limit, and for ever when that broker was missing from the cluster's metadata for a moment, as during a
        restart. Such a client is of no more use; it is left behind with its thread.

        Args:
            call: runs in a thread of its own.
            limit_ms: how long it may take.
            doing: what it does, for the error.
            meanwhile: called here, until it says that it is done or the call has ended.
        """
        failures: list[Exception] = []
        ended = threading.Event()

        def run() -> None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
                failures.append(error)
            ended.set()

        until = time.monotonic() + limit_ms / 1000
        threading.Thread(target=run, name=f"streamstate {doing}", daemon=True).start()
        while not ended.is_set() and time.monotonic() < until and not meanwhile():
            pass
        if not ended.wait(max(0.0, until - time.monotonic())):
            raise ProducerFatal(f"{doing}: the client does not return, {OVERTIME_MS} ms after its time-out")
        if failures:
            self._call(lambda: _raise(failures[0]))

    def _call(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except KafkaException as error:
            mapped = self._named(error)
            if isinstance(mapped, Retriable):
                # A call that only timed out: the client may have said why.
                self._producer.poll(0)
                self._errors.check()
            raise mapped from error

    def _named(self, error: KafkaException) -> PortError:
        """The port's error; a denial names what is denied."""
        mapped, inner = transactional(error), kafka_error(error)
        if not isinstance(mapped, Fenced):
            try:
                self._refuse_denied()
            except KafkaException as other:
                # A fatal error is raised by the next poll once more; the one in hand says the same.
                log.debug("the client failed while it was asked why: %s", other)
        if inner.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return denied(text(inner), "transactional-id", self._transactional_id or "", "Write")
        if inner.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            if OFFSETS_REFUSED in inner.str():
                # An input may not be read any more. Which one, the consumer says when it is to be read again.
                return AbortRequired(text(inner))
            return denied(text(inner), "topic", topic_in(inner), "Write")
        if inner.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return denied(text(inner), "group", self._group, "Read")
        return mapped

    def _refuse_denied(self) -> None:
        """A transaction that may not write a topic fails in many ways, some of which look as if they could pass.

        Raises:
            NotAuthorized: a transaction of this client has failed so.
            KafkaException: the client has failed for good.
        """
        self._producer.poll(0)
        if self._errors.denied_topic is not None:
            raise denied("the transaction cannot take it in", "topic", self._errors.denied_topic, "Write")

    def _reporting(self, callback: DeliveryCallback) -> Callable[[Any, Any], None]:
        if self._transactional:
            return _report(callback)
        report = _report(callback)

        def delivered(error: Any, message: Any) -> None:
            self._report_failure(error, message)
            report(error, message)

        return delivered

    def _report_failure(self, error: Any, message: Any) -> None:
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self._refused = denied(text(error), "topic", message.topic(), "Write")
        elif error is not None:
            kind = Refused if error.code() in RECORD_REFUSED else AbortRequired
            self._refused = kind(f"topic {message.topic()!r}: {text(error)}")


def _flushed(producer: Producer) -> bool:
    """Flush a little; whether nothing is left that waiting could help."""
    try:
        return not producer.flush(FLUSH_AHEAD_S)
    except (KafkaException, SystemError) as error:
        # A fatal error of the client, which the call beside this one tells, or the next.
        log.debug("the client failed while it flushed: %s", error)
        return True


def _of_topic(topic: str, error: KafkaException) -> PortError:
    mapped, inner = transactional(error), kafka_error(error)
    if inner.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return denied(text(inner), "topic", topic, "Write")
    return type(mapped)(f"topic {topic!r}: {mapped}")


def _raise(error: Exception) -> None:
    raise error


def _report(callback: DeliveryCallback) -> Callable[[Any, Any], None]:
    def delivered(error: Any, message: Any) -> None:
        callback(None if error is None else KafkaException(error), -1 if message is None else message.offset())

    return delivered
