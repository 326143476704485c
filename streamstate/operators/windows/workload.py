"""Windows, sessions and sliding windows, with every update and when they close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from random import Random
from typing import Final

from streamstate import serde, windows
from streamstate.dsl.topology import Topology
from streamstate.testing.simulation.expectations import Exactly, Expectation, Output, PerKey, by_key
from streamstate.testing.simulation.library.texts import TEXT, _fast, _result, _shown, _text
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input, per_partition

__all__ = ["WORKLOADS"]

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


# -- windows: counts per window, every update, and once more when the window closes ------------------------

SIZE_MS: Final = 10_000
WINDOW_GRACE_MS: Final = 2_000


def windowed() -> Workload:
    topology = Topology("windows")
    clicks = topology.stream("clicks", key=TEXT).group_by_key()
    slots = windows.tumbling(timedelta(milliseconds=SIZE_MS), grace=timedelta(milliseconds=WINDOW_GRACE_MS))
    clicks.windowed_by(slots).count(store="counts").to_stream().to("counted")
    clicks.windowed_by(slots).count(store="closes", emit="close").to_stream().to("closed")

    def inputs(random: Random, partitions: int) -> Iterable[InputRecord]:
        return keyed_input(random, "clicks", partitions, lambda number, key: b"%d" % number, jitter_ms=9_000)

    def expected(fed: Inputs) -> Mapping[str, Expectation]:
        return {
            "counted": PerKey(by_key(per_partition(fed, "clicks", counted_by_window))),
            "closed": PerKey(by_key(per_partition(fed, "clicks", closed_windows))),
        }

    return Workload("windows", topology.build(), inputs, expected)


def counted_by_window(records: list[InputRecord]) -> Iterator[Output]:
    """The changes of the counts of a partition. A record that comes when its window's end and grace have passed, by
    stream time, is left out."""
    counts: Counter[bytes] = Counter()
    newest: dict[bytes, int] = {}
    stream_time = -1
    for record in records:
        stream_time = max(stream_time, record.timestamp)
        start = record.timestamp - record.timestamp % SIZE_MS
        if start + SIZE_MS + WINDOW_GRACE_MS <= stream_time:
            continue
        key = (record.key or b"") + start.to_bytes(8)
        counts[key] += 1
        newest[key] = max(record.timestamp, newest.get(key, 0))
        yield Output(key, serde.long().serialize(counts[key]), newest[key])


def closed_windows(records: list[InputRecord]) -> Iterator[Output]:
    """The last count of each window whose end and grace have passed."""
    stream_time = max((record.timestamp for record in records), default=-1)
    last = {change.key: change for change in counted_by_window(records)}
    for change in last.values():
        if int.from_bytes((change.key or b"")[-8:]) + SIZE_MS + WINDOW_GRACE_MS <= stream_time:
            yield change


WORKLOADS: Final = {"windows": windowed, "spells": _spells, "near": _near}
