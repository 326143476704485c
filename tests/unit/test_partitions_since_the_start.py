"""``latest`` and ``error`` speak of the partitions that were there when the group first read a topic: one that has come
since is read from its beginning, by whichever process, at whatever time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest

from streamstate import OffsetOutOfRange, Topology, serde
from streamstate.engine.ports import Position, TopicPartition
from streamstate.engine.task.offset_metadata import MOST_MARKS, changelog_marks, encode_metadata
from tests.unit.application_support import GROUP, Run

BEFORE, OLD, AT_ONCE, LATER = b"before the start", b"old partition", b"new partition, at once", b"later"


class Crash(BaseException):
    """The process is killed."""


def copying(reset: Literal["earliest", "latest", "error"] = "latest", *more: str) -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", reset=reset)
    for topic in more:
        stream = stream.merge(topology.stream(topic, reset=reset))
    stream.to("out")
    return topology


def values(run: Run) -> list[bytes | None]:
    return [value for _, value in run.out()]


def crash(run: Run, name: str = "w") -> None:
    run.workers.pop(name)
    run.broker.expel(name)


def note_of(run: Run, partition: int) -> str:
    return run.broker.committed(GROUP)[TopicPartition("in", partition)].metadata


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("down", [False, True])
def test_one_that_is_added_is_read_from_its_beginning(down: bool, exactly_once: bool) -> None:
    run = Run(copying(), {"in": 1, "out": 1}, exactly_once=exactly_once)
    run.send(BEFORE)
    run.ticks()
    run.send(OLD)
    run.until(lambda: values(run) == [OLD])
    if down:
        run.workers.pop("w").close()
    run.broker.add_partitions("in", 3)
    run.send(AT_ONCE, partition=2)
    run.until(lambda: values(run) == [OLD, AT_ONCE])
    run.send(LATER, partition=2)
    run.until(lambda: values(run) == [OLD, AT_ONCE, LATER])
    run.ticks()
    assert [note_of(run, number).partition(";")[2] for number in range(3)] == ["n=1"] * 3, "it stays what it was"


def test_those_that_were_there_stay_latest_although_others_have_committed() -> None:
    """A first start of which one process dies before its first commit."""
    run = Run(copying(), {"in": 2, "out": 1})
    run.ticks()
    crash(run)
    del run.broker.group(GROUP).offsets[TopicPartition("in", 1)]
    run.send(BEFORE, partition=1)
    run.start()
    run.ticks()
    assert values(run) == []
    run.send(LATER, partition=1)
    run.until(lambda: values(run) == [LATER])


def test_two_processes_of_which_one_is_late() -> None:
    run = Run(copying(), {"in": 2, "out": 1})
    run.start("a")
    run.ticks(8)
    run.broker.add_partitions("in", 4)
    run.send(AT_ONCE, partition=3)
    run.start("b")
    run.until(lambda: values(run) == [AT_ONCE])
    assert all(len(worker.assignment.tasks) == 2 for worker in run.workers.values())


def played(crash_at: int | None) -> tuple[list[bytes | None], int]:
    """A first start, a record, a partition that is added; killed at one call of a client."""
    run = Run(copying(), {"in": 2, "out": 1})
    for partition in range(2):
        run.send(BEFORE, partition=partition)
    calls = 0

    def on_call(actor: str, call: str, phase: str) -> None:
        nonlocal calls
        calls += 1
        if calls == crash_at:
            raise Crash

    def through(reached: Callable[[], bool]) -> None:
        for _ in range(80):
            if reached():
                return
            try:
                run.ticks(1)
            except Crash:
                crash(run)
                run.start()
        raise AssertionError("not reached")

    run.start()
    run.broker.on_call = on_call
    through(lambda: len(run.broker.committed(GROUP)) == 2)
    run.send(OLD, partition=1)
    run.broker.add_partitions("in", 3)
    run.send(AT_ONCE, partition=2)
    through(lambda: len(values(run)) == 2)
    run.send(LATER, partition=2)
    through(lambda: len(values(run)) == 3)
    run.broker.on_call = None
    run.ticks(8)
    return values(run), calls


def test_a_crash_at_any_call_skips_and_repeats_nothing() -> None:
    right, calls = played(None)
    assert sorted(filter(None, right)) == sorted([OLD, AT_ONCE, LATER])
    assert calls > 50
    for number in range(1, calls + 1):
        found, _ = played(number)
        assert sorted(filter(None, found)) == sorted([OLD, AT_ONCE, LATER]), number


def test_one_of_several_inputs_grows() -> None:
    run = Run(copying("latest", "more"), {"in": 1, "more": 2, "out": 1}, eager=True)
    run.app.protocol = "eager"
    for topic in ("in", "more"):
        run.send(BEFORE, topic=topic)
    run.ticks()
    run.broker.add_partitions("in", 2)
    run.send(AT_ONCE, partition=1)
    run.send(OLD, topic="more", partition=1)
    run.until(lambda: sorted(filter(None, values(run))) == sorted([AT_ONCE, OLD]))


def test_a_topic_that_is_read_only_since_an_update_begins_then() -> None:
    """The group has offsets, but none of this topic."""
    run = Run(copying(), {"in": 1, "more": 2, "out": 1})
    run.send(BEFORE, topic="more", partition=1)
    run.ticks()
    run.workers.pop("w").close()
    group = run.broker.group(GROUP).offsets
    assert set(group) == {TopicPartition("in", 0)}
    topology = Topology("t")
    for topic in ("in", "more"):
        topology.stream(topic, reset="latest").to("out")
    later = Run(topology, {"in": 1, "more": 2, "out": 1})
    later.broker, later.app.broker, later.app.clock, later.clock = run.broker, run.broker, run.clock, run.clock
    later.ticks()
    assert values(later) == []
    assert group[TopicPartition("more", 1)] == Position(1, "t=-1;n=2")


@pytest.mark.parametrize("metadata", ["", "t=5", "t=5;n=many"])
def test_offsets_that_do_not_say_how_many_there_were(metadata: str) -> None:
    """Set by a tool, or when the source was read from its earliest record: those up to the last of them were there."""
    run = Run(copying(), {"in": 4, "out": 1})
    for partition in range(4):
        run.send(b"%d" % partition, partition=partition)
    group = run.broker.use_group(GROUP, "cooperative")
    group.offsets[TopicPartition("in", 0)] = Position(1, metadata)
    group.offsets[TopicPartition("in", 2)] = Position(0, metadata)
    run.ticks(8)
    assert sorted(filter(None, values(run))) == [b"2", b"3"]
    assert {note_of(run, number).partition(";")[2] for number in (1, 2, 3)} == {"n=3"}


def test_error_ends_for_what_was_there_and_reads_what_has_come_since() -> None:
    run = Run(copying("error"), {"in": 2, "out": 1})
    group = run.broker.use_group(GROUP, "cooperative")
    group.offsets[TopicPartition("in", 0)] = Position(0)
    group.offsets[TopicPartition("in", 1)] = Position(0)
    run.ticks()
    run.broker.add_partitions("in", 3)
    run.send(AT_ONCE, partition=2)
    run.until(lambda: values(run) == [AT_ONCE])
    run.workers.pop("w").close()
    del group.offsets[TopicPartition("in", 1)]
    with pytest.raises(OffsetOutOfRange, match=r"'in', partition 1.*reset='error'"):
        run.ticks()


def test_the_note_fits_what_brokers_take() -> None:
    """``offset.metadata.max.bytes`` is 4,096 by default."""
    marks = changelog_marks({f"store-{number}": str(number) for number in range(MOST_MARKS + 1)})
    assert len(encode_metadata((1 << 63) - 1, marks, 1_000_000)) <= 4_096


# A topic that is created again


@pytest.mark.parametrize("down", [False, True])
def test_a_topic_that_is_created_again_is_read_from_its_beginning(down: bool) -> None:
    """None of its partitions was there when the group first read it."""
    run = Run(copying(), {"in": 2, "out": 1})
    run.send(BEFORE)
    run.ticks()
    run.send(OLD)
    run.until(lambda: values(run) == [OLD])
    if down:
        run.workers.pop("w").close()
    run.broker.delete_topic("in")
    run.broker.create_topic("in", 2)
    for partition in range(2):
        run.send(AT_ONCE, partition=partition)
    run.until(lambda: values(run) == [OLD, AT_ONCE, AT_ONCE])
    run.ticks()
    # A partition whose position fits the new log goes on without a start; the least number counts.
    assert "n=0" in {note_of(run, number).partition(";")[2] for number in range(2)}


def counted(reset: Literal["earliest", "latest"]) -> Topology:
    topology = Topology("t")
    text = serde.string()
    counts = topology.stream("in", key=text, value=text, reset=reset).group_by_key().count(store="counts")
    counts.to_stream().to("out", value=serde.long())
    return topology


def played_again(reset: Literal["earliest", "latest"], crash_at: int | None) -> tuple[list[bytes | None], int]:
    """An input that is created again between two starts; killed at one call of the second."""
    run = Run(counted(reset), {"in": 1, "out": 1})
    run.ticks()
    run.send(b"1", b"2")
    run.until(lambda: len(run.out()) == 2)
    run.workers.pop("w").close()
    run.broker.delete_topic("in")
    run.broker.create_topic("in", 1)
    run.send(b"3")
    calls = 0

    def on_call(actor: str, call: str, phase: str) -> None:
        nonlocal calls
        calls += 1
        if calls == crash_at:
            raise Crash

    run.start()
    run.broker.on_call = on_call
    for _ in range(40):
        try:
            run.ticks(1)
        except Crash:
            crash(run)
            run.start()
    run.broker.on_call = None
    run.send(b"4")
    run.ticks(8)
    return [value and value[-1:] for value in values(run)], calls


@pytest.mark.parametrize("reset", ["earliest", "latest"])
def test_a_crash_after_it_was_created_again_neither_refuses_nor_skips(reset: Literal["earliest", "latest"]) -> None:
    right, calls = played_again(reset, None)
    assert right == [b"\1", b"\2", b"\3", b"\4"]
    for number in range(1, calls + 1):
        assert played_again(reset, number)[0] == right, number
