"""Calls of the ports on the broker in memory: lost answers, errors, outages."""

from __future__ import annotations

import pytest

from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    GroupMetadata,
    Position,
    ProducerFatal,
    Retriable,
    Unavailable,
)
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryRestoreConsumer
from streamstate.testing.memory_broker.producer import MemoryProducer
from tests.unit.memory_broker.support import AT, DAY_MS, Injector, member_of, output, producer_of


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("call", ["init", "flush", "send_offsets", "commit"])
def test_a_call_with_a_lost_answer_can_be_repeated(broker: MemoryBroker, call: str, phase: str) -> None:
    broker.on_call = Injector(f"producer.{call}", phase, Retriable("lost"))
    producer = MemoryProducer(broker, "tx", client_id="p")

    def insist(action: str, *arguments: object) -> None:
        try:
            getattr(producer, action)(*arguments, 100)
        except Retriable:
            getattr(producer, action)(*arguments, 100)

    insist("init")
    producer.begin()
    producer.send([output()])
    insist("flush")
    insist("send_offsets", {AT: Position(1)}, GroupMetadata(-1, "", "group"))
    insist("commit")
    assert broker.on_call.fired
    assert [record.offset() for record in broker.read("topic")] == [0]
    assert broker.committed("group") == {AT: Position(1)}
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    assert len(broker.read("topic")) == 2


@pytest.mark.parametrize("phase", ["before", "after"])
def test_an_abort_with_a_lost_answer_can_be_repeated(broker: MemoryBroker, phase: str) -> None:
    broker.on_call = Injector("producer.abort", phase, Retriable("lost"))
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.flush(100)
    with pytest.raises(Retriable):
        producer.abort(100)
    producer.abort(100)
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    assert [record.offset() for record in broker.read("topic")] == [2]


def test_an_unknown_commit_cannot_be_aborted(broker: MemoryBroker) -> None:
    broker.on_call = Injector("producer.commit", "after", Retriable("lost"))
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    with pytest.raises(Retriable):
        producer.commit(100)
    with pytest.raises(RuntimeError, match="called while committing"):
        producer.abort(100)
    assert len(broker.read("topic")) == 1


@pytest.mark.parametrize("error", [Fenced("injected"), ProducerFatal("injected")])
def test_a_fatal_error_stays(broker: MemoryBroker, error: Exception) -> None:
    producer = producer_of(broker)
    producer.begin()
    broker.on_call = Injector("producer.flush", "before", error)
    with pytest.raises(type(error)):
        producer.flush(100)
    for call in (lambda: producer.flush(1), lambda: producer.commit(1), lambda: producer.abort(1)):
        with pytest.raises(type(error), match="injected"):
            call()


def test_an_abortable_error_stays_until_the_abort(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    broker.on_call = Injector("producer.send", "after", AbortRequired("injected"))
    with pytest.raises(AbortRequired):
        producer.send([output()])
    with pytest.raises(AbortRequired, match="injected"):
        producer.commit(100)
    producer.abort(100)
    producer.begin()
    producer.commit(100)
    assert broker.read("topic") == []


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_poll_with_a_lost_answer_gives_the_same_again(broker: MemoryBroker, phase: str) -> None:
    broker.pipe("topic", [(b"k", b"1"), (b"k", b"2")])
    consumer = MemoryRestoreConsumer(broker)
    consumer.assign({AT: 0})
    broker.on_call = Injector("restore.poll", phase, Retriable("lost"))
    with pytest.raises(Retriable):
        consumer.poll(10, 0)
    assert [record.value() for record in consumer.poll(10, 0)] == [b"1", b"2"]


def test_every_port_call_passes_the_hook(broker: MemoryBroker) -> None:
    injector = Injector("never", "before", Retriable("never"))
    broker.on_call = injector
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    consumer.start({AT: 0})
    consumer.pause([AT])
    consumer.resume([AT])
    consumer.committed([AT], 0)
    consumer.group_metadata()
    consumer.commit({AT: Position(0)})
    consumer.lag({AT: 0})
    consumer.close()
    restore = MemoryRestoreConsumer(broker, client_id="r")
    restore.assign({AT: 0})
    restore.poll(1, 0)
    restore.positions()
    restore.close()
    admin = MemoryAdmin(broker)
    admin.topics([])
    admin.create([])
    admin.delete([])
    admin.config([])
    admin.log_ends([])
    admin.log_starts([])
    admin.delete_records({})
    admin.close()
    calls = [(actor, call) for actor, call, phase in injector.seen if phase == "before"]
    assert calls == [(actor, call) for actor, call, phase in injector.seen if phase == "after"]
    consumer_calls = ["subscribe", "poll", "start", "pause", "resume", "committed", "group_metadata", "commit"]
    assert calls == [
        *(("a", f"consumer.{call}") for call in (*consumer_calls, "lag", "close")),
        *(("r", f"restore.{call}") for call in ("assign", "poll", "positions", "close")),
        *(
            ("admin", f"admin.{call}")
            for call in (
                *("topics", "create", "delete", "config"),
                *("log_ends", "log_starts", "delete_records", "close"),
            )
        ),
    ]


def test_a_broker_that_is_down(broker: MemoryBroker, clock: ManualClock) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    broker.stop()
    started = clock.monotonic_ms()
    for call in (
        lambda: consumer.poll(1, 100),
        lambda: consumer.committed([AT], 100),
        lambda: producer.flush(100),
        lambda: producer.commit(100),
    ):
        with pytest.raises(Unavailable):
            call()
    assert clock.monotonic_ms() == started + 400, "giving up takes the time it is given"
    with pytest.raises(Unavailable):
        MemoryAdmin(broker).topics(["topic"])
    clock.advance(DAY_MS)
    broker.restart()
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0])], "its session starts anew"
    producer.commit(100)
    assert len(broker.read("topic")) == 1


def test_waiting_can_let_others_work(broker: MemoryBroker) -> None:
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    consumer.start({AT: 0})
    waited: list[int] = []

    def work(ms: int) -> None:
        waited.append(ms)
        broker.append("topic", key=b"k", value=b"v")

    broker.on_wait = work
    assert len(consumer.poll(10, 250)) == 1
    assert waited == [250]
