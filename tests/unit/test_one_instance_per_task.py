"""A supplier makes a new instance at each call: one that comes a second time is refused, whoever had it first."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import Any

import pytest

from streamstate import Processor, Topology, TopologyError, ValueTransformer, serde, stores, windows
from streamstate.testing.driver.driver import TopologyTestDriver
from tests.unit.application_support import Run

TEXT = serde.string()


class Counter(Processor[str, str, str, str]):
    def init(self, context: Any) -> None:
        super().init(context)
        self.counts = context.store("counts")

    def process(self, key: str, value: str) -> None:
        self.counts.put(key, (self.counts.get(key) or 0) + 1)
        self.context.forward(key, value)


class Upper(ValueTransformer[str, str, str]):
    def transform(self, key: str, value: str | None) -> str | None:
        return None if value is None else value.upper()


def counting(supplier: Any, name: str = "t") -> Topology:
    topology = Topology(name)
    counts = stores.key_value("counts", key=TEXT, value=serde.long())
    topology.stream("in", key=TEXT, value=TEXT).process(supplier, stores=[counts]).to("out", key=TEXT, value=TEXT)
    return topology


def transforming(supplier: Any) -> Topology:
    topology = Topology("t")
    topology.table("in", key=TEXT, value=TEXT, store="rows").transform_values(supplier).to_stream().to(
        "out", value=TEXT
    )
    return topology


@pytest.mark.parametrize("topology", [counting, transforming])
def test_one_instance_for_two_tasks_is_refused(topology: Any) -> None:
    one = Counter() if topology is counting else Upper()
    with (
        pytest.raises(TopologyError, match=r"gave task in_1 the instance of \w+ that it gave task in_0.*new instance"),
        TopologyTestDriver(topology(lambda: one), partitions=2),
    ):
        pass


@pytest.mark.parametrize(("topology", "kind"), [(counting, Counter), (transforming, Upper)])
def test_an_instance_for_each_task_runs(topology: Any, kind: Any) -> None:
    with TopologyTestDriver(topology(kind), partitions=2) as driver:
        for key in "abcd":
            driver.input("in").pipe(key, "x")
        assert len(driver.output("out").read_all()) == 4


def test_one_instance_for_two_operators_is_refused() -> None:
    one = Counter()
    topology = Topology("t")
    counts = stores.key_value("counts", key=TEXT, value=serde.long())
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.process(lambda: one, stores=[counts], name="first").process(lambda: one, stores=[counts], name="second")
    with pytest.raises(TopologyError, match=r"'second'.*gave operator 'first' in in_0"), TopologyTestDriver(topology):
        pass


def test_an_instance_does_not_come_back_after_a_roll_back() -> None:
    """It remembers what was never committed."""
    one = Counter()
    run = Run(counting(lambda: one))
    run.send(b"x")
    run.ticks(4)
    assert len(run.out()) == 1
    run.worker.recovery.roll_back("told to")
    with pytest.raises(TopologyError, match=r"gave task in_0 before it started over"):
        run.ticks(4)


def test_nor_in_a_second_application_of_the_process() -> None:
    one = Counter()
    with TopologyTestDriver(counting(lambda: one)):
        pass
    with pytest.raises(TopologyError, match="new instance"), TopologyTestDriver(counting(lambda: one)):
        pass


def test_instances_are_not_kept_alive() -> None:
    """Many tasks come and go; another object may take the place of one that is gone."""
    from streamstate.operators.process import suppliers as given

    gc.collect()
    before = len(given._given)
    for _ in range(50):
        with TopologyTestDriver(counting(Counter)):
            pass
    gc.collect()
    assert len(given._given) == before


# The same of initializers: one for each key


def appended(key: str, value: str, aggregate: list[str]) -> list[str]:
    aggregate.append(value)
    return aggregate


def grouped() -> Any:
    return Topology("t").stream("in", key=TEXT, value=TEXT).group_by_key()


ONE: list[str] = []


def one_list(where: str) -> Topology:
    """An aggregation whose initializer gives every key the same list."""
    topology = Topology("t")
    if where == "table":
        by_value = topology.table("in", key=TEXT, value=TEXT).group_by(lambda key, value: key, key=TEXT, value=TEXT)
        table = by_value.aggregate(initializer=lambda: ONE, adder=appended, subtractor=appended, value=serde.json())
    else:
        grouped = topology.stream("in", key=TEXT, value=TEXT).group_by_key()
        if where == "cogrouped":
            table = grouped.cogroup(appended).aggregate(initializer=lambda: ONE, value=serde.json())
        elif where == "windowed":
            minutes = grouped.windowed_by(windows.tumbling(timedelta(minutes=1)))
            table = minutes.aggregate(initializer=lambda: ONE, aggregator=appended, value=serde.json())  # type: ignore[assignment]
        else:
            table = grouped.aggregate(initializer=lambda: ONE, aggregator=appended, value=serde.json())
    table.to_stream().map(lambda at, values: (None, "+".join(values))).to("out", key=TEXT, value=TEXT)
    return topology


@pytest.mark.parametrize("where", ["aggregate", "windowed", "cogrouped", "table"])
def test_an_initializer_that_gives_every_key_one_list_gives_each_a_copy(where: str) -> None:
    with TopologyTestDriver(one_list(where)) as driver:
        for key in ("a", "b", "c"):
            driver.input("in").pipe(key, f"of {key}", timestamp=1)
        assert driver.output("out").values() == ["of a", "of b", "of c"]
    assert ONE == []


def test_what_cannot_change_may_be_shared() -> None:
    for shared in (0, "", (), frozenset(), None):
        grouped().aggregate(
            initializer=lambda shared=shared: shared, aggregator=lambda key, value, state: state, value=serde.json()
        )


def test_an_initializer_that_fails_is_left_to_the_error_policy() -> None:
    def fails() -> list[str]:
        raise RuntimeError("not now")

    grouped().aggregate(initializer=fails, aggregator=appended, value=serde.json())
