"""Built-in workloads whose topology changes while it runs: a rolling update over state that stays.

Rule of this module: see ``workloads``. What comes out is the same under all versions, so that it can be told exactly;
what they do to the state is not: segments of other lengths are asked for, and ready aggregates come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Any, Final

from streamstate import aggregates, serde, windows
from streamstate.aggregates import Aggregate
from streamstate.dsl.topology import Topology
from streamstate.graph.node import Graph
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output
from streamstate.testing.simulation.workloads import EPOCH_MS, InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["VERSION_MAKERS"]

TEXT: Final = serde.string()
SPEED: Final = 10

# -- updated: sessions that are retained for longer, aggregates of which one stays ---------------------------

GAP_MS: Final = 15_000
GRACE_MS: Final = 30_000


def _version(retention: timedelta, **named: Aggregate) -> Graph:
    topology = Topology("updated")
    grouped = topology.stream("clicks", key=TEXT, value=TEXT).group_by_key()
    spells = windows.session(timedelta(milliseconds=GAP_MS), grace=timedelta(milliseconds=GRACE_MS))
    table = grouped.windowed_by(spells).reduce(lambda one, other: f"{one},{other}", store="spells", retention=retention)
    table.to_stream().map(_shown).to("changes", key=TEXT, value=TEXT)
    numbers = grouped.aggregate(**named, n=aggregates.count(), store="numbers")  # type: ignore[call-overload]
    numbers.to_stream().map_values(lambda found: str(found["n"])).to("counted", value=TEXT)
    return topology.build()


def _shown(windowed: windows.Windowed[str], value: str | None) -> tuple[str, str]:
    return windowed.key, f"{windowed.start - EPOCH_MS} {windowed.end - EPOCH_MS} {value}"


def _first_letter(value: str) -> str:
    return value[:1]


def _updated() -> Workload:
    versions = (
        _version(timedelta(seconds=60)),
        _version(timedelta(seconds=600), a=aggregates.last(), z=aggregates.collect(_first_letter, limit=3)),
        _version(timedelta(seconds=300), z=aggregates.collect(_first_letter, limit=3)),
    )

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        for record in keyed_input(
            random, "clicks", partitions, lambda at, key: b"%d" % at, keys="abc", jitter_ms=2_000
        ):
            yield record._replace(timestamp=EPOCH_MS + (record.timestamp - EPOCH_MS) * SPEED)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {
            "changes": Exactly(per_partition(fed, "clicks", _changes)),
            "counted": Exactly(per_partition(fed, "clicks", _counted)),
        }

    return Workload("updated", versions[0], inputs, expected, versions=versions[1:])


def _counted(records: list[InputRecord]) -> Iterator[Output]:
    counts: dict[bytes, tuple[int, int]] = {}
    for record in records:
        number, newest = counts.get(record.key or b"", (0, 0))
        counts[record.key or b""] = number, newest = number + 1, max(newest, record.timestamp)
        yield Output(record.key, b"%d" % number, newest)


def _changes(records: list[InputRecord]) -> Iterator[Output]:
    spells: dict[bytes, list[tuple[int, int, str]]] = {}
    now = -1
    for record in records:
        key, at, text = record.key or b"", record.timestamp, (record.value or b"").decode()
        now = max(now, at)
        live = now - GRACE_MS - GAP_MS
        known = spells.setdefault(key, [])
        near = sorted(s for s in known if s[0] >= max(at - GAP_MS, live) and s[1] <= at + GAP_MS)
        if not near and at < live:
            continue
        end, start = max(at, *(s[0] for s in near), at), min(at, *(s[1] for s in near), at)
        for spell in near:
            known.remove(spell)
            if start != end:
                yield _result(record.key, spell[1], spell[0], None)
        known.append((end, start, ",".join([*(s[2] for s in near), text])))
        yield _result(record.key, start, end, known[-1][2])


def _result(key: bytes | None, start: int, end: int, value: Any) -> Output:
    return Output(key, f"{start - EPOCH_MS} {end - EPOCH_MS} {value}".encode(), end)


VERSION_MAKERS: Final = {"updated": _updated}
