"""Stores with a time to live against a dict of what was written when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import serde
from streamstate.state import ExpiringStore, MemoryBackend, rollback, staged_store
from streamstate.state import expiring as module
from streamstate.state.expiring import ENTRY, WRITTEN
from streamstate.store_spec import StoreSpec

TTL_MS = 40
KEYS = st.sampled_from([b"", b"a", b"ab", b"\xff"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put", "fail"]), KEYS, st.none() | st.integers(0, 9), st.integers(-60, 0)),
        st.tuples(st.just("advance"), st.integers(1, 50)),
        st.tuples(st.sampled_from(["commit", "discard", "reopen"])),
    ),
    max_size=40,
)
SPEC = StoreSpec("s", serde.bytes_(), serde.long(), ttl_ms=TTL_MS)


class Opened:
    """The store over its backend, with what its changelog would hold."""

    def __init__(self, undo: bool) -> None:
        self.backend = MemoryBackend(["s"])
        self.log: Any = [] if undo else None
        self.time = 100
        self.changelog: dict[bytes, bytes] = {}
        self.reopen()

    def reopen(self) -> None:
        made = staged_store(SPEC, self.backend, 1_000, self.log, lambda: self.time)
        assert isinstance(made, ExpiringStore)
        self.store = made

    def commit(self) -> None:
        if not self.store.changed:
            return
        self.store.expire()
        sealed = self.store.seal()
        self.backend.apply({"s": sealed}, {}, {})
        self.store.committed()
        for key, stored in sealed.items():
            if stored is None:
                self.changelog.pop(key, None)
            else:
                self.changelog[key] = stored


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("swept_per_commit", [1, 10_000])
@settings(max_examples=150)
@given(STEPS)
def test_what_lives_is_shown_and_nothing_else(undo: bool, swept_per_commit: int, steps: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SWEPT_PER_COMMIT", swept_per_commit)
        opened = Opened(undo)
        written: dict[bytes, tuple[int, int]] = {}
        committed: dict[bytes, tuple[int, int]] = {}
        for step in steps:
            match step:
                case ("put", key, value, behind):
                    opened.store.put(key, value, opened.time + behind)
                    written.pop(key, None)
                    if value is not None:
                        written[key] = (value, opened.time + behind)
                case ("advance", by):
                    opened.time += by
                case ("commit",):
                    opened.commit()
                    committed = written.copy()
                case ("fail", key, value, behind) if undo:
                    opened.log.clear()
                    opened.store.put(key, value, opened.time + behind)
                    rollback(opened.log)
                case ("discard",):
                    opened.store.discard()
                    written = committed.copy()
                case ("reopen",):
                    opened.reopen()
                    written = committed.copy()
            live = {key: entry for key, entry in written.items() if entry[1] + TTL_MS > opened.time}
            for key in (b"", b"a", b"ab", b"\xff"):
                assert opened.store.get(key) == live.get(key)
            assert list(opened.store.scan(None, None)) == sorted(live.items())
            assert list(opened.store.scan(b"a", b"b", reverse=True)) == sorted(
                ((key, entry) for key, entry in live.items() if b"a" <= key < b"b"), reverse=True
            )
        # What has expired goes, a few entries per commit, from the backend and from the changelog alike.
        opened.time += 2 * TTL_MS
        for _ in range(10):
            opened.commit()
        assert list(opened.backend.scan("s", None, None, False)) == []
        assert opened.changelog == {}


def test_an_entry_that_changes_often_is_moved_seldom() -> None:
    opened = Opened(undo=False)
    for time in range(1_600, 1_600 + TTL_MS):
        opened.time = time
        opened.store.put(b"k", time, time)
        opened.commit()
    entries = [key for key, _ in opened.backend.scan("s", None, None, False)]
    assert [key[:1] for key in entries] == [WRITTEN, ENTRY]
    opened.store.put(b"k", 0, opened.time)
    assert list(opened.store.seal()) == [ENTRY + b"k"]


def test_what_came_and_went_between_two_commits_leaves_no_trace() -> None:
    opened = Opened(undo=False)
    opened.store.put(b"k", 1, opened.time)
    opened.time += 10 * TTL_MS
    opened.store.put(b"l", 1, opened.time)
    opened.store.expire()
    assert [key[:1] + key[-1:] for key in opened.store.seal()] == [WRITTEN + b"l", ENTRY + b"l"]
