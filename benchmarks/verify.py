"""What must come out of a workload, and the comparison with what did.

Rule of this module: every output record is looked at, and the first that is wrong is named. Nothing in here knows
contenders: the same expectation holds for all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
    return _CHECKS[expected.mode](outputs, expected)


def _check_sequence(outputs: Iterable[Output], expected: Expectation) -> int:
    # Millions of outputs come by here while the machine has nothing else to do.
    partitions: dict[bytes | None, int] = {}
    rests: dict[bytes | None, Iterator[Hashable]] = {}
    decode, nothing_more = expected.decode, object()
    total = 0
    for partition, key, value in outputs:
        rest = rests.get(key)
        if rest is None or value is None:
            known, _ = _known(key, value, expected)
            rests[key] = rest = iter(expected.values[known])
            partitions[key] = partition
        elif partitions[key] != partition:
            raise WrongOutput(f"key {key!r} is in partitions {partitions[key]} and {partition}")
        try:
            found = decode(value)  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(key, value, error) from error
        if (due := next(rest, nothing_more)) != found:
            at = len(expected.values[key]) - sum(1 for _ in rest) - (due is not nothing_more)  # type: ignore[index]
            wanted = "nothing more" if due is nothing_more else repr(due)
            raise WrongOutput(f"key {key!r}: {found!r} came where {wanted} was due (expected value {at})")
        total += 1
    for key, values in expected.values.items():
        left = sum(1 for _ in rests[key]) if key in rests else len(values)
        if left:
            raise WrongOutput(
                f"key {key!r}: outputs end at expected value {len(values) - left} of {len(values)} "
                f"({total:,} outputs in all)"
            )
    return total


def _check_latest(outputs: Iterable[Output], expected: Expectation) -> int:
    partitions: dict[bytes, int] = {}
    # Per key, how many of the expected values are passed.
    passed: dict[bytes, int] = {}
    total = 0
    for partition, key, value in outputs:
        known, text = _known(key, value, expected)
        if partitions.setdefault(known, partition) != partition:
            raise WrongOutput(f"key {known!r} is in partitions {partitions[known]} and {partition}")
        wanted, at = expected.values[known], passed.get(known, 0)
        found = _decoded(known, text, expected)
        position = _find(wanted, found, at)
        if position is None:
            due = f"{wanted[at]!r} or a later one" if at < len(wanted) else "nothing more"
            raise WrongOutput(f"key {known!r}: {found!r} came where {due} was due (expected value {at})")
        passed[known] = position + 1
        total += 1
    for key, wanted in expected.values.items():
        if passed.get(key, 0) != len(wanted):
            raise WrongOutput(
                f"key {key!r}: outputs end at expected value {passed.get(key, 0)} of {len(wanted)}, the newest never "
                f"came ({total:,} outputs in all)"
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
        had_all = found.get(key, [])
        if not _same(had_all, wanted):
            had, due = Counter(had_all), Counter(wanted)
            missing, extra = due - had, had - due
            raise WrongOutput(
                f"key {key!r}: {missing.total()} of {len(wanted)} outputs are missing, such as "
                f"{next(iter(missing), None)!r}, and {extra.total()} are too many, such as {next(iter(extra), None)!r}"
            )
    return total


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether they are equal in some order."""
    try:
        # A quarter of what counting takes.
        return sorted(some) == sorted(others)
    except TypeError:
        return Counter(some) == Counter(others)


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
        raise _unreadable(key, text, error) from error


def _unreadable(key: bytes | None, text: bytes | None, error: Exception) -> WrongOutput:
    return WrongOutput(f"key {key!r}: the output {(text or b'')[:100]!r} cannot be read: {error!r}")


def _find(values: Sequence[Hashable], value: Hashable, start: int) -> int | None:
    if isinstance(values, range):
        position = values.index(value) if isinstance(value, int) and value in values else -1
        return position if position >= start else None
    return next((position for position in range(start, len(values)) if values[position] == value), None)


_CHECKS: dict[Mode, Callable[[Iterable[Output], Expectation], int]] = {
    "sequence": _check_sequence,
    "latest": _check_latest,
    "multiset": _check_multiset,
}


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
