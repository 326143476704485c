"""Transactions: visibility, markers, fencing, offsets inside transactions, refused records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    NewTopic,
    PortError,
    Position,
    Producer,
    Refused,
    Retriable,
    TopicPartition,
)
from streamstate.partitioning import partition_for
from tests.contract.harness import (
    CALL_MS,
    Member,
    Side,
    abort,
    commit,
    flush,
    new_topic,
    offsets,
    open_producer,
    poll_until,
    put,
    put_transaction,
    repeated,
    restored,
    values,
)

TWO_HOURS_MS = 2 * 60 * 60 * 1000


def test_open_transaction_is_invisible_until_it_commits(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    member = Member(side, side.consumer(side.unique("group")), [at.topic])
    producer = open_producer(side)
    put_transaction(side, producer, at.topic, [b"before"])
    producer.begin()
    producer.send([(at.topic, b"open", b"key", 0, None, None, None)])
    flush(side, producer)
    put(side, at.topic, [b"behind it"])
    poll_until(side, [member], lambda: member.records, "the first record")
    for _ in range(3):
        member.poll()
    assert values(member.records) == [b"before"], "nothing behind the first open transaction is stable"
    commit(side, producer)
    poll_until(side, [member], lambda: len(member.records) == 3, "the rest")
    assert values(member.records) == [b"before", b"open", b"behind it"]


def test_aborted_records_are_never_seen(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side)
    for number in range(3):
        producer.begin()
        producer.send([(at.topic, b"aborted %d" % number, b"key", 0, None, None, None)])
        flush(side, producer)
        abort(side, producer)
        put_transaction(side, producer, at.topic, [b"committed %d" % number])
    assert values(restored(side, at)) == [b"committed 0", b"committed 1", b"committed 2"]


def test_markers_take_offsets(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side)
    put_transaction(side, producer, at.topic, [b"a", b"b"])
    put_transaction(side, producer, at.topic, [b"c"])
    side.until(lambda: side.admin().log_ends([at]) == {at: 5}, "both markers")
    assert offsets(restored(side, at)) == [0, 1, 3]


@pytest.mark.parametrize("end", [commit, abort])
def test_positions_pass_a_trailing_marker(side: Side, end: Callable[[Side, Producer], None]) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side)
    put_transaction(side, producer, at.topic, [b"a"])
    producer.begin()
    producer.send([(at.topic, b"b", b"key", 0, None, None, None)])
    flush(side, producer)
    end(side, producer)
    log_end = 4
    side.until(lambda: side.admin().log_ends([at]) == {at: log_end}, "both markers")
    records = restored(side, at, target=log_end)
    assert values(records) == ([b"a", b"b"] if end is commit else [b"a"])
    assert restored(side, at, start=log_end - 1) == [], "also when started on the marker"
    assert restored(side, at, start=log_end) == []


def test_log_end_lies_behind_an_open_transaction(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side)
    producer.begin()
    producer.send([(at.topic, b"open", b"key", 0, None, None, None)] * 3)
    flush(side, producer)
    assert side.admin().log_ends([at]) == {at: 3}
    consumer = side.restore_consumer()
    consumer.assign({at: 0})
    for _ in range(3):
        assert list(consumer.poll(10, side.poll_ms)) == []
    assert consumer.positions()[at] == 0, "the position stays at the last stable offset"
    commit(side, producer)
    assert len(restored(side, at)) == 3


def test_a_second_producer_takes_the_id(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    transactional_id = side.unique("tx")
    first = open_producer(side, transactional_id)
    first.begin()
    first.send([(at.topic, b"of the first", b"key", 0, None, None, None)])
    flush(side, first)
    second = open_producer(side, transactional_id)
    put_transaction(side, second, at.topic, [b"of the second"])
    assert values(restored(side, at)) == [b"of the second"], "what the first left open was aborted"
    with pytest.raises(Fenced):
        commit(side, first)


def test_the_fenced_producer_cannot_write(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    transactional_id = side.unique("tx")
    first = open_producer(side, transactional_id)
    put_transaction(side, first, at.topic, [b"a"])
    open_producer(side, transactional_id)
    with pytest.raises(Fenced):  # noqa: PT012 - whichever call hears of it first
        first.begin()
        first.send([(at.topic, b"zombie", b"key", 0, None, None, None)])
        commit(side, first)
    assert values(restored(side, at)) == [b"a"]


def test_the_broker_aborts_a_transaction_that_takes_too_long(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side, timeout_ms=1_000)
    producer.begin()
    producer.send([(at.topic, b"late", b"key", 0, None, None, None)])
    flush(side, producer)
    consumer = side.restore_consumer()
    consumer.assign({at: 0})

    def step() -> bool:
        assert not consumer.poll(10, side.poll_ms)
        return consumer.positions()[at] == 2

    side.until(step, "the abort marker")
    with pytest.raises((Fenced, AbortRequired)):
        commit(side, producer)


def test_offsets_are_part_of_the_transaction(side: Side) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    member = Member(side, side.consumer(group), [topic])
    poll_until(side, [member], lambda: len(member.assigned) == 2, "the assignment")
    assert member.consumer.committed([first, second], CALL_MS) == {first: None, second: None}
    producer = open_producer(side)
    producer.begin()
    metadata = member.consumer.group_metadata()
    producer.send_offsets({first: Position(7, "stream time 5")}, metadata, CALL_MS)
    commit(side, producer)
    found = committed(side, member, [first, second])
    assert found == {first: Position(7, "stream time 5"), second: None}
    producer.begin()
    producer.send_offsets({first: Position(9)}, metadata, CALL_MS)
    abort(side, producer)
    assert committed(side, member, [first]) == {first: Position(7, "stream time 5")}


def committed(side: Side, member: Member, partitions: list[TopicPartition]) -> dict[TopicPartition, Position | None]:
    """Committed offsets, waiting for what is pending."""
    found: dict[TopicPartition, Position | None] = {}
    side.until(repeated(lambda: found.update(member.consumer.committed(partitions, CALL_MS))), "the offsets")
    return found


def test_pending_offsets_are_waited_for(side: Side) -> None:
    topic, group = new_topic(side), side.unique("group")
    at = TopicPartition(topic, 0)
    member = Member(side, side.consumer(group), [topic])
    poll_until(side, [member], lambda: member.assigned, "the assignment")
    producer = open_producer(side)
    producer.begin()
    producer.send_offsets({at: Position(3)}, member.consumer.group_metadata(), CALL_MS)
    with pytest.raises(Retriable):
        member.consumer.committed([at], 500)
    commit(side, producer)
    assert committed(side, member, [at]) == {at: Position(3)}


@pytest.mark.parametrize("protocol", ["eager", "cooperative", "broker"])
def test_offsets_of_a_stale_generation_are_refused(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    first = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [first], lambda: len(first.assigned) == 2, "the assignment")
    stale = first.consumer.group_metadata()
    assert stale.is_member
    second = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [first, second], lambda: first.assigned and second.assigned, "the rebalance")
    poll_until(
        side, [first, second], lambda: first.consumer.group_metadata().generation != stale.generation, "the generation"
    )
    [kept], [moved] = first.assigned, second.assigned
    producer = open_producer(side)
    producer.begin()
    with pytest.raises(Fenced):
        producer.send_offsets({moved: Position(3)}, stale, CALL_MS)
    producer.close()
    assert committed(side, first, [moved]) == {moved: None}
    # Everything is in order again with what the group says now.
    fresh = open_producer(side)
    fresh.begin()
    fresh.send_offsets({kept: Position(4)}, first.consumer.group_metadata(), CALL_MS)
    commit(side, fresh)
    assert committed(side, first, [kept, moved]) == {kept: Position(4), moved: None}


def test_transactions_without_content(side: Side) -> None:
    producer = open_producer(side)
    for end in (commit, abort, commit):
        producer.begin()
        end(side, producer)
    at = TopicPartition(new_topic(side), 0)
    put_transaction(side, producer, at.topic, [b"a"])
    assert values(restored(side, at)) == [b"a"]


def test_abort_drops_what_is_queued(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side)
    producer.begin()
    producer.send([(at.topic, b"dropped", b"key", 0, None, None, None)] * 10)
    abort(side, producer)
    put_transaction(side, producer, at.topic, [b"kept"])
    assert values(restored(side, at)) == [b"kept"]


def test_callbacks_tell_offsets_in_order(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side)
    producer.begin()
    heard: list[tuple[int, Exception | None, int]] = []

    def callback(number: int) -> Callable[[Exception | None, int], None]:
        return lambda error, offset: heard.append((number, error, offset))

    producer.send([(at.topic, b"v", b"key", 0, callback(number), None, None) for number in range(250)])
    flush(side, producer)
    assert heard == [(number, None, number) for number in range(250)]
    commit(side, producer)


@pytest.mark.parametrize("fault", ["two hours ahead", "too large", "no key"])
def test_a_refused_record_fails_the_transaction_only(side: Side, fault: str) -> None:
    policy = "compact" if fault == "no key" else "delete"
    at = TopicPartition(new_topic(side, config={"max.message.bytes": "10000", "cleanup.policy": policy}), 0)
    producer = open_producer(side)
    producer.begin()
    errors: list[Exception | None] = []
    value = b"x" * (20_000 if fault == "too large" else 1)
    timestamp = side.now_ms() + TWO_HOURS_MS if fault == "two hours ahead" else None
    key = None if fault == "no key" else b"k"
    with pytest.raises(Refused):  # noqa: PT012 - whichever call hears of it first
        producer.send([(at.topic, value, key, 0, lambda error, _: errors.append(error), timestamp, None)])
        flush(side, producer)
        commit(side, producer)
    assert errors
    assert errors[0] is not None
    abort(side, producer)
    try:
        put_transaction(side, producer, at.topic, [b"well again"])
    except AbortRequired:
        # One more may fail, because the refused batch left a gap in the sequence numbers.
        abort(side, producer)
        put_transaction(side, producer, at.topic, [b"well again"])
    assert values(restored(side, at)) == [b"well again"]


# (topic, value, key, partition, timestamp, headers), None: as it should be
NOT_SENT: dict[str, dict[str, Any]] = {
    "a topic that is bytes": {"topic": b"topic"},
    "a value that is a number": {"value": 5},
    "a value that is a bytearray": {"value": bytearray(b"v")},
    "a key that is a number": {"key": 5},
    "a key that is a list": {"key": []},
    "a partition that is a float": {"partition": 0.0},
    "a partition beyond 32 bits": {"partition": 1 << 31},
    "a float as the time": {"timestamp": 1.5},
    "a text as the time": {"timestamp": "5"},
    "a time beyond 64 bits": {"timestamp": 1 << 63},
    "headers that are a number": {"headers": 5},
    "headers that are a tuple": {"headers": (("a", b"1"),)},
    "a header of three": {"headers": [("a", b"1", b"2")]},
    "a header that is a list": {"headers": [["a", b"1"]]},
    "a header's value that is a number": {"headers": [("a", 1)]},
    "a header's value that is a bytearray": {"headers": [("a", bytearray(b"1"))]},
}


@pytest.mark.parametrize("part", NOT_SENT)
def test_what_no_client_sends(side: Side, part: str) -> None:
    """The call says so at once, and the transaction is as good as before."""
    at = TopicPartition(new_topic(side), 0)
    sent = {"topic": at.topic, "value": b"v", "key": b"k", "partition": 0, "callback": None, "timestamp": None}
    sent |= {"headers": None, **NOT_SENT[part]}
    producer = open_producer(side)
    producer.begin()
    producer.send([(at.topic, b"before", b"k", 0, None, None, [("a", b"1"), ("b", None)])])
    bad: Any = tuple(sent.values())
    with pytest.raises((TypeError, OverflowError)):
        producer.send([bad])
    producer.send([(at.topic, b"behind", b"k", 0, None, None, None)])
    commit(side, producer)
    assert values(restored(side, at)) == [b"before", b"behind"]


def test_a_topic_that_cannot_be_is_refused(side: Side) -> None:
    """One record for it costs the transaction."""
    producer = open_producer(side)
    producer.begin()
    with pytest.raises(PortError):  # noqa: PT012 - whichever call hears of it first
        producer.send([("no topic", b"v", b"k", 0, None, None, None)])
        flush(side, producer)
        commit(side, producer)
    abort(side, producer)


def test_a_record_refused_while_offsets_are_sent_is_the_reason(side: Side) -> None:
    at, group = TopicPartition(new_topic(side), 0), side.unique("group")
    member = Member(side, side.consumer(group), [at.topic])
    poll_until(side, [member], lambda: member.assigned, "the assignment")
    metadata = member.consumer.group_metadata()
    # What hears of it first is a matter of microseconds.
    for _ in range(10):
        # A new one each time: the refused batch leaves a gap in the sequence numbers of the other.
        producer = open_producer(side)
        producer.begin()
        with pytest.raises(Refused):  # noqa: PT012 - whichever call hears of it first
            producer.send([(at.topic, b"v", b"k", 0, None, side.now_ms() + TWO_HOURS_MS, None)])
            producer.send_offsets({at: Position(1)}, metadata, CALL_MS)
            flush(side, producer)
            commit(side, producer)
        abort(side, producer)
        producer.close()
    assert restored(side, at) == []


def test_a_refused_record_without_transaction(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = side.producer()
    producer.init(CALL_MS)
    errors: list[Exception | None] = []
    ahead = side.now_ms() + TWO_HOURS_MS
    with pytest.raises(Refused):  # noqa: PT012 - whichever call hears of it first
        producer.send([(at.topic, b"v", b"k", 0, lambda error, _: errors.append(error), ahead, None)])
        flush(side, producer)
    assert errors != [None]
    assert restored(side, at) == []


def test_a_record_for_a_partition_that_does_not_exist(side: Side) -> None:
    topic = new_topic(side)
    producer = open_producer(side)
    producer.begin()
    with pytest.raises(PortError):  # noqa: PT012 - whichever call hears of it first
        producer.send([(topic, b"v", b"key", 5, None, None, None)])
        flush(side, producer)
        commit(side, producer)
    abort(side, producer)


def test_without_transaction_records_are_visible_at_once(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    put(side, at.topic, [b"a", b"b"])
    assert offsets(restored(side, at)) == [0, 1]
    assert side.admin().log_ends([at]) == {at: 2}


def test_the_partition_of_a_key_is_the_java_clients(side: Side) -> None:
    topic = new_topic(side, 7)
    keys = [b"", b"a", b"foobar", b"\x00\xff", "grün".encode(), *(b"%d" % number for number in range(60))]
    producer = open_producer(side)
    producer.begin()
    producer.send([(topic, key, key, -1, None, None, None) for key in keys])
    commit(side, producer)
    found = {}
    for number in range(7):
        for record in restored(side, TopicPartition(topic, number)):
            found[record.value()] = number
    assert found == {key: partition_for(key, 7) for key in keys}


def test_records_without_key_go_somewhere(side: Side) -> None:
    topic = new_topic(side, 3)
    put(side, topic, [b"%d" % number for number in range(20)], partition=-1, key=None)
    found = [value for number in range(3) for value in values(restored(side, TopicPartition(topic, number)))]
    assert sorted(found, key=str) == sorted((b"%d" % number for number in range(20)), key=str)


def test_everything_of_a_record_arrives(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    long_ago = 1_357_000_000_000
    headers: list[tuple[str, bytes | None]] = [("a", b"1"), ("b", None), ("a", b"")]
    producer = open_producer(side)
    producer.begin()
    producer.send(
        [
            (at.topic, b"value", b"key", 0, None, long_ago, headers),
            (at.topic, None, b"key", 0, None, long_ago + 1, None),
            (at.topic, b"value", None, 0, None, 1, None),
            (at.topic, b"", b"", 0, None, None, []),
        ]
    )
    before = side.now_ms()
    commit(side, producer)
    first, tombstone, keyless, empty = restored(side, at)
    assert (first.topic(), first.partition(), first.offset()) == (at.topic, 0, 0)
    assert (first.key(), first.value(), first.timestamp()) == (b"key", b"value", (1, long_ago))
    assert first.headers() == headers
    assert (tombstone.key(), tombstone.value(), tombstone.timestamp()) == (b"key", None, (1, long_ago + 1))
    assert not tombstone.headers()
    assert (keyless.key(), keyless.value(), keyless.timestamp()) == (None, b"value", (1, 1))
    assert (empty.key(), empty.value()) == (b"", b"")
    assert abs(empty.timestamp()[1] - before) < 60_000


def test_a_topic_may_count_the_brokers_time(side: Side) -> None:
    name = side.unique("topic")
    side.admin().create([NewTopic(name, 1, 1, {"message.timestamp.type": "LogAppendTime"})])
    producer = open_producer(side)
    producer.begin()
    producer.send([(name, b"v", b"k", 0, None, 1_000, None)])
    commit(side, producer)
    [record] = restored(side, TopicPartition(name, 0))
    kind, timestamp = record.timestamp()
    assert kind == 2
    assert abs(timestamp - side.now_ms()) < 60_000
