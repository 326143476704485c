"""Functions of values and joiners that take the key in front: they get the record's own, and nothing repartitions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import (
    ProcessingError,
    Processor,
    Topology,
    TopologyError,
    ValueProcessor,
    ValueTransformer,
    serde,
    stores,
    windows,
)
from streamstate.graph.describe import describe_json
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG = serde.string(), serde.long()
MINUTE = timedelta(minutes=1)


def both(value: Any, other: Any) -> str:
    return f"{value}+{other}"


def keyed(key: Any, value: Any, other: Any) -> str:
    return f"{key}:{value}+{other}"


def stream(topology: Topology, topic: str = "in") -> Any:
    return topology.stream(topic, key=TEXT, value=TEXT)


def table(topology: Topology, topic: str) -> Any:
    return topology.table(topic, key=TEXT, value=TEXT)


async def awaited(key: str, value: str) -> str:
    return f"{key}:{value}"


async def awaited_value(value: str) -> str:
    return value.upper()


VALUES: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "map_values": (lambda s: s.map_values(lambda key, value: f"{key}:{value}"), ["k:a b"]),
    "map_values of the value": (lambda s: s.map_values(str.upper), ["A B"]),
    "flat_map_values": (lambda s: s.flat_map_values(lambda key, value: [key + v for v in value.split()]), ["ka", "kb"]),
    "flat_map_values that yields": (lambda s: s.flat_map_values(yielded), ["k", "a b"]),
    "map_async": (lambda s: s.map_async(awaited), ["k:a b"]),
    "map_async of the value": (lambda s: s.map_async(awaited_value, timeout=None), ["A B"]),
    "map_batches": (lambda s: s.map_batches(lambda keys, values: [k + v for k, v in zip(keys, values, strict=True)]),
                    ["ka b"]),
    "map_batches without a delay": (lambda s: s.map_batches(lambda values: values, delay=None), ["a b"]),
}  # fmt: skip


def yielded(key: str, value: str) -> Any:
    yield key
    yield value


@pytest.mark.parametrize("case", VALUES)
def test_functions_of_values(case: str) -> None:
    build, expected = VALUES[case]
    topology = Topology("t")
    counted = build(stream(topology)).group_by_key(key=TEXT, value=TEXT)
    counted.count(store="counts")
    build_out = counted.reduce(lambda one, other: other, store="newest").to_stream()
    build_out.to("out", key=TEXT, value=TEXT)
    assert [part.repartition_sources for part in topology.build().subtopologies] == [()]
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("k", "a b")
        assert driver.output("out").pairs() == [("k", value) for value in expected]
        assert driver.store("counts").get("k") == len(expected)


def piped(driver: TopologyTestDriver, *records: tuple[str, Any, str, int]) -> list[tuple[Any, Any]]:
    for topic, key, value, timestamp in records:
        driver.input(topic).pipe(key, value, timestamp=timestamp)
    return driver.output("out").pairs()


A, B = ("in", "k", "a", 1_000), ("other", "k", "b", 2_000)
# Long past every window, in both topics.
END = (("in", "z", "-", 600_000), ("other", "z", "-", 600_000))

JOINS: dict[str, tuple[Callable[[Topology, Any], Any], list[tuple[Any, ...]], list[tuple[Any, str]]]] = {
    "streams": (
        lambda t, j: stream(t).join(stream(t, "other"), j, within=windows.join(MINUTE), store="j"),
        [A, B], [("k", "k:a+b")],
    ),
    "streams, the other way round": (
        lambda t, j: stream(t).join(stream(t, "other"), j, within=windows.join(MINUTE), store="j"),
        [B, A], [("k", "k:a+b")],
    ),
    "a stream with itself": (
        lambda t, j: (lambda s: s.join(s, j, within=windows.join(MINUTE), store="j"))(stream(t)),
        [A], [("k", "k:a+a")],
    ),
    "left, alone later": (
        lambda t, j: stream(t).left_join(stream(t, "other"), j, within=windows.join(MINUTE), store="j"),
        [A, *END], [("k", "k:a+None"), ("z", "z:-+-")],
    ),
    "left, without a key": (
        lambda t, j: stream(t).left_join(stream(t, "other"), j, within=windows.join(MINUTE), store="j"),
        [("in", None, "a", 1_000)], [(None, "None:a+None")],
    ),
    "outer, from the right": (
        lambda t, j: stream(t).outer_join(stream(t, "other"), j, within=windows.join(MINUTE), store="j"),
        [B, *END], [("k", "k:None+b"), ("z", "z:-+-")],
    ),
    "outer, met": (
        lambda t, j: stream(t).outer_join(stream(t, "other"), j, within=windows.join(MINUTE), store="j"),
        [B, A], [("k", "k:a+b")],
    ),
    "a table": (lambda t, j: stream(t).join(table(t, "other"), j), [B, A], [("k", "k:a+b")]),
    "a table, left": (lambda t, j: stream(t).left_join(table(t, "other"), j), [A], [("k", "k:a+None")]),
    "a table, mapped": (
        lambda t, j: stream(t).join(table(t, "other").map_values(lambda key, value: key + value), j),
        [B, A], [("k", "k:a+kb")],
    ),
    "a versioned table": (
        lambda t, j: stream(t).join(t.table("other", key=TEXT, value=TEXT, versioned=MINUTE), j),
        [("other", "k", "b", 500), A], [("k", "k:a+b")],
    ),
    "a versioned table, waiting": (
        lambda t, j: stream(t).join(
            t.table("other", key=TEXT, value=TEXT, versioned=MINUTE), j, grace=timedelta(seconds=1), name="j"),
        [A, ("other", "k", "b", 900), ("in", "z", "-", 9_000)], [("k", "k:a+b")],
    ),
    "a global table": (
        lambda t, j: stream(t).join(
            t.global_table("other", key=TEXT, value=TEXT), j, on=lambda key, value: "k"),
        [B, ("in", "mine", "a", 1_000)], [("mine", "mine:a+b")],
    ),
    "a global table, left": (
        lambda t, j: stream(t).left_join(
            t.global_table("other", key=TEXT, value=TEXT), j, on=lambda key, value: None),
        [A], [("k", "k:a+None")],
    ),
    "tables": (lambda t, j: table(t, "in").join(table(t, "other"), j).to_stream(), [A, B], [("k", "k:a+b")]),
    "tables, the other way round": (
        lambda t, j: table(t, "in").join(table(t, "other"), j).to_stream(), [B, A], [("k", "k:a+b")],
    ),
    "tables, outer": (
        lambda t, j: table(t, "in").outer_join(table(t, "other"), j).to_stream(),
        [B, A], [("k", "k:None+b"), ("k", "k:a+b")],
    ),
    "tables, left, kept": (
        lambda t, j: table(t, "in").left_join(table(t, "other"), j, store="j", value=TEXT).to_stream(),
        [A, B], [("k", "k:a+None"), ("k", "k:a+b")],
    ),
    "tables, looked up": (
        lambda t, j: stream(t, "third").join(table(t, "in").join(table(t, "other"), j), lambda value, row: row),
        [A, B, ("third", "k", "x", 3_000)], [("k", "k:a+b")],
    ),
    "a foreign key": (
        lambda t, j: table(t, "in").join(
            table(t, "other"), j, foreign_key=lambda key, value: "r", name="j").to_stream(),
        [A, ("other", "r", "b", 2_000)], [("k", "k:a+b")],
    ),
    "a foreign key, left": (
        lambda t, j: table(t, "in").left_join(
            table(t, "other"), j, foreign_key=lambda key, value: None, name="j").to_stream(),
        [A], [("k", "k:a+None")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JOINS)
def test_joiners(case: str) -> None:
    build, records, expected = JOINS[case]
    results = []
    for joiner in (keyed, both):
        topology = Topology("t")
        build(topology, joiner).to("out", key=TEXT, value=TEXT)
        with TopologyTestDriver(topology) as driver:
            results.append(piped(driver, *records))
    with_key, without = results
    assert with_key == expected
    # The short form gives the same but for what the key adds.
    assert without == [(key, value.partition(":")[2]) for key, value in expected]


def test_a_join_with_a_policy_takes_the_key_too() -> None:
    """Where records can be taken back, streams are joined by another closure."""
    topology = Topology("t")
    left = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    right = topology.stream("other", key=TEXT, value=TEXT, on_error="continue")
    left.join(right, keyed, within=windows.join(MINUTE), store="j").to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        assert piped(driver, A, B) == [("k", "k:a+b")]


# -- processors that leave the key alone ---------------------------------------------------------------------


class Words(ValueProcessor[str, str, str]):
    def init(self, context: Any) -> None:
        super().init(context)
        self.seen = context.store("seen")

    def process(self, key: str, value: str) -> None:
        for word in value.split():
            if self.seen.put_if_absent(key + word, 1) is None:
                self.context.forward(f"{key}:{word}", timestamp=self.context.timestamp + 1, headers=[("h", b"1")])


class Numbered(ValueTransformer[str, str, str]):
    def init(self, context: Any) -> None:
        super().init(context)
        self.seen = context.store("seen")

    def transform(self, key: str, value: str | None) -> str | None:
        number = (self.seen.get(key) or 0) + 1
        self.seen.put(key, number)
        return None if value is None else f"{number}. {key}:{value}"


def seen() -> Any:
    return stores.key_value("seen", key=TEXT, value=LONG)


def test_process_values_keeps_keys_and_partitions() -> None:
    topology = Topology("t")
    out = stream(topology).process_values(Words, stores=[seen()])
    out.to("out", value=TEXT)
    out.group_by_key(value=TEXT).count(store="counts")
    assert [part.repartition_sources for part in topology.build().subtopologies] == [()]
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("k", "a b a", timestamp=5)
        found = driver.output("out").read_all()
        assert [(r.key, r.value, r.timestamp, r.headers) for r in found] == [
            ("k", "k:a", 6, (("h", b"1"),)),
            ("k", "k:b", 6, (("h", b"1"),)),
        ]
        assert driver.store("counts").get("k") == 2


def test_transform_values_of_a_stream() -> None:
    topology = Topology("t")
    stream(topology).transform_values(Numbered, stores=[seen()]).to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        for value in ("a", None, "b"):
            driver.input("in").pipe("k", value)
        driver.crash()
        driver.input("in").pipe("k", "c")
        assert driver.output("out").values() == ["1. k:a", None, "3. k:b", "4. k:c"]


class Fails(ValueProcessor[str, str, str]):
    def process(self, key: str, value: str) -> None:
        self.context.forward(str(int(value)))


class FailsToo(ValueTransformer[str, str, str]):
    def transform(self, key: str, value: str | None) -> str | None:
        return str(int(value or ""))


@pytest.mark.parametrize(("operator", "supplier"), [("process_values", Fails), ("transform_values", FailsToo)])
def test_their_own_error_policy(operator: str, supplier: Any) -> None:
    topology = Topology("t")
    getattr(stream(topology), operator)(supplier, on_error="continue").to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe_all([("k", "x"), ("k", "7")])
        assert driver.output("out").values() == ["7"]
        assert driver.status().failed == 1


class Late(ValueProcessor[str, str, str]):
    def init(self, context: Any) -> None:
        super().init(context)
        context.schedule(timedelta(seconds=1), "wall_clock", lambda time_ms: context.forward("late"))

    def process(self, key: str, value: str) -> None:
        self.context.forward(value)


def test_a_value_has_no_key_in_a_punctuation() -> None:
    topology = Topology("t")
    stream(topology).process_values(Late).to("out", value=TEXT)
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("k", "a")
        assert driver.output("out").pairs() == [("k", "a")]
        with pytest.raises(ProcessingError, match=r"'in\.process_values'.* no record to take the key from"):
            driver.advance(timedelta(seconds=2))


def test_describe_names_them() -> None:
    topology = Topology("t")
    stream(topology).process_values(Words, stores=[seen()]).transform_values(FailsToo).to("out", value=TEXT)
    [part] = describe_json(topology.build(), "app")["subtopologies"]
    assert [node["operator"] for node in part["nodes"]] == ["source", "process_values", "transform_values", "sink"]
    assert part["nodes"][1]["stores"] == ["seen"]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda s: s.process_values(Numbered), "process_values after 'in' takes a ValueProcessor subclass"),
        (lambda s: s.transform_values(Words), "transform_values after 'in' takes a ValueTransformer subclass"),
        (lambda s: s.process_values(Processor), "process_values after 'in' takes a ValueProcessor subclass"),
        (lambda s: s.process_values(Words()), "not one Words for all tasks: pass the class, or lambda: Words(...)"),
    ],
)
def test_other_suppliers_are_refused(build: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(TopologyError) as refusal:
        build(stream(Topology("t")))
    assert said in str(refusal.value)
