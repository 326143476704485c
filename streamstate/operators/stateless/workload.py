"""Records that go through operators without state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Final

from streamstate import serde
from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output, PerKey, by_key
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["WORKLOADS"]

TEXT: Final = serde.string()

# -- stateless: filter, map, flat_map and branches ---------------------------------------------------------


def stateless() -> Workload:
    topology = Topology("stateless")
    lines = topology.stream("lines", key=TEXT, value=TEXT)
    kept = lines.filter(lambda key, line: not line.endswith("3"))
    kept.map_values(str.upper).to("upper", key=TEXT, value=TEXT)
    kept.flat_map(lambda key, line: [(key + "1", line), (key + "2", line)]).to("copies", key=TEXT, value=TEXT)
    even, rest = lines.split(lambda key, line: int(line[1:]) % 2 == 0)
    even.to("even")
    rest.to("odd")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "lines", partitions, lambda number, key: f"n{number}".encode(), jitter_ms=900)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        def number(record: InputRecord) -> int:
            return int((record.value or b"")[1:])

        def upper(records: list[InputRecord]) -> Iterator[Output]:
            return (Output(r.key, b"N%d" % number(r), r.timestamp) for r in records if number(r) % 10 != 3)

        kept = [record for record in fed.records if number(record) % 10 != 3]
        copies = [Output((r.key or b"") + end, r.value, r.timestamp) for r in kept for end in (b"1", b"2")]
        branches = {
            name: per_partition(
                fed,
                "lines",
                lambda records, odd=odd: (  # type: ignore[misc]
                    Output(r.key, r.value, r.timestamp) for r in records if number(r) % 2 == odd
                ),
            )
            for name, odd in (("even", 0), ("odd", 1))
        }
        return {
            "upper": Exactly(per_partition(fed, "lines", upper)),
            "copies": PerKey(by_key([copies])),
            **{name: Exactly(partitions) for name, partitions in branches.items()},
        }

    return Workload("stateless", topology.build(), inputs, expected)


WORKLOADS: Final = {"stateless": stateless}
