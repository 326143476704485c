"""Versioned stores against a list of everything that was ever put."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import Topology, serde, stores
from streamstate.state.backend import MemoryBackend
from streamstate.state.staged_stores import staged_store
from streamstate.state.versioned import Versions
from streamstate.state.window_index import NO_TIME
from streamstate.testing.driver.driver import TopologyTestDriver

HISTORY_MS = 8
TIMES = st.integers(0, 30)
PUTS = st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 9), st.integers(-15, 30)), max_size=30)
# After which puts: commit, drop what is uncommitted, or open the store anew.
STEPS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["commit", "discard", "reopen"])), max_size=6)

Put = tuple[str, Any, int]


class Everything:
    """What a versioned store should be."""

    def __init__(self) -> None:
        self.of: dict[str, dict[int, Any]] = {"a": {}, "b": {}}
        self.observed = NO_TIME

    def put(self, key: str, value: Any, timestamp: int) -> bool | None:
        self.observed = max(self.observed, timestamp)
        if timestamp < self.observed - HISTORY_MS:
            return None
        self.of[key][timestamp] = value
        return timestamp == max(self.of[key])

    def at(self, key: str, time: int | None) -> tuple[Any, int] | None:
        versions = self.of[key]
        past = [since for since in versions if time is None or since <= time]
        if not past:
            return None
        since = max(past)
        if time is not None and since != max(versions) and time < self.observed - HISTORY_MS:
            return None
        return None if versions[since] is None else (versions[since], since)

    def copy(self) -> Everything:
        copied = Everything()
        copied.of = {key: dict(versions) for key, versions in self.of.items()}
        copied.observed = self.observed
        return copied


SPEC = stores.versioned("s", key=serde.string(), value=serde.bytes_(), history=timedelta(milliseconds=HISTORY_MS))


def encoded(value: Any) -> bytes | None:
    return None if value is None else b"%d" % value


@pytest.mark.parametrize("undo", [False, True])
@settings(max_examples=200)
@given(PUTS, STEPS)
def test_every_version_within_the_history_is_found(undo: bool, puts: list[Put], steps: list[tuple[int, str]]) -> None:
    # Short segments, so that expiry has something to do within so short a history.
    assert SPEC.segments is not None
    spec = replace(SPEC, segments=replace(SPEC.segments, length_ms=3))
    backend = MemoryBackend(["s"])
    log: Any = [] if undo else None
    staging = staged_store(spec, backend, 1_000, log)
    versions, truth, committed = Versions(staging), Everything(), Everything()
    for number, (key, value, timestamp) in enumerate(puts):
        for at, step in steps:
            if at != number:
                continue
            if step == "commit":
                if staging.staged:
                    staging.expire()
                    sealed = staging.seal()
                    assert staging.segments is not None
                    bound = {"s": staging.segments.bound} if staging.segments.bound else {}
                    backend.apply({"s": sealed}, {}, {}, bound)
                staging.committed()
                committed = truth.copy()
            else:
                if step == "discard":
                    staging.discard()
                else:
                    staging = staged_store(spec, backend, 1_000, log)
                    versions = Versions(staging)
                truth = committed.copy()
        assert versions.put(key.encode(), encoded(value), timestamp) == truth.put(key, value, timestamp)
        for looked_up in "ab":
            for time in (*range(-16, 32), None):
                found = truth.at(looked_up, time)
                wanted = None if found is None else (encoded(found[0]), found[1])
                if time is None:
                    assert versions.newest(looked_up.encode()) == wanted
                else:
                    assert versions.at(looked_up.encode(), time) == wanted, (looked_up, time)
    if staging.staged:
        staging.expire()
        staging.seal()


TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()
RECORDS = st.lists(st.tuples(st.sampled_from("st"), st.sampled_from("ab"), st.integers(0, 9), TIMES), max_size=25)
CRASHES = st.lists(st.integers(0, 25), max_size=2)


@pytest.mark.parametrize("grace_ms", [None, 0, 5])
@settings(max_examples=40)
@given(RECORDS, CRASHES)
def test_a_join_as_of_a_time_finds_the_row_of_that_time(
    grace_ms: int | None, records: list[tuple[str, str, int, int]], crashes: list[int]
) -> None:
    topology = Topology("t")
    table = topology.table("t", key=TEXT, value=LONG, versioned=timedelta(milliseconds=HISTORY_MS))
    rows = table.map_values(lambda value: value * 10).filter(lambda key, value: value != 30)
    stream = topology.stream("s", key=TEXT, value=LONG)
    grace = None if grace_ms is None else timedelta(milliseconds=grace_ms)
    tolerance = timedelta(milliseconds=6)
    joined = stream.left_join(rows, lambda one, other: [one, other], grace=grace, tolerance=tolerance)
    joined.to("out", value=JSON)
    truth, waiting, observed = Everything(), [], -1  # type: ignore[var-annotated]
    expected: list[tuple[str, Any, int]] = []

    def join(key: str, value: int, time: int) -> None:
        found = truth.at(key, time)
        row = None if found is None or time - found[1] > 6 or found[0] == 3 else found[0] * 10
        expected.append((key, [value, row], time))

    with TopologyTestDriver(topology) as driver:
        for number, (topic, key, value, time) in enumerate(records):
            if number in crashes:
                driver.crash(disk="lost" if number % 2 else "kept")
            driver.input(topic).pipe(key, value, timestamp=time)
            if topic == "t":
                truth.put(key, value, time)
                continue
            observed = max(observed, time)
            if grace_ms is None or time < observed - grace_ms:
                join(key, value, time)
            else:
                waiting.append((time, number, key, value))
            for item in sorted(waiting):
                if grace_ms is not None and item[0] <= observed - grace_ms:
                    waiting.remove(item)
                    join(item[2], item[3], item[0])
        assert [(r.key, r.value, r.timestamp) for r in driver.output("out").read_all()] == expected
