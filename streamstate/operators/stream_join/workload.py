"""Joins of two streams: inner, outer, with themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Final

from streamstate import windows
from streamstate.dsl.topology import Topology
from streamstate.operators.windows.workload import GRACE_MS
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output
from streamstate.testing.simulation.library.several_inputs import BY_TIME
from streamstate.testing.simulation.library.texts import TEXT, _fast, _text
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input

__all__ = ["WORKLOADS"]

# -- pairs: an outer join of two streams, an inner one, and one of a stream with itself ----------------------

WITHIN_MS: Final = 10_000
_Pairs = Callable[[list[InputRecord]], Iterator[Output]]


def _pairs() -> Workload:
    topology = Topology("pairs")
    left = topology.stream("left", key=TEXT, value=TEXT)
    right = topology.stream("right", key=TEXT, value=TEXT)
    within = windows.join(timedelta(milliseconds=WITHIN_MS), grace=timedelta(milliseconds=GRACE_MS))
    left.outer_join(right, lambda one, other: f"{one} {other}", within=within, store="outer").to("outer", value=TEXT)
    left.join(right, lambda one, other: f"{one} {other}", within=within, store="inner").to("inner", value=TEXT)
    left.join(left, lambda one, other: f"{one} {other}", within=within, store="own").to("own", value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        for record in _fast(keyed_input(random, "left", partitions, lambda at, key: b"%d" % at, keys="abc", most=80)):
            yield record._replace(topic=random.choice(("left", "right")))

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        models: Mapping[str, _Pairs] = {"outer": _outer, "inner": _inner, "own": _own}
        partitions = []
        for number in range(fed.partitions):
            both = [*fed.of("left", number), *fed.of("right", number)]
            partitions.append(sorted(both, key=lambda record: record.timestamp))
        return {name: Exactly([list(model(records)) for records in partitions]) for name, model in models.items()}

    return Workload("pairs", topology.build(), inputs, expected, BY_TIME, at_once=True)


def _met(records: list[InputRecord], at: int, topics: Mapping[str, str]) -> list[InputRecord]:
    """Earlier records that the one at ``at`` meets, in order."""
    record = records[at]
    return [
        other
        for other in records[:at]
        if other.key == record.key
        and other.topic == topics.get(record.topic)
        and other.timestamp >= record.timestamp - WITHIN_MS
    ]


_OTHER: Final = {"left": "right", "right": "left"}


def _pair(record: InputRecord, other: InputRecord | None) -> bytes:
    texts = [_text(record), "None" if other is None else _text(other)]
    return " ".join(texts if record.topic == "left" else reversed(texts)).encode()


def _inner(records: list[InputRecord]) -> Iterator[Output]:
    for at, record in enumerate(records):
        for other in _met(records, at, _OTHER):
            yield Output(record.key, _pair(record, other), record.timestamp)


def _outer(records: list[InputRecord]) -> Iterator[Output]:
    waiting: list[InputRecord] = []
    for at, record in enumerate(records):
        while waiting and waiting[0].timestamp + WITHIN_MS + GRACE_MS < record.timestamp:
            alone = waiting.pop(0)
            yield Output(alone.key, _pair(alone, None), alone.timestamp)
        met = _met(records, at, _OTHER)
        for other in met:
            waiting = [one for one in waiting if one != other]
            yield Output(record.key, _pair(record, other), record.timestamp)
        if not met:
            waiting.append(record)


def _own(records: list[InputRecord]) -> Iterator[Output]:
    lefts = [record for record in records if record.topic == "left"]
    for at, record in enumerate(lefts):
        met = _met(lefts, at, {"left": "left"})
        for other in met:
            yield Output(record.key, f"{_text(record)} {_text(other)}".encode(), record.timestamp)
        for other in [*met, record]:
            yield Output(record.key, f"{_text(other)} {_text(record)}".encode(), record.timestamp)


WORKLOADS: Final = {"pairs": _pairs}
