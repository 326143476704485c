"""Whatever a record does, its error policy decides: each bad thing under each policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    Processor,
    Serde,
    StreamStateError,
    Topology,
    dead_letter,
    event_time,
    serde,
    stores,
    window_close,
    windows,
)
from streamstate.dsl.stream import Stream
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.windows import LATEST_TIME_MS
from tests.unit.application_support import Run

TEXT, JSON = serde.string(), serde.json()
SECOND = timedelta(seconds=1)
BAD = "bad"
Apply = Callable[[Topology, "Stream[str, Any]"], None]


class NoTruth:
    """As pandas.NA, or an array of two."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class NotShown(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def raising() -> None:
    raise NotShown


def for_bad(bad: Any, good: Any) -> Callable[[Any, Any], Any]:
    """A function of (key, value) that gives something else for a bad value."""
    return lambda key, value: bad if value == BAD else good


def forwards(**bad: Any) -> type[Processor[str, str, str, str]]:
    """A processor that forwards a bad value with this."""

    class Forward(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            self.context.forward(key, value, **(bad if value == BAD else {}))

    return Forward


def in_a_store(kind: str, *arguments: Any) -> Apply:
    """A processor that calls ``put`` of a store of this kind, or ``set`` of timers, of a bad value with this."""
    made: dict[str, Any] = {
        "window": lambda: stores.window("s", key=TEXT, value=TEXT, size=SECOND, retention=10 * SECOND),
        "session": lambda: stores.session("s", key=TEXT, value=TEXT, retention=10 * SECOND),
        "versioned": lambda: stores.versioned("s", key=TEXT, value=TEXT, history=10 * SECOND),
        "timers": lambda: stores.timers("s", key=TEXT),
    }

    class Put(Processor[str, str, str, str]):
        def init(self, context: Any) -> None:
            super().init(context)
            self.put = context.timers("s", print).set if kind == "timers" else context.store("s").put

        def process(self, key: str, value: str) -> None:
            self.context.forward(key, value)
            if value == BAD:
                self.put(key, *arguments)

    return lambda topology, stream: stream.process(Put, stores=[made[kind]()]).to("out", key=TEXT, value=TEXT)


def one_then_raises(key: str, value: str) -> Iterator[tuple[str, str]]:
    yield key, value
    if value == BAD:
        raise ValueError("half way")


def table_filter(topology: Topology, stream: Stream[str, Any]) -> None:
    stream.to_table(store="t").filter(for_bad(NoTruth(), True)).to_stream().to("out", value=TEXT)


def joined(topology: Topology, stream: Stream[str, Any]) -> None:
    other = topology.table("other", key=TEXT, value=TEXT, store="other")
    stream.left_join(other, lambda a, b: a if a != BAD else a + b).to("out", value=TEXT)


def branches(topology: Topology, stream: Stream[str, Any]) -> None:
    stream.split(for_bad(NoTruth(), True))[0].to("out")


THINGS: dict[str, Apply] = {
    "filter": lambda t, s: s.filter(for_bad(NoTruth(), True)).to("out"),
    "filter_not": lambda t, s: s.filter_not(for_bad(NoTruth(), False)).to("out"),
    "split": branches,
    "filter of a table": table_filter,
    "map: no pair": lambda t, s: s.map(lambda k, v: 7 if v == BAD else (k, v)).to("out", key=TEXT, value=TEXT),
    "map: three": lambda t, s: s.map(lambda k, v: (k, v, v) if v == BAD else (k, v)).to("out", key=TEXT, value=TEXT),
    "flat_map: no iterable": lambda t, s: s.flat_map(lambda k, v: 7 if v == BAD else [(k, v)]).to(
        "out", key=TEXT, value=TEXT
    ),
    "flat_map: half way": lambda t, s: s.flat_map(one_then_raises).to("out", key=TEXT, value=TEXT),
    "flat_map_values: no iterable": lambda t, s: s.flat_map_values(lambda v: 7 if v == BAD else [v]).to(
        "out", value=TEXT
    ),
    "joiner": joined,
    **{
        f"forward: timestamp {name}": lambda t, s, at=at: s.process(forwards(timestamp=at)).to(
            "out", key=TEXT, value=TEXT
        )
        for name, at in {
            "float": time.time() * 1000,
            "bool": True,
            "datetime": datetime(2024, 1, 1, tzinfo=UTC),
            "str": "1700000000000",
            "negative": -1,
            "too late": LATEST_TIME_MS + 1,
            "beyond 64 bits": 1 << 64,
        }.items()
    },
    **{
        f"forward: headers {name}": lambda t, s, headers=headers: s.process(forwards(headers=headers)).to(
            "out", key=TEXT, value=TEXT
        )
        for name, headers in {
            "number": [("a", 1)],
            "dict": {"ab": b"1"},
            "bytes name": [(b"a", b"1")],
            "three parts": [("a", b"1", b"2")],
            "no list": 5,
            "no UTF-8": [("\udc80", b"1")],
        }.items()
    },
    **{
        f"topic function: {name}": lambda t, s, topic=topic: s.to(for_bad(topic, "out"), key=TEXT, value=TEXT)
        for name, topic in {
            "empty": "",
            "spaces": "no topic",
            "dots": "..",
            "too long": "t" * 250,
            "no text": 7,
            "null": None,
            "a list": [],
        }.items()
    },
    **{
        f"serializer gives {type(given).__name__}": lambda t, s, given=given: s.to(
            "out", value=Serde("own", lambda value: given if value == BAD else value.encode(), bytes.decode)
        )
        for given in ("text", None, 7, bytearray(b"1"))
    },
    "store's serializer gives text": lambda t, s: (
        s.to_table(
            store="t", value=Serde("own", lambda value: "text" if value == BAD else value.encode(), bytes.decode)
        )
        .to_stream()
        .to("out", value=TEXT)
    ),
    **{
        f"map_batches: {type(given).__name__}": lambda t, s, given=given: s.map_batches(
            lambda values: given if BAD in values else values, size=1
        ).to("out", value=TEXT)
        for given in (5, None, "x", b"x", {"x": 1}, {"x"}, ["x", "y"], iter(["x"]))
    },
    "a key of another type": lambda t, s: s.select_key(for_bad(5, "k")).to("out", key=TEXT),
    "a sum of another type": lambda t, s: (
        s.group_by_key()
        .reduce(lambda before, value: 5 if value == BAD else value, store="c")  # type: ignore[arg-type, return-value]
        .to_stream()
        .to("out", value=TEXT)
    ),
    "an error that cannot be shown": lambda t, s: s.peek(lambda k, v: raising() if v == BAD else None).to("out"),
    "forward: timestamp of many digits": lambda t, s: s.process(forwards(timestamp=10**5000)).to(
        "out", key=TEXT, value=TEXT
    ),
    "a value of many digits": lambda t, s: s.map_values(lambda v: 10**5000 if v == BAD else v).to("out", value=TEXT),
    "window at a fraction": in_a_store("window", "x", 1.5),
    "window beyond 64 bits": in_a_store("window", "x", 1 << 63),
    "session beyond 64 bits": in_a_store("session", 5, 1 << 63, "x"),
    "session at a bool": in_a_store("session", False, True, "x"),
    "version at a fraction": in_a_store("versioned", "x", 1.5),
    "version beyond 64 bits": in_a_store("versioned", "x", 1 << 63),
    "timer at a fraction": in_a_store("timers", 1.5),
    "timer beyond 64 bits": in_a_store("timers", 1 << 63),
}


def built(apply: Apply, on_error: Any, **source: Any) -> Topology:
    topology = Topology("t")
    apply(topology, topology.stream("in", key=TEXT, value=TEXT, on_error=on_error, **source))
    return topology


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("on_error", ["continue", dead_letter("rejected")], ids=str)
def test_a_bad_thing_is_left_out(thing: str, on_error: Any) -> None:
    """With all that it did, and nothing of its neighbours."""
    with TopologyTestDriver(built(THINGS[thing], on_error), partitions={"out": 1}) as driver:
        rejected = driver.output("rejected", key=TEXT, value=TEXT) if on_error != "continue" else None
        for number, value in enumerate(("a", BAD, "b")):
            driver.input("in").pipe("k", value, timestamp=number)
        driver.advance(2 * SECOND)
        assert driver.status().failed == 1
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["a", "b"]
        if rejected is not None:
            record = rejected.read()
            assert (record.key, record.value) == ("k", BAD)
            assert dict(record.headers)["streamstate.error.offset"] == b"1"


@pytest.mark.parametrize("thing", THINGS)
def test_a_bad_thing_ends_the_process_with_an_error_that_says_where(thing: str) -> None:
    with TopologyTestDriver(built(THINGS[thing], "fail"), partitions={"out": 1}) as driver:
        driver.input("in").pipe("k", "a", timestamp=0)
        with pytest.raises(ProcessingError) as raised:
            driver.input("in").pipe("k", BAD, timestamp=1)
    said = str(raised.value)
    assert "operator '" in said
    assert "topic 'in', partition 0, offset 1, key b'k'" in said


# -- event times -------------------------------------------------------------------------------------------


def windowed(emit: Any) -> Apply:
    def apply(topology: Topology, stream: Stream[str, Any]) -> None:
        stream.group_by_key().windowed_by(windows.tumbling(SECOND)).count(store="c", emit=emit)

    return apply


def suppressed(topology: Topology, stream: Stream[str, Any]) -> None:
    counts = stream.group_by_key().windowed_by(windows.tumbling(SECOND)).count(store="c")
    counts.suppress(window_close(), store="s").to_stream().for_each(lambda key, value: None)


def timed(topology: Topology, stream: Stream[str, Any]) -> None:
    class Remind(Processor[str, Any, str, Any]):
        def init(self, context: Any) -> None:
            super().init(context)
            self.timers = context.timers("timers", lambda key, at_ms: None)

        def process(self, key: str, value: Any) -> None:
            self.timers.set(key, self.context.timestamp)

    stream.process(Remind, stores=[stores.timers("timers", key=TEXT)])


def merged(topology: Topology, stream: Stream[str, Any]) -> None:
    """Two inputs take another way through the task."""
    stream.merge(topology.stream("other", key=TEXT, value=JSON)).group_by_key().count(store="c")


def stream_joined(topology: Topology, stream: Stream[str, Any]) -> None:
    other = topology.stream("other", key=TEXT, value=JSON, timestamp="at")
    stream.outer_join(other, lambda a, b: a or b, within=windows.join(SECOND), store="j").to("out", value=JSON)


OPERATORS: dict[str, Apply] = {
    "count": lambda t, s: s.group_by_key().count(store="c"),
    "ttl": lambda t, s: s.group_by_key().count(store="c", ttl=SECOND),
    "tumbling": windowed("update"),
    "close": windowed("close"),
    "session": lambda t, s: s.group_by_key().windowed_by(windows.session(SECOND)).count(store="c", emit="close"),
    "sliding": lambda t, s: s.group_by_key().windowed_by(windows.sliding(SECOND)).count(store="c", emit="close"),
    "unlimited": lambda t, s: s.group_by_key().windowed_by(windows.unlimited()).count(store="c"),
    "suppress": suppressed,
    "versioned": lambda t, s: s.to_table(store="c", versioned=SECOND),
    "repartition": lambda t, s: s.select_key(lambda k, v: k).repartition(key=TEXT).group_by_key().count(store="c"),
    "outer join": stream_joined,
    "timers": timed,
    "two inputs": merged,
}
NO_TIMES = {
    "negative": -1,
    "too late": LATEST_TIME_MS + 1,
    "2**63": 1 << 63,
    "2**64": 1 << 64,
    "much": 10**30,
    "bool": True,
    "fraction": 1.0,
    "null": None,
    "text": "5",
}


def of_field(apply: Apply, on_error: Any, timestamp: Any = "at") -> Topology:
    topology = Topology("t")
    apply(topology, topology.stream("in", key=TEXT, value=JSON, timestamp=timestamp, on_error=on_error))
    return topology


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_is_no_event_time_fails_its_record_under_every_operator(operator: str) -> None:
    """And moves no time: the record behind it is not late."""
    with TopologyTestDriver(of_field(OPERATORS[operator], "continue")) as driver:
        for at in (1, *NO_TIMES.values(), 2):
            driver.input("in").pipe("k", {"at": at})
        driver.advance(2 * SECOND)
        assert driver.status().failed == len(NO_TIMES)
        assert driver.status().dropped == 0


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_latest_event_time_is_one(operator: str) -> None:
    """What is added to it and subtracted from it fits into the keys of stores, also after a restart."""
    with TopologyTestDriver(of_field(OPERATORS[operator], "continue")) as driver:
        for at in (1, LATEST_TIME_MS, 2, LATEST_TIME_MS - 1):
            driver.input("in").pipe("k", {"at": at})
        driver.advance(2 * SECOND)
        # No topic takes such a time, so what is sent fails; nothing ends.
        failed = driver.status().failed
        driver.crash()
        driver.input("in").pipe("k", {"at": LATEST_TIME_MS})
        assert driver.status().failed - failed in (0, 1)


@pytest.mark.parametrize("at", NO_TIMES.values(), ids=NO_TIMES)
def test_the_error_says_which_time_of_which_record(at: Any) -> None:
    with TopologyTestDriver(of_field(OPERATORS["count"], "fail")) as driver:
        driver.input("in").pipe("k", {"at": 1})
        with pytest.raises(StreamStateError) as raised:
            driver.input("in").pipe("k", {"at": at})
    said = str(raised.value)
    assert "operator 'in' failed reading the event time at topic 'in', partition 0, offset 1, key b'k'" in said
    assert repr(at) in said


@pytest.mark.parametrize("on_future", ["drop", "clamp"])
def test_a_bound_on_the_future_comes_first(on_future: Any) -> None:
    bound = event_time("at", future=SECOND, on_future=on_future)
    with TopologyTestDriver(of_field(OPERATORS["count"], "fail", bound)) as driver:
        driver.input("in").pipe("k", {"at": 1 << 64})
        status = driver.status()
    assert (status.failed, status.dropped) == (0, 1 if on_future == "drop" else 0)


def test_the_policy_of_the_worker_is_that_of_the_driver() -> None:
    run = Run(of_field(OPERATORS["tumbling"], dead_letter("rejected")))
    run.send(b'{"at": 1}', b'{"at": 99999999999999999999}', b'{"at": 2}')
    run.ticks(8)
    assert run.offset() == 3
    assert run.worker.status().failed == 1
    assert run.out("rejected") == [(b"k", b'{"at": 99999999999999999999}')]


# -- keys that a topic needs -------------------------------------------------------------------------------


def without_key(on_error: Any, topic: Any = "compacted") -> Topology:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT, on_error=on_error).to(topic, key=TEXT, value=TEXT)
    return topology


