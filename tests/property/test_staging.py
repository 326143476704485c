"""The staging overlay against a model: what is committed, what a commit under way holds, and what came after."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamstate import Serde, serde
from streamstate.rocksdb.backend import Memory, RocksBackend
from streamstate.state.backend import Backend, MemoryBackend
from streamstate.state.entry_format import decode
from streamstate.state.key_value import TypedStore, after_prefix
from streamstate.state.mutable_entries import MutableEntryStore
from streamstate.state.spec import StoreSpec
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import DecodedStore, EncodedStore, StagedStore
from streamstate.state.undo import UndoLog, rollback

STORE = "counts"
MEMORY = Memory(1 << 20, 1 << 20)

# Few keys, with all that is awkward: none at all, prefixes of one another, the last ones there are.
KEYS = st.sampled_from(
    [b"", b"\x00", b"a", b"a\x00", b"ab", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff", b"\xffa"]
)
BOUNDS = st.none() | KEYS
TIMES = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
DOCUMENTS = st.dictionaries(
    st.sampled_from("xyz"), st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=3), max_size=3
)


class StagingMachine(RuleBasedStateMachine):
    """Any order of reads, writes, commits, aborts and rolled-back records."""

    value: Serde[Any] = serde.long()
    values: st.SearchStrategy[Any] = NUMBERS
    kind: type[StagedStore] = DecodedStore
    cache_bytes = 500
    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp() if self.durable else None
        self.backend = self.open()
        self.undo: UndoLog = []
        self.committed: dict[bytes, tuple[Any, int]] = {}
        self.staged: dict[bytes, tuple[Any, int] | None] = {}
        self.sealed: dict[bytes, tuple[Any, int] | None] = {}
        self.writes: dict[bytes, bytes | None] | None = None
        self.positions: int | None = None
        self.make()

    def open(self) -> Backend:
        if self.directory is None:
            return MemoryBackend([STORE])
        return RocksBackend(Path(self.directory) / "db", [STORE], MEMORY)

    def make(self) -> None:
        spec = StoreSpec(STORE, serde.bytes_(), self.value)
        if self.kind is MutableEntryStore:
            self.store: StagedStore = MutableEntryStore(spec, self.backend, self.cache_bytes)
            # As a task does before its first record.
            self.store.forget()
        else:
            self.store = self.kind(spec, self.backend, self.cache_bytes, self.undo)

    def teardown(self) -> None:
        self.backend.close()
        if self.directory is not None:
            shutil.rmtree(self.directory)

    def model(self) -> dict[bytes, tuple[Any, int]]:
        merged: dict[bytes, tuple[Any, int] | None] = {**self.committed, **self.sealed, **self.staged}
        return {key: entry for key, entry in merged.items() if entry is not None}

    # -- a record ------------------------------------------------------------------------------------------

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        entry = self.model().get(key)
        assert self.store.get(key) == entry
        assert self.store.value(key) == (None if entry is None else entry[0])

    @rule(data=st.data(), key=KEYS, timestamp=TIMES)
    def put(self, data: st.DataObject, key: bytes, timestamp: int) -> None:
        value = data.draw(self.values)
        self.staged[key] = (copy.deepcopy(value), timestamp)
        self.store.put(key, value, timestamp)
        scribble(value)

    @rule(key=KEYS, timestamp=TIMES)
    def delete(self, key: bytes, timestamp: int) -> None:
        self.store.put(key, None, timestamp)
        self.staged[key] = None

    @precondition(lambda self: self.kind is MutableEntryStore)
    @rule(data=st.data(), key=KEYS, timestamp=TIMES)
    def write_the_slot(self, data: st.DataObject, key: bytes, timestamp: int) -> None:
        """As operators do that know the store."""
        store, value = self.store, data.draw(self.values)
        assert isinstance(store, MutableEntryStore)
        slot = store.young.get(key)
        if slot is None:
            slot = store.load(key)
        assert slot.entry() == self.model().get(key)
        if not slot.dirty:
            slot.dirty = True
            store.staged[key] = slot
        slot.value, slot.timestamp = value, timestamp
        self.staged[key] = (value, timestamp)

    @rule(key=KEYS)
    def change_what_was_returned(self, key: bytes) -> None:
        entry = self.store.get(key)
        if entry is not None:
            scribble(entry[0])

    @rule(start=BOUNDS, end=BOUNDS, reverse=st.booleans())
    def scan(self, start: bytes | None, end: bytes | None, reverse: bool) -> None:
        expected = sorted(
            (item for item in self.model().items() if within(item[0], start, end)), key=lambda item: item[0]
        )
        found = list(self.store.scan(start, end, reverse))
        assert found == (expected[::-1] if reverse else expected)
        for _, entry in found:
            scribble(entry[0])

    @rule(prefix=KEYS, reverse=st.booleans())
    def prefix_scan(self, prefix: bytes, reverse: bool) -> None:
        expected = sorted(key for key in self.model() if key.startswith(prefix))
        found = [key for key, _ in self.store.scan(prefix, after_prefix(prefix), reverse)]
        assert found == (expected[::-1] if reverse else expected)

    @rule(data=st.data(), writes=st.lists(st.tuples(KEYS, TIMES, st.booleans()), max_size=5), reverse=st.booleans())
    def write_while_scanning(self, data: st.DataObject, writes: list[tuple[bytes, int, bool]], reverse: bool) -> None:
        """An iterator shows the store as it was when it was made."""
        before = sorted(self.model(), reverse=reverse)
        entries = self.store.scan(None, None, reverse)
        seen = [next(entries)[0]] if before else []
        for key, timestamp, gone in writes:
            if gone:
                self.delete(key, timestamp)
            else:
                self.put(data, key, timestamp)
        assert seen + [key for key, _ in entries] == before

    @precondition(lambda self: self.kind is not MutableEntryStore)
    @rule(data=st.data(), writes=st.lists(st.tuples(KEYS, TIMES, st.booleans()), max_size=6))
    def a_record_that_fails(self, data: st.DataObject, writes: list[tuple[bytes, int, bool]]) -> None:
        self.undo.clear()
        before = dict(self.staged)
        for key, timestamp, gone in writes:
            if gone:
                self.delete(key, timestamp)
            else:
                self.put(data, key, timestamp)
        rollback(self.undo)
        self.staged = before

    # -- a transaction -------------------------------------------------------------------------------------

    @precondition(lambda self: self.writes is None)
    @rule()
    def begin_commit(self) -> None:
        writes = self.writes = self.store.seal()
        # Only the newest per key, one record for each key that changed, a tombstone for each that went.
        assert writes.keys() == self.staged.keys()
        for key, entry in self.staged.items():
            stored = writes[key]
            assert (stored is None) is (entry is None)
            if stored is not None and entry is not None:
                payload, timestamp = decode(stored, STORE)
                assert (self.value.deserialize(payload), timestamp) == entry
        self.sealed, self.staged = self.staged, {}
        assert self.store.staged_bytes == 0

    @precondition(lambda self: self.writes is not None)
    @rule()
    def end_commit(self) -> None:
        assert self.writes is not None
        before = self.model()
        self.positions = (self.positions or 0) + 1
        self.backend.apply({STORE: self.writes}, {STORE: self.positions}, {})
        self.store.committed()
        self.committed.update({key: entry for key, entry in self.sealed.items() if entry is not None})
        for key, entry in self.sealed.items():
            if entry is None:
                self.committed.pop(key, None)
        self.sealed, self.writes = {}, None
        assert self.store.sealed_bytes == 0
        assert self.model() == before

    @rule()
    def abort(self) -> None:
        """Also of a commit that was refused after everything was sealed."""
        self.store.discard()
        self.staged, self.sealed, self.writes = {}, {}, None
        assert self.store.staged_bytes == self.store.sealed_bytes == 0
        assert self.store.seal() == {}

    @rule(data=st.data(), records=st.lists(st.tuples(KEYS, TIMES, st.booleans()), max_size=5))
    def restore(self, data: st.DataObject, records: list[tuple[bytes, int, bool]]) -> None:
        """The backend goes on without the overlay, which is told afterwards."""
        self.abort()
        replay: dict[bytes, bytes | None] = {}
        for key, timestamp, gone in records:
            if gone:
                self.committed.pop(key, None)
                replay[key] = None
            else:
                value = data.draw(self.values)
                self.store.put(key, value, timestamp)
                replay[key] = self.store.seal()[key]
                self.store.discard()
                self.committed[key] = (copy.deepcopy(value), timestamp)
        self.positions = (self.positions or 0) + len(records)
        self.backend.restore(STORE, replay, self.positions)
        self.store.forget()

    @rule()
    def start_over(self) -> None:
        """A new overlay on what is there: only what was committed."""
        if self.directory is not None:
            self.backend.close()
            self.backend = self.open()
        self.staged, self.sealed, self.writes = {}, {}, None
        self.make()

    @rule()
    def clear(self) -> None:
        self.backend.clear(STORE)
        self.store.forget()
        self.committed, self.staged, self.sealed, self.writes, self.positions = {}, {}, {}, None, None

    @invariant()
    def backend_holds_what_is_committed(self) -> None:
        stored = {}
        for key, data in self.backend.scan(STORE, None, None, False):
            payload, timestamp = decode(data, STORE)
            stored[key] = (self.value.deserialize(payload), timestamp)
        assert stored == self.committed
        assert self.backend.positions() == ({} if self.positions is None else {STORE: self.positions})


def within(key: bytes, start: bytes | None, end: bytes | None) -> bool:
    return (start is None or key >= start) and (end is None or key < end)


def scribble(value: object) -> None:
    """Change it in place, deep down."""
    if isinstance(value, dict):
        for inner in value.values():
            scribble(inner)
        value["scribble"] = [1]
    elif isinstance(value, list):
        value.append("scribble")
    elif isinstance(value, bytearray):
        value += b"scribble"


def machine(name: str, examples: int, steps: int, **attributes: object) -> type:
    made = type(name, (StagingMachine,), attributes)
    case: type = made.TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None)  # type: ignore[attr-defined]
    return case


TestDecodedOnMemory = machine("DecodedOnMemory", 80, 40)
TestDecodedWithoutCache = machine("DecodedWithoutCache", 40, 40, cache_bytes=0)
TestDecodedOnRocks = machine("DecodedOnRocks", 15, 30, durable=True)
TestSlotsOnMemory = machine("SlotsOnMemory", 120, 50, kind=MutableEntryStore)
TestSlotsOfText = machine(
    "SlotsOfText", 40, 40, kind=MutableEntryStore, value=serde.string(), values=st.text(max_size=3)
)
TestSlotsWithLittleCache = machine("SlotsWithLittleCache", 80, 50, kind=MutableEntryStore, cache_bytes=1_100)
TestSlotsWithoutCache = machine("SlotsWithoutCache", 80, 50, kind=MutableEntryStore, cache_bytes=0)
TestSlotsOnRocks = machine("SlotsOnRocks", 15, 30, kind=MutableEntryStore, durable=True)
TestEncodedOnMemory = machine("EncodedOnMemory", 80, 40, kind=EncodedStore, value=serde.json(), values=DOCUMENTS)
TestEncodedWithoutCache = machine(
    "EncodedWithoutCache", 40, 40, kind=EncodedStore, value=serde.json(), values=DOCUMENTS, cache_bytes=0
)
TestEncodedOnRocks = machine(
    "EncodedOnRocks", 15, 30, kind=EncodedStore, value=serde.json(), values=DOCUMENTS, durable=True
)


# -- what the machine does not say ----------------------------------------------------------------------------


@pytest.fixture
def undo() -> UndoLog:
    return []


def test_values_that_can_change_in_place_are_kept_encoded() -> None:
    backend = MemoryBackend([STORE])
    assert isinstance(staged_store(StoreSpec(STORE, serde.string(), serde.long()), backend, 0), MutableEntryStore)
    assert isinstance(staged_store(StoreSpec(STORE, serde.string(), serde.json()), backend, 0), EncodedStore)
    # A value that cannot be encoded must fail its own record where a policy lets others go on.
    undone = staged_store(StoreSpec(STORE, serde.string(), serde.long()), backend, 0, [])
    assert isinstance(undone, EncodedStore)


def test_a_value_that_cannot_be_encoded_leaves_nothing(undo: UndoLog) -> None:
    store = staged_store(StoreSpec(STORE, serde.string(), serde.long()), MemoryBackend([STORE]), 0, undo)
    store.put(b"k", 1, 0)
    with pytest.raises(Exception, match="too large"):
        store.put(b"k", 2**63, 0)
    assert store.get(b"k") == (1, 0)
    rollback(undo)
    assert store.seal() == {}


VALUES: list[tuple[Serde[Any], Any]] = [
    (serde.bytes_(), bytearray(b"abc")),
    (serde.bytes_(), memoryview(bytearray(b"abc"))),
    (serde.float_(), 0.1),
    (serde.double(), 1),
    (serde.long(), True),
    (serde.json(), (1, 2)),
]


@pytest.mark.parametrize(("value_serde", "value"), VALUES, ids=lambda part: getattr(part, "name", type(part).__name__))
def test_a_value_reads_the_same_before_and_after_it_is_committed_and_restored(
    value_serde: Serde[Any], value: object
) -> None:
    """Else a result would depend on what was in the cache when a crash came."""
    backend = MemoryBackend([STORE])
    spec = StoreSpec(STORE, serde.bytes_(), value_serde)
    store = staged_store(spec, backend, 10_000)
    store.put(b"k", value, 7)
    staged = store.get(b"k")
    backend.apply({STORE: store.seal()}, {}, {})
    store.committed()
    cached = store.get(b"k")
    read = staged_store(spec, backend, 10_000).get(b"k")
    assert staged is not None
    assert cached is not None
    assert read is not None
    assert (staged, type(staged[0])) == (cached, type(cached[0])) == (read, type(read[0]))


def test_changing_a_bytearray_that_was_put_does_not_reach_the_store() -> None:
    store = staged_store(StoreSpec(STORE, serde.bytes_(), serde.bytes_()), MemoryBackend([STORE]), 10_000)
    value = bytearray(b"first")
    store.put(b"k", value, 0)
    value[:] = b"other"
    assert store.get(b"k") == (b"first", 0)


@given(sizes=st.lists(st.integers(0, 2_000), min_size=1, max_size=30), encoded=st.booleans())
def test_the_budget_counts_at_least_what_is_staged(sizes: list[int], encoded: bool) -> None:
    kind = EncodedStore if encoded else MutableEntryStore
    store = kind(StoreSpec(STORE, serde.bytes_(), serde.bytes_()), MemoryBackend([STORE]), 0)
    for number, size in enumerate(sizes):
        store.put(b"%d" % number, bytes(size), 0)
    assert store.staged_bytes >= sum(sizes)


@pytest.mark.parametrize("kind", [DecodedStore, EncodedStore, MutableEntryStore])
def test_the_cache_stays_bounded(kind: type[StagedStore]) -> None:
    backend = MemoryBackend([STORE])
    store = kind(StoreSpec(STORE, serde.bytes_(), serde.long()), backend, 10_000)
    for number in range(2_000):
        key = b"%d" % number
        store.get(key)
        store.put(key, number, 0)
        if number % 10 == 9:
            backend.apply({STORE: store.seal()}, {}, {})
            store.committed()
    assert len(store._young) + len(store._old) <= 2 * (10_000 // 200 + 10)
    assert store.get(b"3") == (3, 0)


class CountedReads(MemoryBackend):
    reads = 0

    def reader(self, store: str) -> Callable[[bytes], bytes | None]:
        read = super().reader(store)

        def counted(key: bytes) -> bytes | None:
            self.reads += 1
            return read(key)

        return counted


def slots(backend: MemoryBackend, cache_bytes: int) -> MutableEntryStore:
    store = MutableEntryStore(StoreSpec(STORE, serde.bytes_(), serde.long()), backend, cache_bytes)
    store.forget()
    return store


def add_one(store: StagedStore, key: bytes) -> None:
    entry = store.get(key)
    store.put(key, 1 if entry is None else entry[0] + 1, 0)


def test_a_store_that_is_in_memory_as_a_whole_is_not_looked_for_on_disk() -> None:
    backend = CountedReads([STORE])
    store = slots(backend, 1 << 20)
    for number in range(100):
        add_one(store, b"%d" % (number % 50))
    assert backend.reads == 0
    backend.apply({STORE: store.seal()}, {}, {})
    store.committed()
    # What was there before is on disk, until it has been read.
    again = slots(backend, 1 << 20)
    for number in range(100):
        assert (again.get(b"%d" % number) is None) is (number >= 50)
    assert backend.reads == 100


def test_a_store_that_was_in_memory_is_read_again_when_an_abort_took_some_of_it() -> None:
    backend = CountedReads([STORE])
    store = slots(backend, 1 << 20)
    add_one(store, b"k")
    backend.apply({STORE: store.seal()}, {}, {})
    store.committed()
    add_one(store, b"k")
    store.discard()
    assert store.get(b"k") == (1, 0)


def test_a_store_that_outgrows_its_cache_is_read_again() -> None:
    backend = CountedReads([STORE])
    store = slots(backend, 5_000)
    for number in range(100):
        add_one(store, b"%d" % number)
        backend.apply({STORE: store.seal()}, {}, {})
        store.committed()
    assert store.get(b"0") == (1, 0)
    assert backend.reads > 0


def typed(value: Serde[Any] | None = None, timestamp: int = 5) -> TypedStore:
    spec = StoreSpec(STORE, serde.string(), value or serde.long())
    return TypedStore(staged_store(spec, MemoryBackend([STORE]), 1_000), lambda: timestamp)


def test_the_typed_store() -> None:
    store = typed()
    store.put_all([("a", 1), ("ab", 2), ("b", 3), ("gone", 4), ("gone", None)])
    assert store.get("a") == 1
    assert store.get("gone") is None
    assert store.put_if_absent("a", 9) == 1
    assert store.put_if_absent("c", 4) is None
    assert store.delete("c") == 4
    assert store.delete("c") is None
    assert list(store.all()) == [("a", 1), ("ab", 2), ("b", 3)]
    assert list(store.all(reverse=True)) == [("b", 3), ("ab", 2), ("a", 1)]
    # Both ends are inclusive.
    assert list(store.range("a", "ab")) == [("a", 1), ("ab", 2)]
    assert list(store.range("ab", reverse=True)) == [("b", 3), ("ab", 2)]
    assert list(store.range(end="a")) == [("a", 1)]
    assert list(store.prefix_scan(b"a")) == [("a", 1), ("ab", 2)]
    assert list(store.prefix_scan(b"")) == list(store.all())


@pytest.mark.parametrize("call", ["get", "delete"])
def test_a_store_has_no_null_keys(call: str) -> None:
    with pytest.raises(ValueError, match="'counts' has no null keys"):
        getattr(typed(), call)(None)


def test_deleting_while_iterating_is_allowed() -> None:
    store = typed()
    store.put_all([("a", 1), ("b", 2), ("c", 3)])

    def drain() -> Iterator[str]:
        for key, _ in store.all():
            store.delete(key)
            yield key

    assert list(drain()) == ["a", "b", "c"]
    assert list(store.all()) == []
