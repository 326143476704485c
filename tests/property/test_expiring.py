"""Stores with a time to live against a dict of what was written when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import serde
from streamstate.state import expiring as module
from streamstate.state.expiring import ENTRY, WRITTEN, ExpiringStore
from streamstate.state.spec import StoreSpec
from streamstate.state.staging import StagedStore
from tests.property.kept import INTERRUPTIONS, Kept

TTL_MS = 160
KEYS = (b"", b"a", b"ab", b"\xff")
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["put", "put", "fail"]),
            st.sampled_from(KEYS),
            st.none() | st.integers(0, 9),
            st.integers(-240, 0),
        ),
        st.tuples(st.just("advance"), st.integers(1, 200) | st.integers(TTL_MS - 10, TTL_MS)),
        INTERRUPTIONS,
    ),
    max_size=40,
)
SPEC = StoreSpec("s", serde.bytes_(), serde.long(), ttl_ms=TTL_MS)

Written = dict[bytes, tuple[int, int]]


def as_it_is(staging: StagedStore, time: Callable[[], int]) -> ExpiringStore:
    assert isinstance(staging, ExpiringStore)
    return staging


def opened(undo: bool) -> Kept[ExpiringStore, Written]:
    kept: Kept[ExpiringStore, Written] = Kept(SPEC, as_it_is, {}, undo)
    kept.time = 400
    return kept


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("swept_per_commit", [1, 10_000])
@settings(max_examples=150)
@given(STEPS)
def test_what_lives_is_shown_and_nothing_else(undo: bool, swept_per_commit: int, steps: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SWEPT_PER_COMMIT", swept_per_commit)
        kept = opened(undo)
        for step in steps:
            match step:
                case (what,):
                    kept.interrupt(what)
                case ("put", key, value, behind):
                    kept.store.put(key, value, kept.time + behind)
                    kept.model.pop(key, None)
                    if value is not None:
                        kept.model[key] = (value, kept.time + behind)
                case ("fail", key, value, behind):
                    at = kept.time + behind
                    kept.fail(lambda store, key=key, value=value, at=at: store.put(key, value, at))  # type: ignore[misc]
                case ("advance", by):
                    kept.time += by
            live = {key: entry for key, entry in kept.model.items() if entry[1] + TTL_MS > kept.time}
            assert all(kept.store.get(key) == live.get(key) for key in KEYS)
            assert all(kept.store.value(key) == live.get(key, (None,))[0] for key in KEYS)
            assert list(kept.store.scan(None, None)) == sorted(live.items())
            assert list(kept.store.scan(b"a", b"b", reverse=True)) == sorted(
                ((key, entry) for key, entry in live.items() if b"a" <= key < b"b"), reverse=True
            )
        # What has expired goes, a few entries per commit, from the backend and from the changelog alike.
        kept.time += 2 * TTL_MS
        for _ in range(10):
            kept.interrupt("commit")
        assert list(kept.backend.scan("s", None, None, False)) == []
        assert kept.is_restored_alike()


def test_an_entry_that_changes_often_is_moved_seldom() -> None:
    kept = opened(undo=False)
    for time in range(1_600, 1_600 + TTL_MS):
        kept.time = time
        kept.store.put(b"k", time, time)
        kept.interrupt("commit")
    entries = [key for key, _ in kept.backend.scan("s", None, None, False)]
    assert [key[:1] for key in entries] == [WRITTEN, ENTRY]
    kept.store.put(b"k", 0, kept.time)
    assert list(kept.store.seal()) == [ENTRY + b"k"]


def test_what_came_and_went_between_two_commits_leaves_no_trace() -> None:
    kept = opened(undo=False)
    kept.store.put(b"k", 1, kept.time)
    kept.time += 10 * TTL_MS
    kept.store.put(b"l", 1, kept.time)
    kept.store.expire()
    assert [key[:1] + key[-1:] for key in kept.store.seal()] == [WRITTEN + b"l", ENTRY + b"l"]


def test_a_record_that_was_held_back_writes_into_a_stretch_that_was_swept() -> None:
    kept = opened(undo=False)
    kept.time = 1_000
    kept.store.put(b"k", 1, 1_000)
    kept.interrupt("commit")
    # It has the stream time of when it came.
    kept.time = 800
    kept.store.put(b"late", 1, 800)
    kept.time = 1_000
    kept.interrupt("commit")
    kept.time = 5_000
    kept.interrupt("commit")
    kept.interrupt("commit")
    assert list(kept.backend.scan("s", None, None, False)) == []
