"""A key or value that its serde does not take: every operator says which serde, what it takes and what it was given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import ProcessingError, Processor, SerdeError, Topology, aggregates, serde, stores, windows
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()
MINUTE = timedelta(minutes=1)

TEXT_GIVEN_A_NUMBER = "the string serde takes str, not int: 5"
LONG_GIVEN_TEXT = "the long serde takes int, not str: 'five'"


def five(*_: Any) -> Any:
    return 5


def text(*_: Any) -> Any:
    return "five"


class Puts(Processor[Any, Any, Any, Any]):
    def process(self, key: Any, value: Any) -> None:
        self.context.store("kept").put(key, "five")


class Appends(Processor[Any, Any, Any, Any]):
    def process(self, key: Any, value: Any) -> None:
        self.context.store("kept").append(key, "five")


class Reads(Processor[Any, Any, Any, Any]):
    def process(self, key: Any, value: Any) -> None:
        self.context.store("kept").get(5)


def grouped(topology: Topology) -> Any:
    return topology.stream("in", key=TEXT, value=LONG).group_by_key()


def changed(topology: Topology, key: Callable[..., Any]) -> Any:
    return topology.stream("in", key=TEXT, value=LONG).select_key(key).group_by_key(key=TEXT)


def table(topology: Topology) -> Any:
    return topology.table("in", key=TEXT, value=LONG)


CASES: dict[str, tuple[Callable[[Topology], Any], str]] = {
    "sink, key": (lambda t: t.stream("in", value=LONG).select_key(five).to("out", key=TEXT), TEXT_GIVEN_A_NUMBER),
    "sink, value": (lambda t: t.stream("in", value=LONG).map_values(text).to("out", value=LONG), LONG_GIVEN_TEXT),
    "sink, chosen topic": (
        lambda t: t.stream("in", value=LONG).map_values(text).to(lambda key, value: "out", value=LONG),
        LONG_GIVEN_TEXT,
    ),
    "repartition": (lambda t: changed(t, five).count(store="s"), TEXT_GIVEN_A_NUMBER),
    "reduce": (
        lambda t: t.stream("in", key=TEXT, value=LONG).group_by_key().reduce(text, store="s"),
        LONG_GIVEN_TEXT,
    ),
    "aggregate": (
        lambda t: grouped(t).aggregate(initializer=int, aggregator=text, value=LONG, store="s"),
        LONG_GIVEN_TEXT,
    ),
    "count by window": (
        lambda t: t.stream("in", key=serde.bytes_(), value=LONG).map_values(five).group_by_key(key=TEXT).windowed_by(
            windows.tumbling(MINUTE)).count(store="s"),
        "the string serde takes str, not bytes: b'a'",
    ),
    "fold by window": (
        lambda t: grouped(t).windowed_by(windows.tumbling(MINUTE)).aggregate(
            initializer=int, aggregator=text, value=LONG, store="s"),
        LONG_GIVEN_TEXT,
    ),
    "fold by session": (
        lambda t: grouped(t).windowed_by(windows.session(MINUTE)).aggregate(
            initializer=int, aggregator=text, merger=five, value=LONG, store="s"),
        LONG_GIVEN_TEXT,
    ),
    "table row": (lambda t: table(t).map_values(text, value=LONG, store="s"), LONG_GIVEN_TEXT),
    "group of a table": (
        lambda t: table(t).group_by(five, key=TEXT).count(store="s"),
        TEXT_GIVEN_A_NUMBER,
    ),
    "value of a group": (
        lambda t: table(t).group_by(lambda key, value: key, key=TEXT, select=text, value=LONG).count(store="s"),
        LONG_GIVEN_TEXT,
    ),
    "foreign key": (
        lambda t: table(t).join(t.table("other", key=TEXT, value=LONG), five, foreign_key=five, name="j"),
        TEXT_GIVEN_A_NUMBER,
    ),
    "join of streams": (
        lambda t: t.stream("in", key=TEXT, value=LONG).map_values(text).join(
            t.stream("other", key=TEXT, value=LONG), five, within=windows.join(MINUTE), value=LONG, store="s"),
        LONG_GIVEN_TEXT,
    ),
    "join that waits": (
        lambda t: t.stream("in", key=TEXT, value=LONG).map_values(text).left_join(
            t.stream("other", key=TEXT, value=LONG), five, within=windows.join(MINUTE), value=LONG, store="s"),
        LONG_GIVEN_TEXT,
    ),
    "put of a processor": (
        lambda t: t.stream("in", key=TEXT, value=LONG).process(
            Puts, stores=[stores.key_value("kept", key=TEXT, value=LONG)]),
        LONG_GIVEN_TEXT,
    ),
    "put that expires": (
        lambda t: t.stream("in", key=TEXT, value=LONG).process(
            Puts, stores=[stores.key_value("kept", key=TEXT, value=LONG, ttl=MINUTE)]),
        LONG_GIVEN_TEXT,
    ),
    "append of a processor": (
        lambda t: t.stream("in", key=TEXT, value=LONG).process(
            Appends, stores=[stores.list_("kept", key=TEXT, value=LONG)]),
        LONG_GIVEN_TEXT,
    ),
    "key of a processor": (
        lambda t: t.stream("in", key=TEXT, value=LONG).process(
            Reads, stores=[stores.key_value("kept", key=TEXT, value=LONG)]),
        TEXT_GIVEN_A_NUMBER,
    ),
    "JSON": (
        lambda t: t.stream("in", value=LONG).map_values(lambda value: {1, 2}).to("out", value=JSON),
        "the json serde cannot encode this set: {1, 2} (",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_record_that_cannot_be_encoded(case: str) -> None:
    build, said = CASES[case]
    topology = Topology("t")
    build(topology)
    with TopologyTestDriver(topology, topics=["out"]) as driver, pytest.raises(ProcessingError) as failure:
        # Two, because a reduce calls its function with the second one.
        driver.input("in", key=TEXT, value=LONG).pipe_all([("a", 1), ("a", 1)])
    assert said in str(failure.value)
    assert "topic 'in'" in str(failure.value) or "repartition" in str(failure.value)
    assert "descriptor" not in str(failure.value)


@pytest.mark.parametrize(
    ("key", "value", "field", "said"),
    [
        (5, 1, "key", TEXT_GIVEN_A_NUMBER),
        ("a", "five", "value", LONG_GIVEN_TEXT),
        ("a", 1 << 63, "value", "the long serde cannot encode this int: 9223372036854775808 ("),
    ],
)
def test_pipe_says_topic_field_and_serde(key: Any, value: Any, field: str, said: str) -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=LONG).to("out")
    with TopologyTestDriver(topology) as driver:
        topic = driver.input("in", start=1_000)
        with pytest.raises(SerdeError) as refusal:
            topic.pipe(key, value)
        assert str(refusal.value).startswith(f"topic 'in', {field}: {said}")
        # Nothing was put in, and the next record gets the first time.
        topic.pipe("a", 1)
        assert [(record.value, record.timestamp) for record in driver.output("out").read_all()] == [(1, 1_000)]


def test_an_output_read_by_another_serde_says_topic_field_and_serde() -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).to("out")
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("a", "five")
        with pytest.raises(
            SerdeError, match=r"topic 'out', partition 0, offset 0, value: the long serde cannot decode"
        ):
            driver.output("out", value=LONG).read_all()


def test_a_named_aggregate_is_not_blamed() -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=JSON).group_by_key().aggregate(total=aggregates.sum("n"), store="s")
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError) as failure:
        driver.input("in").pipe("a", {"n": "five"})
    assert "serde" not in str(failure.value).split("Nothing of this record")[0]


@pytest.mark.parametrize("topics", [["in"], ["in", "other"]])
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (b"\xff", b"\x00" * 8, "decoding the key at topic 'in'.*the string serde cannot decode b'.xff': UnicodeDecode"),
        (b"k", b"\x00", "decoding the value at topic 'in'.*the long serde cannot decode b'.x00': ValueError"),
        (b"k", b"\x00" * 8, "reading the event time at topic 'in'.*ZeroDivisionError"),
    ],
)
def test_what_cannot_be_read_says_which_part_and_serde(topics: list[str], key: bytes, value: bytes, said: str) -> None:
    topology = Topology("t")
    topology.stream(topics, key=TEXT, value=LONG, timestamp=lambda key, value: 5 // value).to("out")
    raw = serde.bytes_()
    with TopologyTestDriver(topology) as driver, pytest.raises(ProcessingError, match=said):
        driver.input("in", key=raw, value=raw).pipe(key, value)
