"""Groups on the broker in memory: members, rebalances, assignments."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate.engine.ports import (
    Fenced,
    GroupTaken,
    Position,
    TopicPartition,
)
from streamstate.testing.memory_broker.assignors import Assignor, range_assignor, sticky_assignor
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from tests.unit.memory_broker.support import AT, Listener, member_of, producer_of

# Groups


def test_an_expelled_member_hears_of_it_in_its_next_poll(broker: MemoryBroker) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    member_id = consumer.group_metadata().member_id
    broker.expel("a")
    assert listener.events == [("assigned", [0])]
    assert consumer.group_metadata().member_id == member_id
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0]), ("lost", [0]), ("assigned", [0])]
    assert consumer.group_metadata().member_id != member_id


def test_a_lost_member_may_be_told_that_it_gives_up(broker: MemoryBroker) -> None:
    broker.lost_as_revoked = True
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    refused: list[type[Exception]] = []

    class Committing(Listener):
        def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
            super().on_revoked(partitions)
            try:
                consumer.commit({AT: Position(1)})
            except Fenced as error:
                refused.append(type(error))

    listener = Committing()
    consumer.subscribe(["topic"], listener)
    broker.expel("a")
    consumer.poll(1, 0)
    assert listener.events == [("revoked", [0]), ("assigned", [0])]
    assert refused == [Fenced]
    assert broker.committed("group") == {}


def test_an_older_epoch_does_for_what_is_still_held(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 2)
    first, _ = member_of(broker, "a", protocol="broker")
    first.poll(1, 0)
    old = first.group_metadata()
    second, _ = member_of(broker, "b", protocol="broker")
    for _ in range(3):
        second.poll(1, 0)
        first.poll(1, 0)
    assert first.group_metadata().generation > old.generation
    producer = producer_of(broker)
    producer.begin()
    producer.send_offsets({AT: Position(1)}, old, 100)
    producer.commit(100)
    producer.begin()
    with pytest.raises(Fenced, match="stale"):
        producer.send_offsets({TopicPartition("topic", 1): Position(1)}, old, 100)


def test_closing_after_the_session_ended_loses(broker: MemoryBroker, clock: ManualClock) -> None:
    consumer, listener = member_of(broker, session_timeout_ms=1_000)
    consumer.poll(1, 0)
    clock.advance(1_001)
    consumer.close()
    assert listener.events == [("assigned", [0]), ("lost", [0])]
    with pytest.raises(RuntimeError, match="closed"):
        consumer.poll(1, 0)


def test_a_poll_within_the_session_keeps_the_member(broker: MemoryBroker, clock: ManualClock) -> None:
    consumer, listener = member_of(broker, session_timeout_ms=1_000)
    for _ in range(5):
        consumer.poll(1, 0)
        clock.advance(1_000)
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0])]


def test_cooperative_moves_in_two_rebalances(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 2)
    first, first_hears = member_of(broker, "a")
    first.poll(1, 0)
    second, second_hears = member_of(broker, "b")
    second.poll(1, 0)
    assert first_hears.events == [("assigned", [0, 1])]
    first.poll(1, 0)
    assert first_hears.events[1:] == [("revoked", [1]), ("assigned", [])]
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [])], "nothing before the holder rejoined"
    first.poll(1, 0)
    second.poll(1, 0)
    assert second_hears.events == [("assigned", []), ("assigned", [1])]
    assert broker.group("group").generation == 3


def test_eager_stops_everything_first(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 2)
    first, first_hears = member_of(broker, "a", protocol="eager")
    first.poll(1, 0)
    second, second_hears = member_of(broker, "b", protocol="eager")
    second.poll(1, 0)
    first.poll(1, 0)
    assert first_hears.events == [("assigned", [0, 1]), ("revoked", [0, 1]), ("assigned", [0])]
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [1])]


def test_the_broker_moves_what_was_let_go(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 3)
    first, first_hears = member_of(broker, "a", protocol="broker")
    first.poll(1, 0)
    epoch = first.group_metadata().generation
    second, second_hears = member_of(broker, "b", protocol="broker")
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [])]
    assert first.group_metadata().generation == epoch, "its own epoch stays until it has let go"
    first.poll(1, 0)
    assert first_hears.events == [("assigned", [0, 1, 2]), ("revoked", [2])]
    second.poll(1, 0)
    assert second_hears.events == [("assigned", []), ("assigned", [2])]
    first.poll(1, 0)
    assert first.group_metadata().generation == second.group_metadata().generation == epoch + 1


def test_another_protocol_has_to_wait(broker: MemoryBroker) -> None:
    consumer, _ = member_of(broker, protocol="eager")
    consumer.poll(1, 0)
    other, _ = member_of(broker, "b", protocol="broker")
    with pytest.raises(GroupTaken, match="uses the protocol 'eager'"):
        other.poll(1, 0)
    consumer.close()
    other.poll(1, 0)


def test_the_successor_of_a_static_member_fences_it(broker: MemoryBroker) -> None:
    first, first_hears = member_of(broker, "a", instance_id="one")
    first.poll(1, 0)
    second, second_hears = member_of(broker, "b", instance_id="one")
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [0])]
    with pytest.raises(Fenced, match="instance id"):
        first.poll(1, 0)
    assert first_hears.events == [("assigned", [0]), ("lost", [0])]
    assert broker.group("group").generation == 1


def test_topics_that_change_are_noticed(broker: MemoryBroker) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    broker.add_partitions("topic", 3)
    consumer.poll(1, 0)
    broker.delete_topic("topic")
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0]), ("assigned", [1, 2]), ("revoked", [0, 1, 2]), ("assigned", [])]


def test_a_rebalance_for_no_reason(broker: MemoryBroker) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    broker.group("group").rebalance()
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0]), ("assigned", [])]


# Assignors

ASSIGNORS = pytest.mark.parametrize("assignor", [range_assignor, sticky_assignor])
HELD = st.dictionaries(
    st.sampled_from("abcdef"),
    st.sets(st.builds(TopicPartition, st.sampled_from(["s", "t", "gone"]), st.integers(0, 11)), max_size=12),
)


@ASSIGNORS
@given(members=st.sets(st.sampled_from("abcde"), min_size=1), count=st.integers(1, 9), held=HELD)
def test_assignments_are_complete_balanced_and_keep_partitions_together(
    assignor: Assignor, members: set[str], count: int, held: dict[str, set[TopicPartition]]
) -> None:
    subscriptions = dict.fromkeys(sorted(members), ("s", "t"))
    taken: set[TopicPartition] = set()
    disjoint: dict[str, list[TopicPartition]] = {}
    for member in sorted(held):
        disjoint[member] = sorted(held[member] - taken)
        taken |= held[member]
    assignment = assignor(subscriptions, {"s": count, "t": count}, disjoint)
    given_ = [partition for partitions in assignment.values() for partition in partitions]
    assert sorted(given_) == [TopicPartition(topic, number) for topic in "st" for number in range(count)]
    for partitions in assignment.values():
        assert {p.partition for p in partitions if p.topic == "s"} == {
            p.partition for p in partitions if p.topic == "t"
        }
    sizes = [len(partitions) for partitions in assignment.values()]
    assert max(sizes) - min(sizes) <= 2, "one number, of both topics"
    assert assignor(subscriptions, {"s": count, "t": count}, disjoint) == assignment


@given(st.integers(1, 5), st.integers(1, 12))
def test_sticky_changes_nothing_without_need(members: int, count: int) -> None:
    subscriptions = {f"m{number}": ("t",) for number in range(members)}
    first = sticky_assignor(subscriptions, {"t": count}, {})
    assert sticky_assignor(subscriptions, {"t": count}, first) == first
    more = {**subscriptions, "z": ("t",)}
    grown = sticky_assignor(more, {"t": count}, first)
    for member, partitions in first.items():
        assert grown[member] <= partitions, "who was there gives, and gets nothing new"


def test_only_subscribers_get_a_topic() -> None:
    for assignor in (range_assignor, sticky_assignor):
        assignment = assignor({"a": ("s", "t"), "b": ("t",)}, {"s": 2, "t": 2}, {})
        assert {p.topic for p in assignment["b"]} == {"t"}
        assert sum(len(partitions) for partitions in assignment.values()) == 4


# The clock


def test_clock() -> None:
    clock = ManualClock(100)
    clock.advance(5)
    clock.set_wall(50)
    assert (clock.now_ms(), clock.monotonic_ms()) == (50, 5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
