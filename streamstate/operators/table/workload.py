"""Tables that are restored from their own topics, and updates that change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import add, sub
from random import Random
from typing import Final

from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import (
    Exactly,
    Expectation,
    Output,
    PerKey,
)
from streamstate.testing.simulation.library.rows import JSON, KEPT, LONG, TEXT, Ends, final, number, rows_or_deletions
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, per_partition

__all__ = ["WORKLOADS"]

# -- rows: a topic that is its table's changelog, with every change and with groups ------------------------------


def _rows() -> Workload:
    topology = Topology("rows")
    rows = topology.table("rows", key=TEXT, value=LONG)
    rows.map_values(lambda value: value * 10).to_stream().to("changes", value=LONG)
    groups = rows.group_by(lambda key, value: f"g{value % 3}", key=TEXT)
    sums = groups.reduce(add, sub, store="sums")
    sums.join(groups.count(store="counts"), lambda one, other: [one, other]).to_stream().to("groups", value=JSON)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return rows_or_deletions(random, "rows", partitions)

    def changes(records: list[InputRecord]) -> Iterator[Output]:
        for record in records:
            value = number(record)
            yield Output(record.key, None if value is None else LONG.serialize(value * 10), record.timestamp)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        values = final(fed, "rows").values()
        seen = {number(record) for record in fed.records} - {None}
        groups = {f"g{value % 3}": [0, 0] for value in seen if value is not None}
        for value in values:
            groups[f"g{value % 3}"][0] += value
            groups[f"g{value % 3}"][1] += 1
        return {"changes": Exactly(per_partition(fed, "rows", changes)), "groups": Ends(groups)}

    return Workload("rows", topology.build(), inputs, expected, topic_configs={"rows": KEPT})


# -- differing: a stream with new keys as a table, of which only what differs goes on ----------------------------


def _differing() -> Workload:
    topology = Topology("differing")
    records = topology.stream("records", key=TEXT, value=LONG)
    rows = records.select_key(lambda key, value: key.upper()).to_table(key=TEXT, store="kept")
    rows.to_stream(emit="change").to("differing", value=LONG)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        for record in rows_or_deletions(random, "records", partitions):
            value = number(record)
            yield record._replace(value=None if value is None else LONG.serialize(value % 2))

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        rows: dict[bytes, bytes | None] = {}
        changes: dict[bytes | None, list[Output]] = {}
        for record in fed.records:
            key = (record.key or b"").upper()
            if rows.get(key) != record.value:
                changes.setdefault(key, []).append(Output(key, record.value, record.timestamp))
            rows[key] = record.value
        return {"differing": PerKey(changes)}

    return Workload("differing", topology.build(), inputs, expected)


WORKLOADS: Final = {"rows": _rows, "differing": _differing}
