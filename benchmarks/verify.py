"""What must come out of a workload, and the comparison with what did.

Rule of this module: every output record is looked at, and the first that is wrong is named. Nothing in here knows
contenders: the same expectation holds for all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from streamstate.engine.ports import TopicPartition
from streamstate.kafka import KafkaAdmin, KafkaRestoreConsumer

__all__ = ["Expectation", "Output", "WrongOutput", "check", "read_outputs"]

Mode = Literal["sequence", "latest", "multiset"]
# Partition, key, value.
Output = tuple[int, bytes | None, bytes | None]

_READ = 10_000
_STALLED_S = 30


class WrongOutput(Exception):
    """A contender's output is not what its input makes of it."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must come out.

    Attributes:
        mode: ``sequence``: per key exactly these values in this order. ``latest``: per key some of them, in this
            order, the last one included. ``multiset``: per key exactly these values, in any order.
        values: per key; a ``range`` will do for counts.
        decode: an output's bytes to what is compared.
    """

    mode: Mode
    values: Mapping[bytes, Sequence[Hashable]]
    decode: Callable[[bytes], Hashable]


def check(outputs: Iterable[Output], expected: Expectation) -> int:
    """Compare all outputs.

    Returns:
        How many there were.

    Raises:
        WrongOutput: the first thing that is wrong.
    """
    if expected.mode == "multiset":
        return _check_multiset(outputs, expected)
    partitions: dict[bytes, int] = {}
    # Per key, how many of the expected values are passed.
    passed: dict[bytes, int] = {}
    skipping = expected.mode == "latest"
    total = 0
    for partition, key, value in outputs:
        known, text = _known(key, value, expected)
        if partitions.setdefault(known, partition) != partition:
            raise WrongOutput(f"key {known!r} is in partitions {partitions[known]} and {partition}")
        wanted, at = expected.values[known], passed.get(known, 0)
        found = _decoded(known, text, expected)
        if skipping:
            position = _find(wanted, found, at)
        else:
            position = at if at < len(wanted) and wanted[at] == found else None
        if position is None:
            due = f"{wanted[at]!r}" if at < len(wanted) else "nothing more"
            later = " or a later one" if skipping and at < len(wanted) else ""
            raise WrongOutput(f"key {known!r}: {found!r} came where {due}{later} was due (expected value {at})")
        passed[known] = position + 1
        total += 1
    for key, wanted in expected.values.items():
        if passed.get(key, 0) != len(wanted):
            raise WrongOutput(
                f"key {key!r}: outputs end at expected value {passed.get(key, 0)} of {len(wanted)}"
                f"{', the newest never came' if skipping else ''} ({total:,} outputs in all)"
            )
    return total


def _check_multiset(outputs: Iterable[Output], expected: Expectation) -> int:
    found: dict[bytes, list[Hashable]] = {}
    total = 0
    for _, key, value in outputs:
        known, text = _known(key, value, expected)
        found.setdefault(known, []).append(_decoded(known, text, expected))
        total += 1
    for key, wanted in expected.values.items():
        had, due = Counter(found.get(key, ())), Counter(wanted)
        if had != due:
            missing, extra = due - had, had - due
            raise WrongOutput(
                f"key {key!r}: {missing.total()} of {len(wanted)} outputs are missing, such as "
                f"{next(iter(missing), None)!r}, and {extra.total()} are too many, such as {next(iter(extra), None)!r}"
            )
    return total


def _known(key: bytes | None, value: bytes | None, expected: Expectation) -> tuple[bytes, bytes]:
    if key is None or key not in expected.values:
        raise WrongOutput(f"key {key!r} should have no outputs, and has {value!r}")
    if value is None:
        raise WrongOutput(f"key {key!r} has an output without a value")
    return key, value


def _decoded(key: bytes, text: bytes, expected: Expectation) -> Hashable:
    try:
        return expected.decode(text)
    except (ValueError, KeyError, TypeError) as error:
        raise WrongOutput(f"key {key!r}: the output {text[:100]!r} cannot be read: {error!r}") from error


def _find(values: Sequence[Hashable], value: Hashable, start: int) -> int | None:
    if isinstance(values, range):
        position = values.index(value) if isinstance(value, int) and value in values else -1
        return position if position >= start else None
    return next((position for position in range(start, len(values)) if values[position] == value), None)


def read_outputs(
    servers: str, topic: str, partitions: int, starts: Mapping[TopicPartition, int] | None = None
) -> Iterator[Output]:
    """All committed records of a topic, in their order within each partition.

    Args:
        starts: offsets to begin with; by default all are read.

    Raises:
        WrongOutput: its end is not reached: a transaction was left open.
    """
    every = [TopicPartition(topic, number) for number in range(partitions)]
    ends = KafkaAdmin({"bootstrap.servers": servers}).log_ends(every)
    reader = KafkaRestoreConsumer({"bootstrap.servers": servers}, f"verify-{topic}")
    try:
        reader.assign({partition: (starts or {}).get(partition, 0) for partition in every})
        progress_at = time.monotonic()
        while any(position < ends[partition] for partition, position in reader.positions().items()):
            messages = reader.poll(_READ, 100)
            for message in messages:
                yield message.partition(), message.key(), message.value()
            now = time.monotonic()
            if messages:
                progress_at = now
            elif now - progress_at > _STALLED_S:
                raise WrongOutput(f"topic {topic}: its end cannot be read, a transaction seems to have been left open")
    finally:
        reader.close()
