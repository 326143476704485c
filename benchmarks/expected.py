"""What each workload makes of its input, computed in the plainest way.

Rule of this module: no code is shared with any contender.
"""

from __future__ import annotations

import functools
import gc
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Any

import orjson

from benchmarks.inputs import MINUTE_MS, events
from benchmarks.verify import Expectation, Mode

__all__ = ["JOIN_WINDOW_MS", "MODELS", "counts", "expectation"]

JOIN_WINDOW_MS = 1_000


def _fields(*names: str) -> Callable[[bytes], Hashable]:
    chosen, loads = itemgetter(*names), orjson.loads

    def decode(text: bytes) -> Hashable:
        return chosen(loads(text))  # type: ignore[no-any-return]

    return decode


def counts(of: Counter[bytes], mode: Mode = "sequence") -> Expectation:
    """1, 2, ... n for each key."""
    return Expectation(mode, {key: range(1, count + 1) for key, count in of.items()}, int)


def _mapped(records: int, begin_ms: int) -> Expectation:
    found: dict[bytes, list[Hashable]] = {}
    for event in events(records):
        found.setdefault(event.key.encode(), []).append((event.id, event.amount * 2))
    return Expectation("sequence", found, _fields("id", "twice"))


def _counted(records: int, begin_ms: int) -> Expectation:
    return counts(Counter(event.key.encode() for event in events(records)))


def _newest_counts(records: int, begin_ms: int) -> Expectation:
    return counts(Counter(event.key.encode() for event in events(records)), "latest")


def _grouped(records: int, begin_ms: int) -> Expectation:
    return counts(Counter(event.group.encode() for event in events(records)))


def _means(records: int, begin_ms: int) -> Expectation:
    found: dict[bytes, list[Hashable]] = {}
    sums: dict[tuple[str, int], tuple[int, int]] = {}
    for event in events(records):
        start = (begin_ms + event.id) // MINUTE_MS * MINUTE_MS
        total, count = sums.get((event.key, start), (0, 0))
        total, count = total + event.amount, count + 1
        sums[event.key, start] = (total, count)
        found.setdefault(event.key.encode(), []).append((start, total / count))
    return Expectation("sequence", found, _fields("start", "mean"))


def _enriched(records: int, begin_ms: int) -> Expectation:
    found: dict[bytes, list[Hashable]] = {}
    for event in events(records):
        name = f"customer {event.key.removeprefix('key-')}"
        found.setdefault(event.key.encode(), []).append((event.id, event.amount, name))
    return Expectation("sequence", found, _fields("id", "amount", "name"))


def _pairs(records: int, begin_ms: int) -> Expectation:
    """Left records have even ids, right ones odd; event time advances a millisecond per id."""
    rights: dict[str, list[int]] = {}
    lefts: list[tuple[str, int]] = []
    for event in events(records):
        if event.id % 2:
            rights.setdefault(event.key, []).append(event.id)
        else:
            lefts.append((event.key, event.id))
    found: dict[bytes, list[Hashable]] = {}
    for key, left in lefts:
        ids = rights.get(key, [])
        near = ids[bisect_left(ids, left - JOIN_WINDOW_MS) : bisect_right(ids, left + JOIN_WINDOW_MS)]
        if near:
            found.setdefault(key.encode(), []).extend((left, right) for right in near)
    return Expectation("multiset", found, _fields("left", "right"))


# By the name of what a contender computes.
MODELS: dict[str, Callable[[int, int], Expectation]] = {
    "map": _mapped,
    "count-update": _counted,
    "count-commit": _newest_counts,
    "tumbling-mean": _means,
    "table-join": _enriched,
    "stream-join": _pairs,
    "repartition": _grouped,
}


@functools.lru_cache(maxsize=2)
def expectation(work: str, records: int, begin_ms: int) -> Any:
    """What must come out of this work over the first records."""
    # Millions of tuples that stay: the collector would look at all of them again and again.
    gc.disable()
    try:
        return MODELS[work](records, begin_ms)
    finally:
        gc.freeze()
        gc.enable()
