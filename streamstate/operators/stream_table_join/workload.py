"""Joins of a stream with tables, versioned tables and global tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Final

import orjson

from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import (
    Exactly,
    Expectation,
    Output,
)
from streamstate.testing.simulation.library.rows import JSON, KEPT, LONG, TEXT, final, number, rows_or_deletions
from streamstate.testing.simulation.library.several_inputs import BY_TIME
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["WORKLOADS"]

# -- lookups: a stream with a table, as it is and as it was ------------------------------------------------------

HISTORY_MS: Final = 5_000


def _lookups() -> Workload:
    topology = Topology("lookups")
    rows = topology.table("rows", key=TEXT, value=LONG)
    versions = topology.table("versions", key=TEXT, value=LONG, versioned=timedelta(milliseconds=HISTORY_MS))
    asked = topology.stream("asked", key=TEXT, value=LONG)
    asked.left_join(rows, lambda one, other: [one, other], name="now").to("now", value=JSON)
    grace = timedelta(milliseconds=700)
    asked.join(versions, lambda one, other: [one, other], grace=grace, name="then").to("then", value=JSON)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        for record in keyed_input(random, "asked", partitions, lambda at, key: LONG.serialize(at)):
            topic = random.choice(("asked", "rows", "versions"))
            deletes = topic != "asked" and random.random() < 0.2
            yield record._replace(topic=topic, value=None if deletes else record.value)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        now, then = [], []
        for partition in range(fed.partitions):
            records = [r for topic in ("asked", "rows", "versions") for r in fed.of(topic, partition)]
            records.sort(key=lambda record: record.timestamp)
            now.append(list(_asked_now(records)))
            then.append(list(_asked_then(records)))
        return {"now": Exactly(now), "then": Exactly(then)}

    return Workload(
        "lookups",
        topology.build(),
        inputs,
        expected,
        BY_TIME,
        at_once=True,
        topic_configs={"rows": KEPT},
    )


def _answer(record: InputRecord, row: int | None) -> Output:
    return Output(record.key, orjson.dumps([number(record), row]), record.timestamp)


def _asked_now(records: list[InputRecord]) -> Iterator[Output]:
    rows: dict[bytes | None, int | None] = {}
    for record in records:
        if record.topic == "rows":
            rows[record.key] = number(record)
        elif record.topic == "asked":
            yield _answer(record, rows.get(record.key))


def _asked_then(records: list[InputRecord]) -> Iterator[Output]:
    versions: dict[bytes | None, list[tuple[int, int | None]]] = {}
    waiting: list[InputRecord] = []
    observed = 0
    for record in records:
        if record.topic == "versions":
            versions.setdefault(record.key, []).append((record.timestamp, number(record)))
            observed = record.timestamp
        elif record.topic == "asked":
            waiting.append(record)
            while waiting and waiting[0].timestamp <= record.timestamp - 700:
                released = waiting.pop(0)
                past = [item for item in versions.get(released.key, ()) if item[0] <= released.timestamp]
                newest = past and past[-1] == versions[released.key][-1]
                if past and past[-1][1] is not None and (newest or released.timestamp >= observed - HISTORY_MS):
                    yield _answer(released, past[-1][1])


# -- everywhere: a global table, there before the first record ---------------------------------------------------


def _everywhere() -> Workload:
    topology = Topology("everywhere")
    names = topology.global_table("names", key=TEXT, value=LONG)
    asked = topology.stream("asked", key=TEXT, value=LONG)
    joined = asked.left_join(names, lambda one, other: [one, other], on=lambda key, value: "abcdef"[value % 6])
    joined.to("named", value=JSON)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        yield from rows_or_deletions(random, "names", partitions)
        yield from keyed_input(random, "asked", partitions, lambda at, key: LONG.serialize(at))

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        names = final(fed, "names")

        def named(records: list[InputRecord]) -> Iterator[Output]:
            return (_answer(record, names.get("abcdef"[(number(record) or 0) % 6])) for record in records)

        return {"named": Exactly(per_partition(fed, "asked", named))}

    return Workload("everywhere", topology.build(), inputs, expected, at_once=True)


WORKLOADS: Final = {"lookups": _lookups, "everywhere": _everywhere}
