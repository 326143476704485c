"""Window stores and session stores against a dict of what was put."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import TopologyError, Windowed, serde, stores
from streamstate.state.spec import StoreSpec
from streamstate.state.typed_stores import typed_store
from streamstate.state.window_index import NO_TIME
from tests.property.kept import INTERRUPTIONS, Kept

RETENTION_MS = 12
KEYS = ("", "a", "ab", "b")
KEY = st.sampled_from(KEYS)
# Also before 1970: what a store takes it shows.
TIME = st.integers(-40, 60)
VALUE = st.none() | st.integers(0, 9)
OPEN = st.none() | TIME

MS = timedelta(milliseconds=1)
WINDOWS = stores.window("s", key=serde.string(), value=serde.long(), size=5 * MS, retention=RETENTION_MS * MS)
SESSIONS = stores.session("s", key=serde.string(), value=serde.long(), retention=RETENTION_MS * MS)

Put = tuple[str, int, int]


def short_segments(spec: StoreSpec) -> StoreSpec:
    """So that expiry has something to do within so short a retention."""
    assert spec.segments is not None
    return replace(spec, segments=replace(spec.segments, length_ms=4))


class Everything:
    """What was put, by (key, start, end), and the greatest time."""

    def __init__(self) -> None:
        self.of: dict[Put, int] = {}
        self.time = NO_TIME

    def put(self, key: str, start: int, end: int, at: int, value: int | None) -> bool:
        self.time = max(self.time, at)
        if at <= self.time - RETENTION_MS:
            return False
        self.of.pop((key, start, end), None)
        if value is not None:
            self.of[key, start, end] = value
        return True

    def live(self, at: int) -> dict[Put, int]:
        """``at``: which of the three says whether it has expired."""
        return {put: value for put, value in self.of.items() if put[at] > self.time - RETENTION_MS}


@pytest.mark.parametrize("undo", [False, True])
@settings(max_examples=150)
@given(st.lists(st.tuples(KEY, VALUE, TIME, st.booleans()) | INTERRUPTIONS, max_size=40), OPEN, OPEN)
def test_a_window_store_has_what_was_put_and_is_retained(
    undo: bool, steps: list[tuple[Any, ...]], first: int | None, last: int | None
) -> None:
    kept: Kept[Any, Everything] = Kept(short_segments(WINDOWS), typed_store, Everything(), undo)
    for step in steps:
        match step:
            case (what,):
                kept.interrupt(what)
            case (key, value, time, False):
                assert kept.store.put(key, value, time) == kept.model.put(key, time, time + 5, time, value)
            case (key, value, time, True):
                kept.fail(lambda store, key=key, value=value, time=time: store.put(key, value, time))  # type: ignore[misc]
        live = kept.model.live(1)
        for key in KEYS:
            mine = sorted((start, value) for (other, start, _), value in live.items() if other == key)
            assert list(kept.store.fetch(key)) == mine
            within = [
                (start, value)
                for start, value in mine
                if (first is None or start >= first) and (last is None or start <= last)
            ]
            assert list(kept.store.fetch(key, first, last)) == within
            assert list(kept.store.fetch(key, first, last, reverse=True)) == within[::-1]
            assert [kept.store.get(key, time) for time in range(61)] == [dict(mine).get(time) for time in range(61)]
        found = [(tuple(windowed), value) for windowed, value in kept.store.fetch_all()]
        assert sorted(found) == sorted(live.items())
        assert [put for put, _ in found] == sorted((put for put in live), key=lambda p: (p[1] // 4, len(p[0]), p))
        assert sorted(tuple(windowed) for windowed, _ in kept.store.fetch_all(first, last)) == sorted(
            put for put in live if (first is None or put[1] >= first) and (last is None or put[1] <= last)
        )
    kept.store.put("end", 1, 500)
    kept.interrupt("commit")
    kept.store.put("end", 1, 501)
    assert kept.is_restored_alike()
    assert len(list(kept.backend.scan("s", None, None, False))) == 3


@pytest.mark.parametrize("undo", [False, True])
@settings(max_examples=150)
@given(st.lists(st.tuples(KEY, VALUE, TIME, st.integers(0, 9), st.booleans()) | INTERRUPTIONS, max_size=40), OPEN, OPEN)
def test_a_session_store_has_what_was_put_and_is_retained(
    undo: bool, steps: list[tuple[Any, ...]], earliest_end: int | None, latest_start: int | None
) -> None:
    kept: Kept[Any, Everything] = Kept(short_segments(SESSIONS), typed_store, Everything(), undo)
    for step in steps:
        match step:
            case (what,):
                kept.interrupt(what)
            case (key, value, start, length, False):
                end = start + length
                assert kept.store.put(key, start, end, value) == kept.model.put(key, start, end, end, value)
            case (key, value, start, length, True):
                kept.fail(
                    lambda store, key=key, value=value, start=start, length=length: store.put(  # type: ignore[misc]
                        key, start, start + length, value
                    )
                )
        live = kept.model.live(2)
        for key in KEYS:
            mine = sorted((end, start, value) for (other, start, end), value in live.items() if other == key)
            assert list(kept.store.fetch(key)) == [(Windowed(key, start, end), value) for end, start, value in mine]
            assert list(kept.store.fetch(key, earliest_end, latest_start)) == [
                (Windowed(key, start, end), value)
                for end, start, value in mine
                if (earliest_end is None or end >= earliest_end) and (latest_start is None or start <= latest_start)
            ]
        assert all(kept.store.get(*put) == live.get(put) for put in kept.model.of)
        assert sorted((tuple(windowed), value) for windowed, value in kept.store.fetch_all()) == sorted(live.items())
    for put in list(kept.model.live(2)):
        kept.store.remove(*put)
        kept.store.remove(*put)
    assert list(kept.store.fetch_all()) == []
    assert kept.is_restored_alike()


def test_a_session_ends_after_it_starts() -> None:
    kept: Kept[Any, None] = Kept(SESSIONS, typed_store, None, False)
    with pytest.raises(ValueError, match="a session from 5 ends before that, at 4"):
        kept.store.put("k", 5, 4, 1)


def test_a_value_that_cannot_be_encoded_leaves_nothing() -> None:
    kept: Kept[Any, None] = Kept(WINDOWS, typed_store, None, False)
    with pytest.raises(Exception, match="too large"):
        kept.store.put("k", 1 << 63, 5)
    assert list(kept.store.fetch("k")) == []
    assert list(kept.store.fetch_all()) == []


@pytest.mark.parametrize("bad", [timedelta(0), 5, timedelta(microseconds=999)])
def test_durations_that_cannot_be(bad: Any) -> None:
    with pytest.raises(TopologyError, match="the retention of store 's'"):
        stores.session("s", key=serde.string(), value=serde.long(), retention=bad)
    with pytest.raises(TopologyError, match="the size of store 's'"):
        stores.window("s", key=serde.string(), value=serde.long(), size=bad, retention=MS)
    with pytest.raises(TopologyError, match="shorter than a window"):
        stores.window("s", key=serde.string(), value=serde.long(), size=2 * MS, retention=MS)
