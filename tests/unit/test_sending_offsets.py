"""Offsets are sent in a thread, with a limit, and the records leave meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamstate.engine.ports import Fenced, GroupMetadata, Position, ProducerFatal, Refused, TopicPartition
from streamstate.kafka import KafkaProducer, producer

PATIENCE_S = 30


class Client:
    """In place of the client: does in its two calls what the test says."""

    def poll(self, timeout: float) -> int:
        return 0

    def __init__(self, flush: Callable[[], None], send_offsets: Callable[[], None], left: int = 0) -> None:
        self._flush = flush
        self._send_offsets = send_offsets
        self._left = left
        self.flushes: list[float] = []

    def flush(self, timeout_s: float) -> int:
        self.flushes.append(timeout_s)
        self._flush()
        return self._left

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        self._send_offsets()


def nothing() -> None:
    """Succeeds at once."""


def made(monkeypatch: pytest.MonkeyPatch, client: Client) -> KafkaProducer:
    monkeypatch.setattr(producer, "Producer", lambda settings, logger: client)
    return KafkaProducer({}, transactional_id="app-0")


def send(kafka: KafkaProducer, timeout_ms: int = 1_000) -> None:
    offsets = {TopicPartition("topic", 0): Position(1, "")}
    kafka.send_offsets(offsets, GroupMetadata(1, "member", b"token"), timeout_ms)


def test_records_leave_while_offsets_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    flushing, sending = threading.Event(), threading.Event()
    met: list[bool] = []

    def flush() -> None:
        flushing.set()
        met.append(sending.wait(PATIENCE_S))

    def send_offsets() -> None:
        sending.set()
        met.append(flushing.wait(PATIENCE_S))

    send(made(monkeypatch, Client(flush, send_offsets)))
    assert met == [True, True]


def test_it_waits_for_the_offsets_after_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_for = threading.Event()
    done: list[str] = []

    class Awaited(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited_for.set()
            return super().wait(timeout)

    def send_offsets() -> None:
        if waited_for.wait(PATIENCE_S):
            done.append("offsets")

    monkeypatch.setattr(producer, "threading", SimpleNamespace(Event=Awaited, Thread=threading.Thread))
    send(made(monkeypatch, Client(nothing, send_offsets)), 2 * PATIENCE_S * 1_000)
    assert done == ["offsets"]


def test_records_that_do_not_leave_hold_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the offsets are refused, that is told although a leader is down."""
    sent, refused_after = threading.Event(), 3
    client: Client

    def flush() -> None:
        if len(client.flushes) == refused_after:
            sent.set()

    def refused() -> None:
        assert sent.wait(PATIENCE_S)
        raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True))

    client = Client(flush, refused, left=1)
    with pytest.raises(Fenced):
        send(made(monkeypatch, client))
    assert len(client.flushes) >= refused_after
    assert set(client.flushes) == {producer.FLUSH_AHEAD_S}


def test_refused_offsets_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True))

    with pytest.raises(Fenced):
        send(made(monkeypatch, Client(nothing, refused)))


FATAL = KafkaException(KafkaError(KafkaError._FATAL, "the client is of no use", fatal=True))


@pytest.mark.parametrize("failure", [FATAL, SystemError("returned a result with an exception set")])
def test_a_client_that_fails_in_the_flush(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    """It raises that once, in whatever call serves its events; the call after it fails, too."""
    failed = threading.Event()

    def failing() -> None:
        if not failed.is_set():
            failed.set()
            raise failure

    def fenced() -> None:
        assert failed.wait(PATIENCE_S)
        raise KafkaException(KafkaError(KafkaError._FENCED, fatal=True))

    with pytest.raises(Fenced):
        send(made(monkeypatch, Client(failing, fenced)))


@pytest.mark.parametrize("failure", [FATAL, SystemError("returned a result with an exception set")])
def test_a_client_that_fails_in_a_flush_of_its_own(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def failing() -> None:
        raise failure

    with pytest.raises(ProducerFatal):
        made(monkeypatch, Client(failing, nothing)).flush(100)


def test_a_record_refused_meanwhile_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [KafkaError._STATE, KafkaError.INVALID_TIMESTAMP]

    def failing() -> None:
        raise KafkaException(KafkaError(answers.pop(0), txn_requires_abort=True))

    with pytest.raises(Refused):
        send(made(monkeypatch, Client(nothing, failing)))


def test_a_call_that_does_not_return_makes_the_client_useless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "OVERTIME_MS", 0)
    over = threading.Event()
    try:
        with pytest.raises(ProducerFatal, match="sending offsets: the client does not return"):
            send(made(monkeypatch, Client(nothing, lambda: over.wait(PATIENCE_S) and None)), 1)
    finally:
        over.set()
