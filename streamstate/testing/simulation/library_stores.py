"""The built-in workloads of what a Processor keeps: entries that expire, and stores of the other kinds.

Rule of this module: see ``workloads``. They are found by name; the seeds that choose a workload by chance do not take
these, so that a seed stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Final

from streamstate import serde
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition
from streamstate.topology import Processor, ProcessorContext, Topology, stores

__all__ = ["STORE_MAKERS"]

TEXT, LONG = serde.string(), serde.long()


def numbered(random: Random, topic: str, partitions: int) -> list[InputRecord]:
    """Records with their numbers as values, some of them out of order."""
    return keyed_input(random, topic, partitions, lambda number, key: LONG.serialize(number), jitter_ms=3_000)


def number(record: InputRecord) -> int:
    """The value of a record, which is its number."""
    found: int = LONG.deserialize(record.value or b"")
    return found


# -- recent: a store with a time to live, read, iterated, written and deleted --------------------------------------

TTL_MS: Final = 4_000


class Recent(Processor[str, int, str, str]):
    """Tells what else was there a short time ago."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.recent = context.store("recent")

    def process(self, key: str, value: int) -> None:
        before = self.recent.get(key)
        self.recent.put(key, None if value % 7 == 6 else value)
        there = " ".join(f"{other}{number}" for other, number in self.recent.all())
        self.context.forward(key, f"{before}, {there}")


def remembered(records: list[InputRecord]) -> Iterator[Output]:
    """What ``Recent`` makes of a partition."""
    written: dict[bytes, tuple[int, int]] = {}
    now = -1
    for record in records:
        now = max(now, record.timestamp)
        written = {key: entry for key, entry in written.items() if entry[1] + TTL_MS > now}
        key, value = record.key or b"", number(record)
        before = written.pop(key, (None, 0))[0]
        if value % 7 != 6 and record.timestamp + TTL_MS > now:
            written[key] = (value, record.timestamp)
        there = " ".join(f"{other.decode()}{entry[0]}" for other, entry in sorted(written.items()))
        yield Output(key, f"{before}, {there}".encode(), record.timestamp)


def _recent() -> Workload:
    topology = Topology("recent")
    kept = stores.key_value("recent", key=TEXT, value=LONG, ttl=timedelta(milliseconds=TTL_MS))
    numbers = topology.stream("numbers", key=TEXT, value=LONG)
    numbers.process(Recent, stores=[kept]).to("told", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return numbered(random, "numbers", partitions)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"told": Exactly(per_partition(fed, "numbers", remembered))}

    return Workload("recent", topology.build(), inputs, expected)


STORE_MAKERS: Final = {"recent": _recent}
