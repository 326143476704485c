"""What a partition of the broker in memory holds and shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate.engine.ports import (
    AbortRequired,
    OutOfRange,
    Output,
    Position,
    Refused,
)
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker, RecordRefused
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryRestoreConsumer
from streamstate.testing.memory_broker.log import PartitionLog
from tests.unit.memory_broker.support import AT, DAY_MS, member_of, output, producer_of

# The log

CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("plain"), st.integers(0, 3)),
        st.tuples(st.just("write"), st.integers(0, 2)),
        st.tuples(st.just("commit"), st.integers(0, 2)),
        st.tuples(st.just("abort"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(CALLS, st.integers(1, 5), st.booleans(), st.booleans(), st.booleans())
def test_log_shows_exactly_what_is_committed(
    calls: list[tuple[str, int]], batch: int, compacted: bool, markers: bool, trailing: bool
) -> None:
    log = PartitionLog("topic", 0)
    open_: dict[int, list[int]] = {}
    committed: set[int] = set()
    keys: dict[int, bytes] = {}
    for call, number in calls:
        if call == "plain":
            offset = log.append(b"%d" % number, b"v", 0, 1, None)
            committed.add(offset)
            keys[offset] = b"%d" % number
        elif call == "write":
            offset = log.append(b"%d" % number, b"v", 0, 1, None, producer_id=number)
            open_.setdefault(number, []).append(offset)
            keys[offset] = b"%d" % number
        else:
            done = open_.pop(number, [])
            committed.update(done if call == "commit" else ())
            log.end_transaction(number, call == "commit", 0)
    stable = min((offsets[0] for offsets in open_.values()), default=log.end)
    assert log.last_stable == stable
    expected = sorted(offset for offset in committed if offset < stable)
    if compacted:
        log.compact(markers=markers, trailing_marker=trailing)
        newest = {keys[offset]: offset for offset in expected}
        expected = sorted(newest.values())
    position, seen = 0, []
    while position < stable:
        records, behind = log.read(position, batch)
        assert behind > position, "every read gets on"
        seen += [record.offset() for record in records]
        position = behind
    assert seen == expected
    assert position == stable


def test_compaction_keeps_the_newest_and_what_is_open(broker: MemoryBroker) -> None:
    for value in (b"1", b"2", None):
        broker.append("topic", key=b"a", value=value)
    broker.append("topic", key=b"b", value=b"3")
    producer = producer_of(broker)
    producer.begin()
    producer.send([output(b"open", key=b"b")])
    producer.flush(100)
    broker.append("topic", key=b"b", value=b"behind")
    broker.compact("topic")
    assert [record.offset() for record in broker.read("topic", committed=False)] == [2, 3, 4, 5]
    broker.compact("topic", tombstones=False)
    assert [record.offset() for record in broker.read("topic", committed=False)] == [3, 4, 5]
    producer.abort(100)
    broker.compact("topic", markers=False, trailing_marker=False)
    assert [record.offset() for record in broker.read("topic", committed=False)] == [5]
    log = broker.log(AT)
    assert log is not None
    assert (log.start, log.end, log.last_stable) == (0, 7, 7)


def test_reading_gets_past_a_compacted_tail(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    broker.compact("topic", trailing_marker=False)
    consumer = MemoryRestoreConsumer(broker)
    consumer.assign({AT: 0})
    assert len(consumer.poll(10, 0)) == 1
    assert consumer.positions() == MemoryAdmin(broker).log_ends([AT]) == {AT: 2}


def test_retention_goes_by_record_timestamps(broker: MemoryBroker, clock: ManualClock) -> None:
    now = clock.now_ms()
    for age_days in (400, 30, 1, 30):
        broker.append("topic", key=b"k", value=b"%d" % age_days, timestamp=now - age_days * DAY_MS)
    broker.retain()
    assert [record.value() for record in broker.read("topic")] == [b"1", b"30"]
    clock.advance(8 * DAY_MS)
    broker.retain("topic")
    assert broker.read("topic") == []
    assert MemoryAdmin(broker).log_starts([AT]) == {AT: 4}


def test_retention_spares_compacted_topics_and_open_transactions(broker: MemoryBroker) -> None:
    broker.create_topic("changelog", 1, {"cleanup.policy": "compact"})
    broker.append("changelog", key=b"k", value=b"v", timestamp=1)
    producer = producer_of(broker)
    producer.begin()
    producer.send([("topic", b"v", b"k", 0, None, 1, None)])
    producer.flush(100)
    broker.retain()
    assert len(broker.read("changelog")) == 1
    assert len(broker.read("topic", committed=False)) == 1


@pytest.mark.parametrize(
    ("reason", "topic", "fields"),
    [
        ("INVALID_TIMESTAMP", "topic", {"timestamp": 1_700_000_000_000 + 3_600_001}),
        ("INVALID_TIMESTAMP", "topic", {"timestamp": -1}),
        ("MSG_SIZE_TOO_LARGE", "topic", {"value": b"x" * 1_048_588}),
        ("INVALID_RECORD", "compacted", {"key": None}),
        ("UNKNOWN_TOPIC_OR_PART", "missing", {}),
        ("UNKNOWN_TOPIC_OR_PART", "topic", {"partition": 3}),
    ],
)
def test_refused_records(broker: MemoryBroker, reason: str, topic: str, fields: dict[str, object]) -> None:
    broker.create_topic("compacted", 1, {"cleanup.policy": "compact"})
    record: dict[str, object] = {"key": b"k", "value": b"v", **fields}
    with pytest.raises(RecordRefused) as caught:
        broker.append(topic, **record)  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert broker.read("topic") == []


def test_a_refused_record_takes_its_batch_with_it(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.create_topic("other")
    heard: list[str] = []

    def named(name: str, topic: str, timestamp: int | None) -> Output:
        return topic, b"v", b"k", 0, lambda error, _: heard.append(f"{name} {error is None}"), timestamp, None

    producer = producer_of(broker)
    producer.begin()
    ahead = clock.now_ms() + 2 * 3_600_000
    producer.send([named("good", "topic", None), named("bad", "topic", ahead), named("apart", "other", None)])
    for call in (lambda: producer.flush(100), lambda: producer.send([output()]), lambda: producer.commit(100)):
        with pytest.raises(AbortRequired, match="INVALID_TIMESTAMP"):
            call()
    assert heard == ["good False", "bad False", "apart True"]
    producer.abort(100)
    assert broker.read("other") == broker.read("topic") == []


def test_after_a_refused_batch_one_more_transaction_fails(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.create_topic("other")
    producer = producer_of(broker)
    producer.begin()
    producer.send([("topic", b"v", b"k", 0, None, clock.now_ms() + 2 * 3_600_000, None)])
    with pytest.raises(Refused, match="INVALID_TIMESTAMP"):
        producer.commit(100)
    producer.abort(100)
    producer.begin()
    producer.send([output(topic="other")])
    producer.commit(100)
    for expected in (True, False):
        producer.begin()
        producer.send([output()])
        if expected:
            with pytest.raises(AbortRequired, match="OUT_OF_ORDER_SEQUENCE_NUMBER"):
                producer.commit(100)
            producer.abort(100)
        else:
            producer.commit(100)
    assert (len(broker.read("topic")), len(broker.read("other"))) == (1, 1)


def test_a_deleted_topic_takes_records_and_offsets_with_it(broker: MemoryBroker) -> None:
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    consumer.commit({AT: Position(3)})
    before = broker.topic("topic").topic_id
    broker.delete_topic("topic")
    broker.create_topic("topic")
    assert broker.topic("topic").topic_id != before
    assert consumer.committed([AT], 0) == {AT: None}
    consumer.poll(1, 0)
    consumer.start({AT: 1})
    with pytest.raises(OutOfRange):
        consumer.poll(1, 0)


def test_records_without_key_go_round(broker: MemoryBroker) -> None:
    broker.create_topic("wide", 3)
    assert [broker.append("wide", value=b"v")[0].partition for _ in range(4)] == [0, 1, 2, 0]
