"""Rows of tables as input and as what must be found: what workloads share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final

import orjson

from streamstate import serde
from streamstate.testing.simulation.expectations import (
    Output,
    PerKeyRule,
)
from streamstate.testing.simulation.workloads import InputRecord, Inputs, keyed_input

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
