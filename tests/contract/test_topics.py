"""The admin client and the restore consumer."""

from __future__ import annotations

import pytest

from streamstate.engine.ports import NewTopic, OutOfRange, PortError, TopicPartition, Unavailable
from tests.contract.harness import (
    Side,
    commit,
    new_topic,
    offsets,
    open_producer,
    put,
    repeated,
    restored,
    values,
)


def test_create_is_repeatable(side: Side) -> None:
    admin, name = side.admin(), side.unique("topic")
    assert admin.topics([name]) == {}
    admin.create([NewTopic(name, 3, 1, {"cleanup.policy": "compact"})])
    first = admin.topics([name])
    assert first[name].partitions == 3
    admin.create([NewTopic(name, 5), NewTopic(name + "-more")])
    both = admin.topics([name, name + "-more", "missing"])
    assert set(both) == {name, name + "-more"}
    assert both[name] == first[name], "one that exists is left as it is"
    assert both[name + "-more"].partitions == 1


def test_configuration_is_effective(side: Side) -> None:
    name = new_topic(side, config={"cleanup.policy": "compact,delete", "retention.ms": "1234"})
    found = side.admin().config([name, "missing"])
    assert set(found) == {name}
    assert set(found[name]["cleanup.policy"].split(",")) == {"compact", "delete"}
    assert found[name]["retention.ms"] == "1234"
    assert found[name]["message.timestamp.after.max.ms"] == "3600000", "defaults are told too"
    assert found[name]["max.message.bytes"] == "1048588"
    assert found[name]["message.timestamp.type"] == "CreateTime"


def test_a_recreated_topic_has_another_id(side: Side) -> None:
    admin, name = side.admin(), new_topic(side)
    put(side, name, [b"a"])
    before = admin.topics([name])[name]
    assert before.topic_id
    admin.delete([name, "missing"])
    side.until(lambda: not admin.topics([name]), "the deletion")
    admin.create([NewTopic(name, 1, 1)])
    after = admin.topics([name])[name]
    assert after.topic_id
    assert after.topic_id != before.topic_id
    at, found = TopicPartition(name, 0), []
    # A client that knew the old topic may need a moment to see the new one's leader, and says Retriable until then.
    side.until(repeated(lambda: found.append(admin.log_ends([at]))), "the new leader")
    assert found == [{at: 0}]


def test_delete_records_moves_the_log_start(side: Side) -> None:
    admin, at = side.admin(), TopicPartition(new_topic(side), 0)
    put(side, at.topic, [b"%d" % number for number in range(5)])
    assert admin.log_starts([at]) == {at: 0}
    admin.delete_records({at: 3})
    assert admin.log_starts([at]) == {at: 3}
    assert admin.log_ends([at]) == {at: 5}
    admin.delete_records({at: 1})
    assert admin.log_starts([at]) == {at: 3}, "never back"
    assert offsets(restored(side, at, start=3)) == [3, 4]
    admin.delete_records({at: 5})
    assert admin.log_starts([at]) == admin.log_ends([at]) == {at: 5}
    assert restored(side, at, start=5) == []


def test_log_ends_of_an_empty_topic(side: Side) -> None:
    topic = new_topic(side, 2)
    both = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    assert side.admin().log_ends(both) == dict.fromkeys(both, 0)
    assert side.admin().log_starts(both) == dict.fromkeys(both, 0)
    assert restored(side, both[0]) == []


# The restore consumer


def test_restoring_below_the_log_start_is_an_error(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    put(side, at.topic, [b"a", b"b"])
    side.admin().delete_records({at: 1})
    consumer = side.restore_consumer()
    consumer.assign({at: 0})
    with pytest.raises(OutOfRange) as caught:
        side.until(lambda: consumer.poll(10, side.poll_ms) and False, "the error")
    assert caught.value.partition == at


def test_positions_are_at_least_what_was_assigned(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    put(side, at.topic, [b"a", b"b", b"c"])
    consumer = side.restore_consumer()
    consumer.assign({at: 1})
    assert consumer.positions() == {at: 1}


def test_positions_lie_behind_what_poll_gave(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    put(side, at.topic, [b"%d" % number for number in range(10)])
    consumer = side.restore_consumer()
    consumer.assign({at: 0})
    given: list[int] = []

    def step() -> bool:
        given.extend(offsets(consumer.poll(3, side.poll_ms)))
        assert consumer.positions()[at] == len(given), "no record is skipped by going on from the position"
        return len(given) == 10

    side.until(step, "ten records")
    assert given == list(range(10))


def test_assigning_more_keeps_positions(side: Side) -> None:
    topic = new_topic(side, 3)
    first, second, third = (TopicPartition(topic, number) for number in range(3))
    for at in (first, second, third):
        put(side, topic, [b"a", b"b", b"c"], partition=at.partition)
    consumer = side.restore_consumer()
    consumer.assign({first: 0, second: 0})
    given: list[tuple[int, int]] = []

    def read(count: int) -> None:
        def step() -> bool:
            given.extend((record.partition(), record.offset()) for record in consumer.poll(2, side.poll_ms))
            return len(given) >= count

        side.until(step, f"{count} records")

    read(4)
    positions = consumer.positions()
    consumer.assign({first: 0, third: 2})
    assert consumer.positions() == {first: positions[first], third: 2}
    kept = [entry for entry in given if entry[0] == 0]
    given[:] = kept
    read(len(kept) + (3 - len(kept)) + 1)
    assert sorted(given) == [(0, 0), (0, 1), (0, 2), (2, 2)]
    consumer.assign({})
    assert consumer.positions() == {}


def test_restoring_many_transactions(side: Side) -> None:
    at = TopicPartition(new_topic(side), 0)
    producer = open_producer(side)
    for number in range(20):
        producer.begin()
        producer.send([(at.topic, b"%d" % number, b"key", 0, None, None, None)])
        commit(side, producer)
    records = restored(side, at)
    assert values(records) == [b"%d" % number for number in range(20)]
    assert offsets(records) == [2 * number for number in range(20)]


def test_restoring_a_partition_that_was_added_meanwhile(side: Side) -> None:
    topic = new_topic(side, 1)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    put(side, topic, [b"a"])
    consumer = side.restore_consumer()
    consumer.assign({first: 0})
    given: list[bytes | None] = []

    def read(count: int) -> None:
        def step() -> bool:
            try:
                given.extend(record.value() for record in consumer.poll(10, side.poll_ms))
            except Unavailable:
                return False  # The client has not heard of it yet.
            return len(given) >= count

        side.until(step, f"{count} records")

    read(1)
    side.add_partitions(topic, 2)
    admin = side.admin()
    side.until(lambda: second in admin.log_ends([second]), "the new partition")
    put(side, topic, [b"b"], partition=1)
    consumer.assign({first: 1, second: 0})
    read(2)
    assert given == [b"a", b"b"]
    assert consumer.positions() == {first: 1, second: 1}


@pytest.mark.parametrize("name", ["no topic", "", "..", "t" * 250, "tö"])
def test_a_topic_that_cannot_be_is_not_created(side: Side, name: str) -> None:
    with pytest.raises(PortError):
        side.admin().create([NewTopic(name, 1, 1)])
