"""Built-in workloads of windows that are kept in segments: sessions, sliding windows, joins of streams.

Rule of this module: see ``workloads``. Event time runs ten times as fast as in the others, so that segments expire in
the course of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Final

from streamstate import serde, windows
from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output
from streamstate.testing.simulation.library.several_inputs import BY_TIME
from streamstate.testing.simulation.workloads import EPOCH_MS, InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["WINDOW_MAKERS"]

TEXT: Final = serde.string()
SPEED: Final = 10


def _fast(records: Iterable[InputRecord]) -> Iterator[InputRecord]:
    for record in records:
        yield record._replace(timestamp=EPOCH_MS + (record.timestamp - EPOCH_MS) * SPEED)


def _text(record: InputRecord) -> str:
    return (record.value or b"").decode()


def _result(key: bytes | None, start: int, end: int, value: str | None, timestamp: int) -> Output:
    return Output(key, f"{start - EPOCH_MS} {end - EPOCH_MS} {value}".encode(), timestamp)


def _shown(windowed: windows.Windowed[str], value: str | None) -> tuple[str, str]:
    return windowed.key, f"{windowed.start - EPOCH_MS} {windowed.end - EPOCH_MS} {value}"


# -- spells: sessions, every update, and once more when they close ------------------------------------------

GAP_MS: Final = 15_000
GRACE_MS: Final = 30_000


def _spells() -> Workload:
    topology = Topology("spells")
    grouped = topology.stream("clicks", key=TEXT, value=TEXT).group_by_key()
    spells = windows.session(timedelta(milliseconds=GAP_MS), grace=timedelta(milliseconds=GRACE_MS))
    changing = grouped.windowed_by(spells).reduce(lambda one, other: f"{one},{other}", store="changing")
    changing.to_stream().map(_shown).to("changes", key=TEXT, value=TEXT)
    closing = grouped.windowed_by(spells).reduce(lambda one, other: f"{one},{other}", store="closing", emit="close")
    closing.to_stream().map(_shown).to("closed", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return _fast(keyed_input(random, "clicks", partitions, lambda at, key: b"%d" % at, keys="abc", jitter_ms=4_000))

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {
            name: Exactly(per_partition(fed, "clicks", lambda records, name=name: _sessions(records)[name]))  # type: ignore[misc]
            for name in ("changes", "closed")
        }

    return Workload("spells", topology.build(), inputs, expected)


def _sessions(records: list[InputRecord]) -> dict[str, list[Output]]:
    open_: dict[tuple[int, int, bytes], str] = {}
    changes, closed = [], []
    now = -1
    for record in records:
        key, at = record.key or b"", record.timestamp
        now = max(now, at)
        live = now - GRACE_MS - GAP_MS
        near = sorted(s for s in open_ if s[2] == key and s[0] >= max(at - GAP_MS, live) and s[1] <= at + GAP_MS)
        if near or at >= live:
            value = ",".join([*(open_.pop(session) for session in near), _text(record)])
            end, start = max(at, *(s[0] for s in near), at), min(at, *(s[1] for s in near), at)
            changes += [_result(key, s[1], s[0], None, s[0]) for s in near if start != end]
            changes.append(_result(key, start, end, value, end))
            open_[end, start, key] = value
        for session in sorted(session for session in open_ if session[0] < live):
            closed.append(
                _result(
                    key=session[2], start=session[1], end=session[0], value=open_.pop(session), timestamp=session[0]
                )
            )
    return {"changes": changes, "closed": closed}


# -- near: windows that slide, when they close --------------------------------------------------------------

NEAR_MS: Final = 8_000


def _near() -> Workload:
    topology = Topology("near")
    grouped = topology.stream("clicks", key=TEXT, value=TEXT).group_by_key()
    near = windows.sliding(timedelta(milliseconds=NEAR_MS), grace=timedelta(milliseconds=GRACE_MS))
    table = grouped.windowed_by(near).reduce(lambda one, other: f"{one},{other}", store="near", emit="close")
    table.to_stream().map(_shown).to("closed", key=TEXT, value=TEXT)

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        # In order, so that what a window holds follows from its bounds alone.
        return _fast(keyed_input(random, "clicks", partitions, lambda at, key: b"%d" % at, keys="ab", most=90))

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {"closed": Exactly(per_partition(fed, "clicks", _slid))}

    return Workload("near", topology.build(), inputs, expected)


def _slid(records: list[InputRecord]) -> Iterator[Output]:
    now = max((record.timestamp for record in records), default=-1)
    found = set()
    for record in records:
        for start in (record.timestamp - NEAR_MS, record.timestamp + 1):
            found.add((start, record.key or b""))
    for start, key in sorted(found):
        held = [r for r in records if r.key == key and start <= r.timestamp <= start + NEAR_MS]
        if held and start + NEAR_MS + GRACE_MS < now:
            yield _result(key, start, start + NEAR_MS, ",".join(map(_text, held)), held[-1].timestamp)


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


WINDOW_MAKERS: Final = {"spells": _spells, "near": _near, "pairs": _pairs}
