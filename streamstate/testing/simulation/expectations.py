"""What committed outputs must be, and how much of their order is free.

Rule of this module: an expectation is complete: it finds what is missing, what is extra, what is wrong and what is
out of order, and leaves free only what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

from streamstate.partitioning import partition_for

__all__ = ["Exactly", "Expectation", "Interleaved", "NewestOf", "Output", "PerKey", "PerKeyRule", "by_key"]


class Output(NamedTuple):
    """A committed record of an output topic, without its place.

    Attributes:
        timestamp: ms since 1970; -1 where it is not compared.
    """

    key: bytes | None
    value: bytes | None
    timestamp: int = -1


class Expectation(Protocol):
    """What one output topic must hold in the end."""

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        """What is wrong with the records found, by partition."""
        ...


@dataclass(frozen=True, slots=True)
class Exactly:
    """The same records in the same order in each partition. Nothing is free.

    >>> expected = Exactly([[Output(b"k", b"1"), Output(b"k", b"2")]])
    >>> list(expected.problems([[Output(b"k", b"1", 5), Output(b"k", b"2", 6)]]))
    []
    >>> list(expected.problems([[Output(b"k", b"1"), Output(b"k", b"1")]]))
    ["partition 0, record 1: found b'k': b'1', expected b'k': b'2'"]
    """

    partitions: Sequence[Sequence[Output]]

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        for number, (records, wanted) in enumerate(zip_longest(found, self.partitions, fillvalue=())):
            difference = first_difference(records, wanted)
            if difference is not None:
                yield f"partition {number}, {difference}"


@dataclass(frozen=True, slots=True)
class PerKey:
    """The same records in the same order for each key, in the key's partition. The order between keys is free."""

    keys: Mapping[bytes | None, Sequence[Output]]

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        yield from misplaced(found)
        groups = by_key(found)
        for key in {**self.keys, **groups}:
            difference = first_difference(groups.get(key, ()), self.keys.get(key, ()))
            if difference is not None:
                yield f"key {key!r}, {difference}"


@dataclass(frozen=True, slots=True)
class NewestOf:
    """For each key some of the records of ``keys``, in their order, the last one always. How many is free: it depends
    on the commits."""

    keys: Mapping[bytes | None, Sequence[Output]]

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        yield from misplaced(found)
        groups = by_key(found)
        for key in {**self.keys, **groups}:
            records, wanted = groups.get(key, []), self.keys.get(key, ())
            left = iter(wanted)
            wrong = next((record for record in records if not any(same(record, item) for item in left)), None)
            if wrong is not None:
                yield f"key {key!r}: {shown(wrong)} is extra or out of order"
            elif wanted and (not records or not same(records[-1], wanted[-1])):
                last = shown(records[-1]) if records else "nothing"
                yield f"key {key!r} ends with {last}, expected {shown(wanted[-1])}"


@dataclass(frozen=True, slots=True)
class Interleaved:
    """In each partition the records of several sequences, each in its own order. How they mesh is free."""

    partitions: Sequence[Sequence[Sequence[Output]]]

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        for number in range(max(len(found), len(self.partitions))):
            sequences = self.partitions[number] if number < len(self.partitions) else ()
            records = found[number] if number < len(found) else ()
            wrong = _unmeshed(records, [sequence for sequence in sequences if sequence])
            if wrong is not None:
                yield f"partition {number}, {wrong}"


@dataclass(frozen=True, slots=True)
class PerKeyRule:
    """A rule of the workload's own for the records of each key: ``rule(key, records)`` yields what is wrong.

    Attributes:
        keys: that must be there.
        rule: called for each key, also with no records.
    """

    keys: Iterable[bytes]
    rule: Callable[[bytes | None, Sequence[Output]], Iterator[str]]

    def problems(self, found: Sequence[Sequence[Output]]) -> Iterator[str]:
        yield from misplaced(found)
        groups = by_key(found)
        for key in dict.fromkeys((*self.keys, *groups)):
            for problem in self.rule(key, groups.get(key, ())):
                yield f"key {key!r}: {problem}"


def by_key(found: Iterable[Iterable[Output]]) -> dict[bytes | None, list[Output]]:
    """The records of each key, in order."""
    groups: dict[bytes | None, list[Output]] = {}
    for records in found:
        for record in records:
            groups.setdefault(record.key, []).append(record)
    return groups


def same(found: Output, wanted: Output) -> bool:
    """True when they are equal, the timestamp where the expectation has one."""
    return found[:2] == wanted[:2] and (wanted.timestamp < 0 or found.timestamp == wanted.timestamp)


def shown(record: Output) -> str:
    """A record for people."""
    return f"{record.key!r}: {record.value!r}" + (f" at {record.timestamp}" if record.timestamp >= 0 else "")


def first_difference(found: Sequence[Output], wanted: Sequence[Output]) -> str | None:
    """Where two sequences part; None where they are equal."""
    for index, (record, item) in enumerate(zip(found, wanted, strict=False)):
        if not same(record, item):
            short = record if item.timestamp >= 0 else record._replace(timestamp=-1)
            return f"record {index}: found {shown(short)}, expected {shown(item)}"
    if len(found) < len(wanted):
        return (
            f"{len(wanted) - len(found)} of {len(wanted)} records are missing, the first is {shown(wanted[len(found)])}"
        )
    if len(found) > len(wanted):
        return f"{len(found) - len(wanted)} records are extra, the first is {shown(found[len(wanted)])}"
    return None


def misplaced(found: Sequence[Sequence[Output]]) -> Iterator[str]:
    """Records that are not where Kafka's Java client would put their key."""
    count = len(found)
    for number, records in enumerate(found):
        for record in records:
            if record.key is not None and partition_for(record.key, count) != number:
                yield f"{shown(record)} is in partition {number}, its key belongs to {partition_for(record.key, count)}"
                return


def _unmeshed(found: Sequence[Output], sequences: Sequence[Sequence[Output]]) -> str | None:
    """None when ``found`` is a mesh of ``sequences``. Equal records may stand in several of them, so every way to
    take the records from the sequences is followed at once."""
    places: set[tuple[int, ...]] = {(0,) * len(sequences)}
    for index, record in enumerate(found):
        following: set[tuple[int, ...]] = set()
        for place in places:
            for number, sequence in enumerate(sequences):
                at = place[number]
                if at < len(sequence) and same(record, sequence[at]):
                    following.add((*place[:number], at + 1, *place[number + 1 :]))
        if not following:
            nearest = max(places, key=sum)
            options = [shown(s[at]) for at, s in zip(nearest, sequences, strict=True) if at < len(s)]
            return f"record {index}: found {shown(record)}, expected {' or '.join(options) or 'nothing more'}"
        places = following
    total = sum(map(len, sequences))
    if len(found) < total:
        nearest = max(places, key=sum)
        missing: Any = [shown(s[at]) for at, s in zip(nearest, sequences, strict=True) if at < len(s)]
        return f"{total - len(found)} of {total} records are missing, such as {missing[0]}"
    return None
