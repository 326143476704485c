"""A result that comes due with time and fails meets its error policy by itself, and is not due again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    Processor,
    Serde,
    Stream,
    Topology,
    dead_letter,
    serde,
    stores,
    time_limit,
    windows,
)
from streamstate.testing import TopologyTestDriver

TEXT = serde.string()
POLICIES = ["continue", dead_letter("rejected")]


def ms(number: int) -> timedelta:
    return timedelta(milliseconds=number)


def folded(made: Any) -> Callable[[Topology, Any], Stream[Any, str]]:
    def build(topology: Topology, on_error: Any) -> Stream[Any, str]:
        stream = topology.stream("in", key=TEXT, value=TEXT, on_error=on_error)
        return stream.group_by_key().windowed_by(made).reduce(max, store="s", emit="close").to_stream()

    return build


def suppressed(topology: Topology, on_error: Any) -> Stream[Any, str]:
    table = topology.table("in", key=TEXT, value=TEXT, on_error=on_error)
    return table.suppress(time_limit(ms(10)), store="s").to_stream()


def left_joined(topology: Topology, on_error: Any) -> Stream[Any, str]:
    left = topology.stream("in", key=TEXT, value=TEXT, on_error=on_error)
    right = topology.stream("right", key=TEXT, value=TEXT, on_error=on_error)
    return left.left_join(right, lambda one, other: one, within=windows.join(ms(10)), store="s")


def outer_joined(topology: Topology, on_error: Any) -> Stream[Any, str]:
    left = topology.stream("left", key=TEXT, value=TEXT, on_error=on_error)
    right = topology.stream("in", key=TEXT, value=TEXT, on_error=on_error)
    return left.outer_join(right, lambda one, other: one or other, within=windows.join(ms(10)), store="s")


def waiting(topology: Topology, on_error: Any) -> Stream[Any, str]:
    rows = topology.table("rows", key=TEXT, value=TEXT, versioned=timedelta(seconds=10), on_error=on_error)
    asked = topology.stream("in", key=TEXT, value=TEXT, on_error=on_error)
    return asked.left_join(rows, lambda one, other: one, grace=ms(10), name="s")


OPERATORS: dict[str, Callable[[Topology, Any], Stream[Any, str]]] = {
    "tumbling": folded(windows.tumbling(ms(10))),
    "session": folded(windows.session(ms(5))),
    "sliding": folded(windows.sliding(ms(5))),
    "suppress": suppressed,
    "left join": left_joined,
    "outer join": outer_joined,
    "grace of a table join": waiting,
}


def checked(value: str) -> str:
    if value == "bad":
        raise ValueError("cannot take this")
    return value


class Counting(Processor[Any, str, Any, str]):
    """Changes state, and sends, before what is behind it fails."""

    def init(self, context: Any) -> None:
        super().init(context)
        self.seen = context.store("seen")

    def process(self, key: Any, value: str) -> None:
        self.seen.put(value, (self.seen.get(value) or 0) + 1)
        self.context.forward(key, value)


def encoding(due: Stream[Any, str]) -> None:
    due.to("out", value=Serde("picky", lambda value: checked(value).encode(), bytes.decode))


def behind(due: Stream[Any, str]) -> None:
    due.to("before", value=TEXT)
    due.map_values(checked).to("out", value=TEXT)


def state_behind(due: Stream[Any, str]) -> None:
    seen = due.process(Counting, stores=[stores.key_value("seen", key=TEXT, value=serde.long())])
    seen.map_values(checked).for_each(lambda key, value: None)
    due.to("out", value=TEXT)


FAILURES: dict[str, Callable[[Stream[Any, str]], None]] = {
    "encoding": encoding,
    "behind": behind,
    "state behind": state_behind,
}


def built(operator: str, failure: str, on_error: Any) -> Topology:
    topology = Topology("t")
    FAILURES[failure](OPERATORS[operator](topology, on_error))
    return topology


def sent(driver: TopologyTestDriver, topic: str = "out") -> list[str]:
    return [(record.value() or b"").decode() for record in driver.broker.read(topic)]


def send(driver: TopologyTestDriver, *records: tuple[str, str, int]) -> None:
    for key, value, time in records:
        driver.input("in").pipe(key, value, timestamp=time)


THREE = ("a", "first", 20), ("b", "bad", 21), ("c", "third", 22)


@pytest.mark.parametrize("on_error", POLICIES, ids=str)
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_only_the_due_result_that_fails_is_left_out(operator: str, failure: str, on_error: Any, disk: Any) -> None:
    with TopologyTestDriver(built(operator, failure, on_error), topics=["rejected"]) as driver:
        send(driver, *THREE, ("d", "mover", 100))
        assert sent(driver) == ["first", "third"]
        if failure == "behind":
            assert sent(driver, "before") == ["first", "third"]
        if failure == "state behind":
            assert dict(driver.store("seen").all()) == {"first": 1, "third": 1}
        assert driver.status().failed == 1
        letters = driver.broker.read("rejected")
        if on_error == "continue":
            assert letters == []
        else:
            [letter] = letters
            headers = dict(letter.headers() or ())
            assert b"b" in (letter.key() or b"")
            assert letter.value() == (b"bad" if operator == "grace of a table join" else None)
            assert b"cannot take this" in (headers["streamstate.error.message"] or b"")
            assert "streamstate.error.offset" not in headers
        # It is not due again: not for the next record, and not after a restart.
        send(driver, ("e", "last", 200))
        driver.crash(disk=disk)
        send(driver, ("f", "end", 300))
        assert sent(driver) == ["first", "third", "mover", "last"]
        assert len(driver.broker.read("rejected")) == (0 if on_error == "continue" else 1)
        assert driver.status().failed == 0


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_under_fail_the_process_ends(operator: str, failure: str) -> None:
    with TopologyTestDriver(built(operator, failure, "fail")) as driver:
        with pytest.raises(ProcessingError, match=r"at topic 'in'.*cannot take this"):
            send(driver, *THREE, ("d", "mover", 100))
        # A sliding window of this size has closed before.
        assert sent(driver) == (["first"] if operator == "sliding" else [])


def test_a_record_that_fails_takes_back_the_failure_of_what_it_set_free() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error=dead_letter("rejected"))
    held = stream.group_by_key().windowed_by(windows.tumbling(ms(10))).reduce(max, store="s", emit="close")
    held.to_stream().map_values(checked).to("out", value=TEXT)
    # Reached after the windows have closed.
    stream.map_values(lambda value: 1 // (value != "mover")).to("other", value=serde.long())
    with TopologyTestDriver(topology, topics=["rejected"]) as driver:
        send(driver, *THREE, ("d", "mover", 100))
        assert sent(driver) == []
        assert driver.status().failed == 1
        assert [record.value() for record in driver.broker.read("rejected")] == [b"mover"]
        send(driver, ("e", "last", 100))
        assert sent(driver) == ["first", "third"]
        assert driver.status().failed == 2
        assert [record.value() for record in driver.broker.read("rejected")] == [b"mover", None]


def test_sources_of_unlike_policies_fail_together() -> None:
    topology = Topology("t")
    lenient = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    merged = lenient.merge(topology.stream("also", key=TEXT, value=TEXT))
    table = merged.group_by_key().windowed_by(windows.tumbling(ms(10))).reduce(max, store="s", emit="close")
    table.to_stream().map_values(checked).to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        send(driver, *THREE)
        with pytest.raises(ProcessingError, match=r"at topic 'in'.*cannot take this"):
            send(driver, ("d", "mover", 100))
        assert sent(driver) == []


def test_the_policy_of_a_processor_behind_comes_before_that_of_the_source() -> None:
    class Picky(Processor[Any, str, Any, str]):
        def process(self, key: Any, value: str) -> None:
            self.context.forward(key, checked(value))

    topology = Topology("t")
    held = suppressed(topology, "fail")
    held.process(Picky, on_error="continue").to("out", key=TEXT, value=TEXT)
    with TopologyTestDriver(topology) as driver:
        send(driver, *THREE, ("d", "mover", 100))
        assert sent(driver) == ["first", "third"]
        assert driver.status().failed == 1


def test_a_record_that_lets_go_and_comes_again_before_it_fails_takes_back_what_it_let_go() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    # The second of the two changes comes when the first has let others go.
    twice = stream.flat_map_values(lambda value: [value, value + "!"])
    table = twice.to_table(key=TEXT, value=TEXT, store="rows")
    table.suppress(time_limit(ms(10)), store="s").to_stream().to("out", value=TEXT)
    stream.map_values(checked).to("other", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        send(driver, ("a", "first", 20), ("d", "bad", 100))
        assert sent(driver) == []
        send(driver, ("e", "last", 100))
        assert sent(driver) == ["first!"]


def test_windows_of_an_idle_partition_meet_the_policy_too() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue").group_by_key()
    held = stream.windowed_by(windows.tumbling(ms(10))).reduce(max, store="s", emit="close", idle=ms(1_000))
    held.to_stream().map_values(checked).to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        send(driver, *THREE)
        for _ in range(4):
            driver.advance(ms(1_000))
        assert sent(driver) == ["first", "third"]
        assert driver.status().failed == 1
