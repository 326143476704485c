"""The built-in workloads of tables: rows restored from their own topic, joins, groups, global tables.

Rule of this module: see ``workloads``. They are found by name; the seeds that choose a workload by chance do not take
these, so that a seed stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from operator import add, sub
from random import Random
from typing import Any, Final

import orjson

from streamstate import serde
from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import (
    Exactly,
    Expectation,
    Output,
    PerKey,
    PerKeyRule,
)
from streamstate.testing.simulation.library.several_inputs import BY_TIME
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["TABLE_MAKERS"]

TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()
COMPACTED: Final = {"cleanup.policy": "compact"}
# A changelog too, of which nothing ever goes.
KEPT: Final = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


def number(record: InputRecord) -> int | None:
    """The value of a record, which is a number or null."""
    return None if record.value is None else LONG.deserialize(record.value)


def rows_or_deletions(random: Random, topic: str, partitions: int) -> list[InputRecord]:
    """Records of which every fourth or so deletes."""

    def value(at: int, key: str) -> bytes | None:
        return None if random.random() < 0.25 else LONG.serialize(random.randrange(10))

    return keyed_input(random, topic, partitions, value, jitter_ms=900)


def final(fed: Inputs, topic: str) -> dict[str, int]:
    """The rows that a topic ends with."""
    rows = {(record.key or b"").decode(): number(record) for record in fed.records if record.topic == topic}
    return {key: value for key, value in rows.items() if value is not None}


class Ends:
    """The newest record of each key is the row's; keys that have none end with a deletion, or were never there."""

    def __init__(self, rows: Mapping[str, Any]) -> None:
        self._rows = {key.encode(): orjson.dumps(value) for key, value in rows.items()}

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        def rule(key: bytes | None, records: Sequence[Output]) -> Iterator[str]:
            last = records[-1].value if records else None
            wanted = self._rows.get(key or b"")
            if last != wanted:
                yield f"ends with {last!r}, expected {wanted!r}"

        return PerKeyRule(self._rows, rule).problems(found)


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


# -- joins: two tables by key and by foreign key -----------------------------------------------------------------


def _joins() -> Workload:
    topology = Topology("joins")
    left = topology.table("left", key=TEXT, value=LONG)
    right = topology.table("right", key=TEXT, value=LONG)
    left.outer_join(right, lambda one, other: [one, other]).to_stream().to("by-key", value=JSON)
    kept = left.left_join(
        right, lambda one, other: [one, other], foreign_key=_wanted, value=JSON, store="kept", name="wants"
    )
    kept.to_stream().to("by-foreign-key", value=JSON)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        for record in rows_or_deletions(random, "left", partitions):
            yield record._replace(topic=random.choice(("left", "right")))

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        one, other = final(fed, "left"), final(fed, "right")
        return {
            "by-key": Ends({key: [one.get(key), other.get(key)] for key in one.keys() | other.keys()}),
            "by-foreign-key": Ends({key: [value, other.get(_wanted(key, value) or "")] for key, value in one.items()}),
        }

    return Workload("joins", topology.build(), inputs, expected, topic_configs={"left": COMPACTED, "right": KEPT})


def _wanted(key: str, value: int) -> str | None:
    return "abcdef"[value % 6] if value < 8 else None


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


TABLE_MAKERS: Final = {"rows": _rows, "lookups": _lookups, "joins": _joins, "everywhere": _everywhere,
                       "differing": _differing}  # fmt: skip
