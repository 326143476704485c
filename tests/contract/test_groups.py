"""The group's consumer: assignment, rebalances, lost members, offsets, positions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamstate.engine.ports import Fenced, GroupMember, GroupTaken, OutOfRange, Position, TopicPartition
from streamstate.partitioning import partition_for
from tests.contract.harness import (
    CALL_MS,
    PROTOCOLS,
    Member,
    Side,
    commit,
    new_topic,
    offsets,
    open_producer,
    poll_until,
    put,
    repeated,
    values,
)

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def partitions_of(topic: str, count: int) -> set[TopicPartition]:
    """All of a topic."""
    return {TopicPartition(topic, number) for number in range(count)}


def alone(side: Side, topic: str, partitions: int = 1, start_at: int | None = 0) -> Member:
    """The only member of a group, with everything assigned."""
    member = Member(side, side.consumer(side.unique("group")), [topic], start_at=start_at)
    poll_until(side, [member], lambda: len(member.assigned) == partitions, "the assignment")
    return member


def read_until(side: Side, member: Member, count: int) -> list[bytes | None]:
    """Values of the next ``count`` records."""
    member.records.clear()
    poll_until(side, [member], lambda: len(member.records) >= count, f"{count} records")
    return values(member.records)


def idle(member: Member) -> None:
    """Polls during which nothing may come."""
    for _ in range(3):
        assert member.poll() == []


# Positions


def test_assigned_partitions_stay_paused_until_start(side: Side) -> None:
    topic = new_topic(side)
    put(side, topic, [b"a", b"b"])
    member = alone(side, topic, start_at=None)
    idle(member)
    side.until(repeated(lambda: member.consumer.start({TopicPartition(topic, 0): 1})), "the start")
    assert read_until(side, member, 1) == [b"b"]


def test_start_is_exact_also_while_running(side: Side) -> None:
    topic = new_topic(side)
    at = TopicPartition(topic, 0)
    put(side, topic, [b"%d" % number for number in range(10)])
    member = alone(side, topic)
    assert len(read_until(side, member, 10)) == 10
    for back in (4, 0, 9, 7):
        side.until(repeated(lambda back=back: member.consumer.start({at: back})), "the start")
        expected = [b"%d" % number for number in range(back, 10)]
        assert read_until(side, member, len(expected)) == expected
    side.until(repeated(lambda: member.consumer.start({at: 10})), "the start")
    idle(member)


def test_start_drops_what_was_fetched_before(side: Side) -> None:
    topic = new_topic(side)
    at = TopicPartition(topic, 0)
    put(side, topic, [b"%d" % number for number in range(10)])
    member = alone(side, topic)
    member.records.clear()
    side.until(lambda: member.poll(max_records=3), "some records")
    side.until(repeated(lambda: member.consumer.start({at: 1})), "the start")
    assert read_until(side, member, 9) == [b"%d" % number for number in range(1, 10)]


def test_start_touches_no_other_partition(side: Side) -> None:
    topic = new_topic(side, 2)
    for number in range(2):
        put(side, topic, [b"a", b"b"], partition=number)
    member = alone(side, topic, 2)
    read_until(side, member, 4)
    side.until(repeated(lambda: member.consumer.start({TopicPartition(topic, 1): 0})), "the start")
    read_until(side, member, 2)
    idle(member)
    assert [(record.partition(), record.offset()) for record in member.records] == [(1, 0), (1, 1)]


def test_pause_and_resume(side: Side) -> None:
    topic = new_topic(side, 2)
    member = alone(side, topic, 2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    put(side, topic, [b"a"], partition=0)
    read_until(side, member, 1)
    member.consumer.pause([first])
    put(side, topic, [b"b"], partition=0)
    put(side, topic, [b"c"], partition=1)
    assert read_until(side, member, 1) == [b"c"]
    idle(member)
    member.consumer.resume([first])
    assert read_until(side, member, 1) == [b"b"]
    assert second in member.assigned


def test_records_of_a_partition_come_in_order(side: Side) -> None:
    topic = new_topic(side, 3)
    for number in range(3):
        put(side, topic, [b"%d" % value for value in range(50)], partition=number)
    member = alone(side, topic, 3)
    side.until(lambda: member.poll(max_records=7) is not None and len(member.records) == 150, "all records")
    for number in range(3):
        of_one = [record for record in member.records if record.partition() == number]
        assert offsets(of_one) == list(range(50))


def test_below_the_log_start_is_an_error(side: Side) -> None:
    topic = new_topic(side)
    at = TopicPartition(topic, 0)
    put(side, topic, [b"a", b"b", b"c"])
    side.admin().delete_records({at: 2})
    member = alone(side, topic, start_at=None)
    side.until(repeated(lambda: member.consumer.start({at: 0})), "the start")
    with pytest.raises(OutOfRange) as caught:
        side.until(lambda: member.poll() and False, "the error")
    assert caught.value.partition == at
    side.until(repeated(lambda: member.consumer.start({at: 2})), "the start")
    assert read_until(side, member, 1) == [b"c"]


def test_behind_the_log_end_is_an_error(side: Side) -> None:
    topic = new_topic(side)
    at = TopicPartition(topic, 0)
    put(side, topic, [b"a"])
    member = alone(side, topic, start_at=None)
    side.until(repeated(lambda: member.consumer.start({at: 5})), "the start")
    with pytest.raises(OutOfRange) as caught:
        side.until(lambda: member.poll() and False, "the error")
    assert caught.value.partition == at


def test_lag_is_what_is_left(side: Side) -> None:
    topic = new_topic(side)
    at = TopicPartition(topic, 0)
    put(side, topic, [b"a", b"b", b"c"])
    member = alone(side, topic)
    member.records.clear()
    side.until(lambda: member.poll(max_records=1), "the first record")
    assert member.consumer.lag({at: 0, TopicPartition("elsewhere", 0): 0}) == {at: 2}
    read_until(side, member, 2)
    # Handed over is not behind, whatever the caller has processed of it.
    assert member.consumer.lag({at: 1}) == {at: 0}


# Offsets


@every_protocol
def test_commit_without_a_transaction(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    member = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [member], lambda: len(member.assigned) == 2, "the assignment")
    side.until(repeated(lambda: member.consumer.commit({first: Position(5, "note")})), "the commit")
    assert member.consumer.committed([first, second], CALL_MS) == {first: Position(5, "note"), second: None}
    member.close()
    successor = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [successor], lambda: len(successor.assigned) == 2, "the assignment")
    assert successor.consumer.committed([first], CALL_MS) == {first: Position(5, "note")}


def test_metadata_before_and_after_joining(side: Side) -> None:
    topic = new_topic(side)
    consumer = side.consumer(side.unique("group"))
    assert not consumer.group_metadata().is_member
    member = Member(side, consumer, [topic])
    poll_until(side, [member], lambda: member.assigned, "the assignment")
    assert consumer.group_metadata().is_member


# Rebalances


@every_protocol
def test_two_members_share_and_the_leaver_gives_back(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 4), side.unique("group")
    everything = partitions_of(topic, 4)
    first = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [first], lambda: first.assigned == everything, "the assignment")
    second = Member(side, side.consumer(group, protocol), [topic])
    both = [first, second]
    poll_until(side, both, lambda: len(first.assigned) == len(second.assigned) == 2, "the rebalance")
    assert first.assigned | second.assigned == everything
    revoked = set(first.named("revoked"))
    assert revoked == (everything if protocol == "eager" else second.assigned)
    assert "lost" not in [kind for member in both for kind, _ in member.events]

    left = set(second.assigned)
    second.close()
    assert second.events[-1] == ("revoked", sorted(left))
    assert not second.assigned
    poll_until(side, [first], lambda: first.assigned == everything, "what the leaver had")


@every_protocol
def test_what_stays_keeps_running(side: Side, protocol: str) -> None:
    """Records of partitions that did not move are neither repeated nor skipped, except after eager revocation."""
    topic, group = new_topic(side, 2), side.unique("group")
    for number in range(2):
        put(side, topic, [b"%d" % value for value in range(5)], partition=number)
    first = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [first], lambda: len(first.records) == 10, "the records")
    second = Member(side, side.consumer(group, protocol), [topic], start_at=5)
    first.start_at = 5
    poll_until(side, [first, second], lambda: first.assigned and second.assigned, "the rebalance")
    for number in range(2):
        put(side, topic, [b"new"], partition=number)
    first.records.clear()
    poll_until(side, [first, second], lambda: first.records and second.records, "the new records")
    assert values(first.records) == values(second.records) == [b"new"]
    assert {record.partition() for record in first.records} == {p.partition for p in first.assigned}


@every_protocol
def test_the_last_moment_to_commit_is_inside_on_revoked(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    producer = open_producer(side)

    def commit_revoked(partitions: Sequence[TopicPartition]) -> None:
        producer.begin()
        metadata = first.consumer.group_metadata()
        producer.send_offsets(dict.fromkeys(partitions, Position(42)), metadata, CALL_MS)
        commit(side, producer)

    first = Member(side, side.consumer(group, protocol), [topic], on_revoking=commit_revoked)
    poll_until(side, [first], lambda: len(first.assigned) == 2, "the assignment")
    second = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [first, second], lambda: first.assigned and second.assigned, "the rebalance")
    [moved] = second.assigned
    found: dict[TopicPartition, Position | None] = {}
    side.until(repeated(lambda: found.update(second.consumer.committed([moved], CALL_MS))), "the offsets")
    assert found == {moved: Position(42)}


@every_protocol
@pytest.mark.parametrize("members", [1, 2])
def test_close_is_a_moment_to_commit_too(side: Side, protocol: str, members: int) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    everyone = [Member(side, side.consumer(group, protocol), [topic]) for _ in range(members)]
    shares = [2 // members] * members
    poll_until(side, everyone, lambda: [len(m.assigned) for m in everyone] == shares, "the assignment")
    # Let every rebalance come to its end.
    for _ in range(20):
        for member in everyone:
            member.poll()
    producer, leaver = open_producer(side), everyone[-1]

    def commit_revoked(partitions: Sequence[TopicPartition]) -> None:
        producer.begin()
        metadata = leaver.consumer.group_metadata()
        producer.send_offsets(dict.fromkeys(partitions, Position(42)), metadata, CALL_MS)
        commit(side, producer)

    leaver.on_revoking = commit_revoked
    held = sorted(leaver.assigned)
    leaver.close()
    assert leaver.events[-1] == ("revoked", held)
    successor = Member(side, side.consumer(group, protocol), [topic])
    found: dict[TopicPartition, Position | None] = {}
    side.until(repeated(lambda: found.update(successor.consumer.committed(held, CALL_MS))), "the offsets")
    assert found == dict.fromkeys(held, Position(42))


@every_protocol
def test_nothing_comes_of_a_partition_taken_away(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 4), side.unique("group")
    for number in range(4):
        put(side, topic, [b"%d" % value for value in range(200)], partition=number)
    first = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [first], lambda: len(first.assigned) == 4, "the assignment")
    second = Member(side, side.consumer(group, protocol), [topic])

    def step() -> bool:
        for member in (first, second):
            for record in member.poll(max_records=3):
                assert TopicPartition(record.topic(), record.partition()) in member.assigned
        return len(first.assigned) == len(second.assigned) == 2

    side.until(step, "the rebalance")


@every_protocol
def test_a_silent_member_has_lost_its_partitions(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    everything = partitions_of(topic, 2)
    silent = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [silent], lambda: silent.assigned == everything, "the assignment")
    stale = silent.consumer.group_metadata()
    other = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [other], lambda: other.assigned == everything, "what the silent one had")
    producer = open_producer(side)
    producer.begin()
    with pytest.raises(Fenced):
        producer.send_offsets({TopicPartition(topic, 0): Position(1)}, stale, CALL_MS)
    with pytest.raises(Fenced):
        silent.consumer.commit({TopicPartition(topic, 0): Position(1)})
    assert silent.events == [("assigned", sorted(everything))], "it does not know before it polls"

    def commit_too_late(partitions: Sequence[TopicPartition]) -> None:
        metadata = silent.consumer.group_metadata()
        # Once it has joined again it may commit again.
        if (metadata.generation, metadata.member_id) == (stale.generation, stale.member_id):
            late = open_producer(side)
            late.begin()
            with pytest.raises(Fenced):
                late.send_offsets(dict.fromkeys(partitions, Position(1)), metadata, CALL_MS)

    silent.on_revoking = commit_too_late

    # A client that was told to give up partitions before its session ended may still hear that, too late.
    def heard() -> bool:
        return {*silent.named("lost"), *silent.named("revoked")} == everything

    poll_until(side, [silent, other], heard, "the news")
    silent.on_revoking = None
    poll_until(side, [silent, other], lambda: len(silent.assigned) == len(other.assigned) == 1, "its return")
    assert silent.assigned | other.assigned == everything


@pytest.mark.parametrize("protocol", ["eager", "cooperative"])
def test_a_static_member_keeps_its_place(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 4), side.unique("group")
    names = [side.unique("instance"), side.unique("instance")]
    first, second = (Member(side, side.consumer(group, protocol, instance_id=name), [topic]) for name in names)
    poll_until(side, [first, second], lambda: len(first.assigned) == len(second.assigned) == 2, "the rebalance")
    held, revoked = set(second.assigned), first.named("revoked")
    second.close()
    again = Member(side, side.consumer(group, protocol, instance_id=names[1]), [topic])
    poll_until(side, [first, again], lambda: again.assigned, "its place")
    assert again.assigned == held
    assert first.named("revoked") == revoked, "nothing moved"
    assert len(first.assigned) == 2


@every_protocol
def test_a_topic_that_appears_later_is_assigned(side: Side, protocol: str) -> None:
    present, group = new_topic(side), side.unique("group")
    member = Member(side, side.consumer(group, protocol), [present])
    poll_until(side, [member], lambda: len(member.assigned) == 1, "the assignment")
    later = new_topic(side)
    member.consumer.subscribe([present, later], member)
    poll_until(side, [member], lambda: len(member.assigned) == 2, "the new topic")
    assert {partition.topic for partition in member.assigned} == {present, later}


# Who is in the group


def test_members_are_described_with_what_they_hold(side: Side) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    none: list[GroupMember] = []
    # A broker that has just begun does not know yet who coordinates the group, and says Retriable until then.
    side.until(repeated(lambda: none.extend(side.admin().members(group))), "the coordinator")
    assert none == []
    first = Member(side, side.consumer(group), [topic])
    poll_until(side, [first], lambda: len(first.assigned) == 2, "the assignment")
    [described] = side.admin().members(group)
    assert described.partitions == partitions_of(topic, 2)
    assert described.client_id
    assert described.host
    assert described.member_id == first.consumer.group_metadata().member_id
    second = Member(side, side.consumer(group), [topic])
    both = [first, second]
    poll_until(side, both, lambda: len(first.assigned) == len(second.assigned) == 1, "the rebalance")

    def told() -> bool:
        found = {member.member_id: member.partitions for member in side.admin().members(group)}
        return found == {member.consumer.group_metadata().member_id: member.assigned for member in both}

    poll_until(side, both, told, "both")
    second.close()
    poll_until(side, [first], lambda: len(side.admin().members(group)) == 1, "the leave")


def test_members_of_another_strategy_keep_one_out_until_they_leave(side: Side) -> None:
    topic, group = new_topic(side, 2), side.unique("group")
    first = Member(side, side.consumer(group, "eager"), [topic])
    poll_until(side, [first], lambda: len(first.assigned) == 2, "the assignment")
    second = Member(side, side.consumer(group, "cooperative"), [topic])
    refusals = 0

    def refused_twice() -> bool:
        nonlocal refusals
        first.poll()
        try:
            second.poll()
        except GroupTaken:
            refusals += 1
        return refusals == 2

    side.until(refused_twice, "the refusal, more than once")
    assert second.assigned == set()
    assert len(first.assigned) == 2
    first.close()

    def let_in() -> bool:
        try:
            second.poll()
        except GroupTaken:
            return False
        return len(second.assigned) == 2

    side.until(let_in, "its place")


@every_protocol
def test_partitions_that_are_added_are_assigned(side: Side, protocol: str) -> None:
    topic, group = new_topic(side, 1), side.unique("group")
    member = Member(side, side.consumer(group, protocol), [topic])
    poll_until(side, [member], lambda: member.assigned == partitions_of(topic, 1), "the assignment")
    side.add_partitions(topic, 3)
    poll_until(side, [member], lambda: member.assigned == partitions_of(topic, 3), "the new partitions")
    put(side, topic, [b"new"], partition=2)
    assert read_until(side, member, 1) == [b"new"]


def test_a_producer_goes_by_the_new_count(side: Side) -> None:
    """As Java's: murmur2 of the key over the partitions there are, once the client has heard of them."""
    topic = new_topic(side, 1)
    producer = side.producer()
    key = next(b"k%d" % number for number in range(100) if partition_for(b"k%d" % number, 3) == 2)
    side.add_partitions(topic, 3)
    at = TopicPartition(topic, 2)

    def step() -> bool:
        producer.send([(topic, b"v", key, -1, None, None, None)])
        producer.flush(CALL_MS)
        return side.admin().log_ends([at]).get(at, 0) > 0

    side.until(step, "a record in the new partition")
