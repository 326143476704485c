"""Built-in workloads in which records of several partitions meet in one task.

Rule of this module: see ``workloads``. Each expectation says what of the order is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Final

import orjson

from streamstate import serde
from streamstate.dsl import stores
from streamstate.dsl.topology import Topology
from streamstate.operators.process.api import Processor, ProcessorContext
from streamstate.partitioning import partition_for
from streamstate.testing.simulation.expectations import Exactly, Expectation, Interleaved, Output, PerKeyRule
from streamstate.testing.simulation.workloads import EPOCH_MS, InputRecord, Inputs, Workload, keyed_input

__all__ = ["collect", "enrich", "merge", "merge_by_time"]

TEXT: Final = serde.string()
# A partition that has more is waited for as long as it takes: the order is then that of the event times.
BY_TIME: Final = {"fetch_wait_ms": 3_600_000, "behind_wait_ms": 3_600_000, "max_task_idle_ms": 0}


# -- collect: through a repartition topic into an aggregate ------------------------------------------------


def collect() -> Workload:
    topology = Topology("collect")
    lines = topology.stream("lines", key=TEXT, value=TEXT)
    words = lines.group_by(lambda key, line: line.split()[0], key=TEXT, value=TEXT)
    seen = words.aggregate(
        initializer=list, aggregator=lambda word, line, seen: [*seen, line], value=serde.json(), store="seen"
    )
    seen.to_stream().to("seen-lines", key=TEXT, value=serde.json())

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        def line(number: int, key: str) -> bytes:
            partition = partition_for(key.encode(), partitions)
            return f"{random.choice(('ada', 'bob', 'cyd', 'dee'))} {partition} {number}".encode()

        return keyed_input(random, "lines", partitions, line)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        truth: dict[bytes, list[list[str]]] = {}
        for record in fed.records:
            line = (record.value or b"").decode()
            by_source = truth.setdefault(line.split()[0].encode(), [[] for _ in range(fed.partitions)])
            by_source[record.partition].append(line)

        def rule(key: bytes | None, records: Sequence[Output]) -> Iterator[str]:
            """Each output adds one line to the one before; the lines of one input partition keep their order. How
            the lines of different partitions mesh is free."""
            lines = [orjson.loads(record.value or b"null") for record in records]
            for index, line in enumerate(lines):
                before = lines[index - 1] if index else []
                if line[:-1] != before:
                    yield f"record {index} is {line}, the one before was {before}"
                    return
            final = lines[-1] if lines else []
            for source, wanted in enumerate(truth.get(key or b"", [])):
                found = [line for line in final if int(line.split()[1]) == source]
                if found != wanted:
                    yield f"of input partition {source} it has {found}, expected {wanted}"

        return {"seen-lines": PerKeyRule(truth, rule)}

    return Workload("collect", topology.build(), inputs, expected)


# -- merge: two topics in one task; how they mesh is free --------------------------------------------------


class Number(Processor[str, str, str, str]):
    """Adds to each value how many the task has had before it, and when (by event time) the one before was."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.kept = context.store("kept")

    def process(self, key: str, value: str) -> None:
        count, before = self.kept.get("all") or (0, 0)
        self.kept.put("all", (count + 1, self.context.timestamp))
        self.context.forward(key, f"{value} {count} {before}")


def _two_topics() -> Topology:
    topology = Topology("merge")
    both = topology.stream("left", key=TEXT, value=TEXT).merge(topology.stream("right", key=TEXT, value=TEXT))
    kept = stores.key_value("kept", key=TEXT, value=serde.json())
    both.process(Number, stores=[kept]).to("merged", key=TEXT, value=TEXT)
    return topology


def _two_inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
    records = keyed_input(random, "left", partitions, lambda number, key: f"{number}".encode(), most=70)
    for record in records:
        side = random.choice(("left", "right"))
        yield record._replace(topic=side, value=side[:1].encode() + (record.value or b""))


def merge() -> Workload:
    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"merged": Meshed(fed)}

    return Workload("merge", _two_topics().build(), _two_inputs, expected)


class Meshed:
    """Of ``merge``: the task's numbers are 0, 1, 2 ... in each partition, each names the event time of the one before,
    and the records of each topic keep their order."""

    def __init__(self, fed: Inputs) -> None:
        self._fed = fed

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        plain = []
        for number, records in enumerate(found):
            before = 0
            for index, record in enumerate(records):
                _, count, earlier = (record.value or b"").split()
                if (int(count), int(earlier)) != (index, before):
                    yield f"partition {number}, record {index} is {record}, the one before was at {before}"
                    break
                before = record.timestamp
            plain.append([record._replace(value=(record.value or b"").split()[0]) for record in records])
        sources = [
            [[Output(*record[2:]) for record in self._fed.of(topic, number)] for topic in ("left", "right")]
            for number in range(self._fed.partitions)
        ]
        yield from Interleaved(sources).problems(plain)


# -- merge-by-time: the same with all input there at once: then the order is that of the event times ---------


def merge_by_time() -> Workload:
    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        partitions = []
        for number in range(fed.partitions):
            both = sorted((*fed.of("left", number), *fed.of("right", number)), key=lambda record: record.timestamp)
            before = [0, *(record.timestamp for record in both)]
            partitions.append(
                [
                    Output(record.key, (record.value or b"") + b" %d %d" % (index, before[index]), record.timestamp)
                    for index, record in enumerate(both)
                ]
            )
        return {"merged": Exactly(partitions)}

    return Workload("merge-by-time", _two_topics().build(), _two_inputs, expected, BY_TIME, at_once=True)


# -- enrich: a stream under a new key meets a table that is its own changelog ------------------------------


def enrich() -> Workload:
    topology = Topology("enrich")
    orders = topology.stream("orders", key=TEXT, value=TEXT)
    customers = topology.table("customers", key=TEXT, value=TEXT)
    by_customer = orders.map(lambda key, order: (order.split()[0], order))
    joined = by_customer.join(
        customers, lambda order, name: f"{order} {name}", key=TEXT, value=TEXT, name="by-customer"
    )
    joined.to("enriched", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        rows = keyed_input(random, "customers", partitions, lambda number, key: b"name%d" % number, keys="uvw", most=30)
        yield from rows
        start_ms = rows[-1].timestamp + 1

        def order(number: int, key: str) -> bytes:
            return f"{random.choice('uvwx')} {number}".encode()

        for record in keyed_input(random, "orders", partitions, order):
            yield record._replace(timestamp=record.timestamp - EPOCH_MS + start_ms)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        """All rows are older than all orders. Orders of different partitions mesh freely, each partition's in order."""
        names = {record.key: record.value for record in fed.records if record.topic == "customers"}
        meshed: list[list[list[Output]]] = [[[] for _ in range(fed.partitions)] for _ in range(fed.partitions)]
        for record in fed.records:
            customer = (record.value or b"").split()[0]
            if record.topic == "orders" and customer in names:
                value = (record.value or b"") + b" " + (names[customer] or b"")
                home = partition_for(customer, fed.partitions)
                meshed[home][record.partition].append(Output(customer, value, record.timestamp))
        return {"enriched": Interleaved(meshed)}

    configs = {"customers": {"cleanup.policy": "compact"}}
    return Workload("enrich", topology.build(), inputs, expected, BY_TIME, at_once=True, topic_configs=configs)
