"""What staging and cache say they hold is what they hold, and the cache keeps to its budget."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from streamstate import serde
from streamstate.state.backend import MemoryBackend
from streamstate.state.spec import StoreSpec
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import ENTRY_BYTES, StagedStore

STORE = "s"


def key(number: int) -> bytes:
    return b"key-%010d" % number


def make(cache_bytes: int, value: Any = None) -> tuple[StagedStore, MemoryBackend]:
    backend = MemoryBackend([STORE])
    return staged_store(StoreSpec(STORE, serde.string(), value or serde.long()), backend, cache_bytes), backend


def kept(store: StagedStore) -> set[bytes]:
    return {*store._young, *store._old}


def commit(store: StagedStore, backend: MemoryBackend) -> None:
    backend.apply({STORE: store.seal()}, {}, {})
    store.committed()


@pytest.mark.parametrize(
    ("value", "example"),
    [
        pytest.param(serde.long(), lambda number: number + 1_000, id="long"),
        pytest.param(serde.string(), lambda number: f"{number:040d}", id="string"),
        pytest.param(serde.json(), lambda number: {"count": number, "mean": number / 3}, id="json"),
    ],
)
def test_an_entry_costs_no_more_than_it_is_counted(value: Any, example: Callable[[int], Any]) -> None:
    store, _ = make(1 << 40, value)
    entries = 20_000
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(entries):
            store.put(key(number), example(number), 1_700_000_000_000 + number)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used <= store.staged_bytes
    # Nor so much less that the budget would be of little use.
    assert used >= store.staged_bytes / 2


def test_the_cache_keeps_to_its_budget() -> None:
    budget = 100_000
    store, backend = make(budget)
    most = 0
    for number in range(5_000):
        store.put(key(number), number, 0)
        commit(store, backend)
        most = max(most, len(kept(store)))
    room = budget // (ENTRY_BYTES + len(key(0)))
    assert room / 2 - 1 <= most <= room + 1
    for number in range(5_000):
        assert store.get(key(number)) == (number, 0)
        assert len(kept(store)) <= room + 1


def test_what_is_used_again_stays() -> None:
    store, backend = make(100_000)
    for number in range(5_000):
        store.put(key(number), number, 0)
        commit(store, backend)
        store.get(key(0))
    assert key(0) in kept(store)
    assert key(1) not in kept(store)


def test_without_a_budget_nothing_is_kept_for_long() -> None:
    store, backend = make(0)
    for number in range(10):
        store.put(key(number), number, 0)
    commit(store, backend)
    assert store._young == {}
    store.get(key(3))
    store.get(key(4))
    assert kept(store) <= {key(4)}