@pytest.mark.parametrize("topic", ["compacted", lambda key, value: "compacted"], ids=["named", "chosen"])
@pytest.mark.parametrize("rejected", ["rejected", "compacted"])
def test_a_null_key_for_a_compacted_topic_fails_its_record(topic: Any, rejected: str) -> None:
    """Foreseen by the topic's settings; its dead letter gets a key where that topic is compacted too."""
    topology = without_key(dead_letter("rejected"), topic)
    run = Run(topology, {"in": 1, "compacted": 1, "rejected": 1}, compacted="compacted")
    if rejected == "compacted":
        run.broker.topic("rejected").config["cleanup.policy"] = "compact,delete"
    run.send((b"k", b"1"), (None, b"2"), (b"k", b"3"), (None, b"4"))
    run.ticks(8)
    assert run.out("compacted") == [(b"k", b"1"), (b"k", b"3")]
    keys = [None, None] if rejected == "rejected" else [b"in-0-1", b"in-0-3"]
    assert run.out("rejected") == [(keys[0], b"2"), (keys[1], b"4")]
    assert run.offset() == 4
    assert run.worker.status().failed == 2


def test_a_null_key_for_a_compacted_topic_ends_with_an_error_that_says_where() -> None:
    run = Run(without_key("fail"), {"in": 1, "compacted": 1}, compacted="compacted")
    run.send((b"k", b"1"), (None, b"2"))
    with pytest.raises(ProcessingError, match=r"offset 1, key None: .*the key is null.*cleanup\.policy=delete"):
        run.ticks(8)


def test_a_null_key_goes_to_a_topic_that_is_not_compacted() -> None:
    run = Run(without_key("fail", "out"), {"in": 1, "out": 1})
    run.send((None, b"1"))
    run.ticks()
    assert run.out() == [(None, b"1")]


def test_an_event_time_of_many_digits() -> None:
    topology = of_field(OPERATORS["count"], "fail", lambda key, value: 10**5000)
    said = r"the event time <int that cannot be shown: .*> ms is later"
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError, match=said):
        driver.input("in").pipe("k", {})


@pytest.mark.parametrize("at", NO_TIMES.values(), ids=NO_TIMES)
def test_what_is_no_event_time_fails_a_row_of_a_global_table(at: Any) -> None:
    topology = Topology("t")
    rows = topology.global_table("rows", key=TEXT, value=JSON, store="rows", timestamp="at", on_error="continue")
    joined = topology.stream("in", key=TEXT, value=TEXT).join(rows, lambda value, row: row["name"], on=lambda k, v: k)
    joined.to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        driver.input("rows").pipe("k", {"at": 1, "name": "first"})
        driver.input("rows").pipe("k", {"at": at, "name": "second"})
        driver.input("in").pipe("k", "v")
        assert driver.output("out").values() == ["first"]
