"""The workload of records that fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Final

from streamstate import serde
from streamstate.dsl import stores
from streamstate.dsl.stores import dead_letter
from streamstate.dsl.topology import Topology
from streamstate.operators.process.api import Processor, ProcessorContext
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output, PerKey, by_key
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

TEXT: Final = serde.string()


# -- poison: records that fail half way, left out or kept aside --------------------------------------------


class Spoil(Processor[str, str, str, str]):
    """Counts in a store, sends, and only then finds the record bad."""

    def __init__(self, store: str) -> None:
        self._store = store

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.counts = context.store(self._store)

    def process(self, key: str, value: str) -> None:
        count = (self.counts.get(key) or 0) + 1
        self.counts.put(key, count)
        self.context.forward(key, f"{count}")
        if value.startswith("bad"):
            raise ValueError("this record is bad")


def poison() -> Workload:
    topology = Topology("poison")
    counts = stores.key_value("counts", key=TEXT, value=serde.long())
    dropped = topology.stream("drop", key=TEXT, value=TEXT, on_error="continue")
    kept = topology.stream("keep", key=TEXT, value=TEXT, on_error=dead_letter("dead"))
    again = stores.key_value("counts-again", key=TEXT, value=serde.json())
    dropped.process(lambda: Spoil("counts"), stores=[counts]).to("dropped", key=TEXT, value=TEXT)
    kept.process(lambda: Spoil("counts-again"), stores=[again]).to("kept", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        def value(number: int, key: str) -> bytes:
            return random.choice((b"good %d", b"good %d", b"bad %d")) % number

        for record in keyed_input(random, "drop", partitions, value, jitter_ms=900):
            yield record._replace(topic=random.choice(("drop", "keep")))

    def good(records: list[InputRecord]) -> Iterator[Output]:
        counts: Counter[bytes | None] = Counter()
        for record in records:
            if (record.value or b"").startswith(b"good"):
                counts[record.key] += 1
                yield Output(record.key, b"%d" % counts[record.key], record.timestamp)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        dead = [record for record in fed.records if record.topic == "keep" and (record.value or b"").startswith(b"bad")]
        return {
            "dropped": Exactly(per_partition(fed, "drop", good)),
            "kept": Exactly(per_partition(fed, "keep", good)),
            "dead": PerKey(by_key([[Output(record.key, record.value) for record in dead]])),
        }

    return Workload("poison", topology.build(), inputs, expected)
