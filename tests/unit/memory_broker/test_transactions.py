"""Transactions on the broker in memory."""

from __future__ import annotations

import pytest

from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    GroupMetadata,
    Position,
    Retriable,
)
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.producer import MemoryProducer
from tests.unit.memory_broker.support import AT, member_of, output, producer_of

# Transactions


def test_a_decided_commit_is_invisible_until_its_markers_are_written(broker: MemoryBroker) -> None:
    broker.create_topic("second")
    broker.transactions.marker_delay_ms = None
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    producer = producer_of(broker)
    producer.begin()
    producer.send([output(), output(topic="second")])
    producer.flush(100)
    producer.send_offsets({AT: Position(1)}, consumer.group_metadata(), 100)
    producer.commit(100)
    assert broker.read("topic") == []
    assert MemoryAdmin(broker).log_ends([AT]) == {AT: 1}, "the end does not know of the marker yet"
    assert broker.transactions.open_transactions() == {}
    with pytest.raises(Retriable, match="not resolved"):
        consumer.committed([AT], 0)
    assert broker.transactions.write_markers(1) == 1
    assert (len(broker.read("topic")), len(broker.read("second"))) == (1, 0)
    assert broker.transactions.write_markers() == 2
    assert len(broker.read("second")) == 1
    assert consumer.committed([AT], 0) == {AT: Position(1)}


def test_markers_may_take_time(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.transactions.marker_delay_ms = 50
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    clock.advance(49)
    broker.expire()
    assert broker.read("topic") == []
    clock.advance(1)
    broker.expire()
    assert len(broker.read("topic")) == 1


def test_the_next_transaction_waits_for_the_markers_of_the_last(broker: MemoryBroker) -> None:
    broker.transactions.marker_delay_ms = None
    producer = producer_of(broker)
    for _ in range(2):
        producer.begin()
        producer.send([output()])
        producer.commit(100)
    assert [record.offset() for record in broker.read("topic")] == [0]
    producer_of(broker)
    assert [record.offset() for record in broker.read("topic")] == [0, 2], "so does the next producer"


def test_an_old_transaction_is_aborted_and_its_producer_fenced(broker: MemoryBroker, clock: ManualClock) -> None:
    producer = producer_of(broker, transaction_timeout_ms=1_000)
    producer.begin()
    producer.send([output()])
    producer.flush(100)
    clock.advance(999)
    broker.expire()
    assert broker.transactions.open_transactions() == {"tx": 999}
    clock.advance(1)
    broker.expire()
    assert broker.transactions.open_transactions() == {}
    assert [entry.marker for entry in broker.topic("topic").logs[0].entries()] == ["", "abort"]
    for call in (lambda: producer.commit(100), lambda: producer.abort(100), lambda: producer.init(100)):
        with pytest.raises(Fenced):
            call()


def test_offsets_need_a_present_member(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    nobody = GroupMetadata(-1, "", "group")
    producer.send_offsets({AT: Position(1)}, nobody, 100)
    producer.commit(100)
    assert broker.committed("group") == {AT: Position(1)}, "taken while the group has no members"
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    producer.begin()
    for metadata in (nobody, GroupMetadata(1, "stranger", "group"), GroupMetadata(0, "a-000001", "group")):
        with pytest.raises(Fenced):
            producer.send_offsets({AT: Position(2)}, metadata, 100)
        with pytest.raises(AbortRequired):
            producer.commit(100)
        producer.abort(100)
        producer.begin()
    producer.send_offsets({AT: Position(3)}, consumer.group_metadata(), 100)
    producer.commit(100)
    assert broker.committed("group") == {AT: Position(3)}


def test_calls_out_of_turn_are_bugs(broker: MemoryBroker) -> None:
    producer = MemoryProducer(broker, "tx")
    for call in (producer.begin, lambda: producer.commit(1), lambda: producer.abort(1)):
        with pytest.raises(RuntimeError, match="called while new"):
            call()
    producer.init(1)
    with pytest.raises(RuntimeError, match="called while ready"):
        producer.send([output()])


def test_closing_leaves_the_transaction_open(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.flush(100)
    producer.close()
    assert list(broker.transactions.open_transactions()) == ["tx"]
