"""The staging overlay: what a task has written since its last commit, over a cache, over the backend.

Rule of this module: uncommitted entries can be dropped at any moment as if they had never been. Reads look in
``staged``, then among the sealed entries of the commit under way, then in a cache of committed entries, then in the
backend. Only the newest entry per key is kept, so the changelog gets one record per changed key and commit.

An entry is ``(value, timestamp_ms)``; None stands for a deleted or absent key, and for one whose value decodes to
None. Two stores differ in what ``value`` is: ``DecodedStore`` keeps Python objects (only of serdes whose values cannot
change in place), ``EncodedStore`` keeps bytes, so that a user who changes a dict cannot reach the store, nor an aborted
write survive in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from streamstate.state.backend import Backend
from streamstate.state.entry_format import HEADER_BYTES, VERSION, decode, pack_header, unpack_header
from streamstate.state.spec import StoreSpec
from streamstate.state.undo import MISSING, Entry, UndoLog
from streamstate.state.window_index import WindowIndex
from streamstate.windows.keys import INDEX_MARK, TIME_KEY

# What one entry costs beside its key and value: dict slot, tuple, objects; measured, and rounded up.
ENTRY_BYTES: Final = 240
# Behind every key of a windowed store that begins with a time.
BEHIND_TIMES: Final = b"\xfe"


class StagedStore:
    """Common part of the two overlays.

    Attributes:
        spec: the store's description.
        staged: entries of no commit yet, by serialized key; the same dict object for the store's life.
        staged_bytes: estimate of the memory that ``staged`` holds.
        sealed_bytes: the same of the entries of the commit under way.
        cache_bytes: budget of the cache of committed entries; may be changed at any time.
        segments: what a windowed store has besides; None for all others.
    """

    __slots__ = (
        "_backend",
        "_gone_below",
        "_known_from",
        "_old",
        "_read",
        "_sealed",
        "_young",
        "_young_bytes",
        "cache_bytes",
        "sealed_bytes",
        "segments",
        "spec",
        "staged",
        "staged_bytes",
        "undo",
    )  # fmt: skip

    def __init__(self, spec: StoreSpec, backend: Backend, cache_bytes: int, undo: UndoLog | None = None) -> None:
        self.spec = spec
        self.staged: dict[bytes, Any] = {}
        self.staged_bytes = 0
        self.sealed_bytes = 0
        self.undo = undo
        self._sealed: dict[bytes, Any] = {}
        self._backend = backend
        self._read: Callable[[bytes], bytes | None] = backend.reader(spec.name)
        self.cache_bytes = cache_bytes
        self._young: dict[bytes, Any] = {}
        self._old: dict[bytes, Any] = {}
        self._young_bytes = 0
        # Of a windowed store: entries behind this are in memory, or nowhere. None: not known.
        self._known_from: bytes | None = None
        self._gone_below = b""
        self.segments: WindowIndex | None = None
        if spec.segments is not None:
            self.segments = WindowIndex(spec.segments, self.staged, self._scan_backend, self._prime, undo)
            self._reload()

    # -- entries; overridden -------------------------------------------------------------------------------

    def get(self, key: bytes) -> Entry | None:
        """The newest entry of ``key``, its value decoded."""
        raise AssertionError("abstract")

    def value(self, key: bytes) -> Any:
        """The value alone, for who has no use for its timestamp; None where there is no entry."""
        entry = self.get(key)
        return None if entry is None else entry[0]

    def put(self, key: bytes, value: Any, timestamp: int) -> None:
        """Stage an entry; a None value deletes."""
        raise AssertionError("abstract")

    def _from_stored(self, stored: bytes) -> Any:
        """The internal entry; None where the value decodes to None, unless it is kept encoded."""
        raise AssertionError("abstract")

    def _to_entry(self, internal: Any) -> Entry | None:
        """The entry of an internal one, which may be None; None where its value is, or decodes to None."""
        raise AssertionError("abstract")

    # -- reading -------------------------------------------------------------------------------------------

    def load(self, key: bytes) -> Any:
        """The internal entry of ``key`` below ``staged``: sealed, from the cache or from the backend."""
        if self._sealed:
            entry = self._sealed.get(key, MISSING)
            if entry is not MISSING:
                return entry
        if key < self._gone_below:
            return None
        entry = self._young.get(key, MISSING)
        if entry is not MISSING:
            return entry
        entry = self._old.get(key, MISSING)
        if entry is MISSING:
            if self._known_from is not None and self._known_from < key < BEHIND_TIMES:
                return None
            stored = self._read(key)
            entry = None if stored is None else self._from_stored(stored)
            self._young_bytes += 0 if stored is None else len(stored)
        self._young[key] = entry
        self._young_bytes += ENTRY_BYTES + len(key)
        if 2 * self._young_bytes > self.cache_bytes:
            self._age()
        return entry

    def _scan_backend(self, start: bytes | None, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        return self._backend.scan(self.spec.name, start, end, False)

    def _prime(self, key: bytes, stored: bytes) -> None:
        if key not in self._young:
            self._young[key] = self._from_stored(stored)
            self._young_bytes += ENTRY_BYTES + len(key) + len(stored)

    def _age(self) -> None:
        # Two generations instead of a linked list: what was used since the last ageing survives the next one. Each
        # may have half of the budget.
        if self._known_from is not None:
            gone = max((key for key, entry in self._old.items() if entry is not None), default=b"")
            self._known_from = max(self._known_from, gone)
        self._old, self._young, self._young_bytes = self._young, {}, 0

    def scan(self, start: bytes | None, end: bytes | None, reverse: bool = False) -> Iterator[tuple[bytes, Entry]]:
        """Entries with ``start <= key < end`` as they are now, merged from staging and backend."""
        if self.segments is not None and end is None:
            end = TIME_KEY
        uncommitted = {**self._sealed, **self.staged} if self._sealed else self.staged
        staged = sorted(
            (
                item
                for item in uncommitted.items()
                if (start is None or item[0] >= start) and (end is None or item[0] < end)
            ),
            key=lambda item: item[0],
            reverse=reverse,
        )
        stored = self._backend.scan(self.spec.name, start, end, reverse)
        if self.spec.segments is not None and self.spec.segments.indexed:
            stored = (entry for entry in stored if entry[0][8:12] != INDEX_MARK)
        return self._merge(staged, stored, reverse)

    def between(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, Entry]]:
        """As ``scan``, of a windowed store whose operator notes every key that it creates: it need not look at all
        that is staged."""
        assert self.segments is not None, "read by time without segments"
        noted = self.segments.noted_between(start, end)
        noted.reverse()
        uncommitted = self._uncommitted
        for key, stored in self._scan_backend(start, end):
            while noted and noted[-1] < key:
                created = noted.pop()
                internal = uncommitted(created)
                if internal is not MISSING:
                    entry = self._to_entry(internal)
                    if entry is not None:
                        yield created, entry
            if noted and noted[-1] == key:
                noted.pop()
            # What the backend has may be overwritten or deleted without being noted.
            internal = uncommitted(key)
            entry = self._to_entry(self._from_stored(stored) if internal is MISSING else internal)
            if entry is not None:
                yield key, entry
        for created in reversed(noted):
            internal = uncommitted(created)
            if internal is not MISSING:
                entry = self._to_entry(internal)
                if entry is not None:
                    yield created, entry

    def _uncommitted(self, key: bytes) -> Any:
        """The internal entry that is staged or sealed; MISSING when there is none."""
        internal = self.staged.get(key, MISSING)
        return self._sealed.get(key, MISSING) if internal is MISSING else internal

    def _merge(
        self, staged: list[tuple[bytes, Any]], stored: Iterator[tuple[bytes, bytes]], reverse: bool
    ) -> Iterator[tuple[bytes, Entry]]:
        below = next(stored, None)
        for key, internal in staged:
            while below is not None and (below[0] > key if reverse else below[0] < key):
                entry = self._to_entry(self._from_stored(below[1]))
                if entry is not None:
                    yield below[0], entry
                below = next(stored, None)
            if below is not None and below[0] == key:
                below = next(stored, None)
            entry = self._to_entry(internal)
            if entry is not None:
                yield key, entry
        while below is not None:
            entry = self._to_entry(self._from_stored(below[1]))
            if entry is not None:
                yield below[0], entry
            below = next(stored, None)

    def keys_between(self, start: bytes, end: bytes, most: int) -> list[bytes]:
        """The first ``most`` keys with ``start <= key < end``, in order, of a store as in ``between``."""
        return [key for key, _ in islice(self.between(start, end), most)]

    # -- the life of a transaction -------------------------------------------------------------------------

    def _encoded(self) -> dict[bytes, bytes | None]:
        raise AssertionError("abstract")

    @property
    def changed(self) -> bool:
        """True when a commit has something to write."""
        return bool(self.staged) or (self.segments is not None and self.segments.changed)

    def expire(self) -> None:
        """Before ``seal``: stage tombstones for what has expired."""
        if self.segments is not None:
            self.segments.expire()

    def seal(self) -> dict[bytes, bytes | None]:
        """What the transaction writes: stored bytes per changed key, None for a tombstone. What is staged from here on
        belongs to the next one."""
        assert not self._sealed, "sealed while another commit is under way"
        writes = self._encoded()
        if self.segments is not None:
            self.segments.seal(writes)
        # A copy: operators hold on to ``staged`` itself.
        self._sealed = dict(self.staged)
        self.sealed_bytes = self.staged_bytes
        self.staged.clear()
        self.staged_bytes = 0
        return writes

    def committed(self) -> None:
        """The transaction that was sealed is committed and its writes are in the backend."""
        if self.segments is not None:
            # What has expired leaves the cache when it ages.
            self._gone_below = self.segments.committed(self.cache_bytes)
        self._young.update(self._sealed)
        self._young_bytes += self.sealed_bytes
        self._sealed = {}
        self.sealed_bytes = 0
        if 2 * self._young_bytes > self.cache_bytes:
            self._age()

    def outdated(self, keys: Iterable[bytes]) -> None:
        """The backend was changed under these keys: read them anew."""
        for key in keys:
            self._young.pop(key, None)
            self._old.pop(key, None)
        self._known_from = None

    def discard(self) -> None:
        """Drop every uncommitted write, sealed ones included."""
        self.staged.clear()
        self._sealed = {}
        self.staged_bytes = self.sealed_bytes = 0
        if self.segments is not None:
            self._reload()

    def _reload(self) -> None:
        assert self.segments is not None, "nothing to load"
        last = next(self._backend.scan(self.spec.name, None, BEHIND_TIMES, True), None)
        newest = b"" if last is None else last[0]
        # What is cached is committed, and stays.
        self._known_from = newest
        self._gone_below = b""
        self.segments.load(self._read(TIME_KEY), newest)

    def forget(self) -> None:
        """Drop the cache too: the backend was changed by a restore."""
        self._read = self._backend.reader(self.spec.name)
        self._young, self._old, self._young_bytes = {}, {}, 0
        self.discard()


class DecodedStore(StagedStore):
    """Keeps decoded values; for serdes whose values cannot change in place.

    Attributes:
        plain_kind: a type of values that read back as they were put and take no memory worth counting, for operators
            that write ``staged`` themselves; None while none was seen.
    """

    __slots__ = ("_deserialize", "_kind", "_serialize", "plain_kind")

    def __init__(self, spec: StoreSpec, backend: Backend, cache_bytes: int, undo: UndoLog | None = None) -> None:
        super().__init__(spec, backend, cache_bytes, undo)
        self._serialize = spec.value.serialize
        self._deserialize = spec.value.deserialize
        self._kind: type | None = None
        self.plain_kind: type | None = None

    def get(self, key: bytes) -> Entry | None:
        entry = self.staged.get(key, MISSING)
        if entry is MISSING:
            entry = self.load(key)
        return entry  # type: ignore[no-any-return]

    def put(self, key: bytes, value: Any, timestamp: int) -> None:
        if type(value) is not self._kind and value is not None:
            value = self._as_read(value)
        staged = self.staged
        if self.undo is not None:
            self.undo.append((staged, key, staged.get(key, MISSING)))
        size = len(value) if type(value) is str or type(value) is bytes else 0
        if size or key not in staged:
            self.staged_bytes += ENTRY_BYTES + len(key) + size
        staged[key] = None if value is None else (value, timestamp)

    def _as_read(self, value: Any) -> Any:
        """What reading the value back would give. A bytearray for bytes could change in place, a whole number for a
        double would show as one until it left the cache; what a crash leaves must read as what it interrupted."""
        try:
            read = self._deserialize(self._serialize(value))
        except Exception as error:
            raise self.spec.value.refusal(value, error) from error
        if type(read) is type(value):
            self._kind = type(value)
            self.plain_kind = None if self._kind in (str, bytes) else self._kind
        return read

    def _encoded(self) -> dict[bytes, bytes | None]:
        serialize = self._serialize
        return {
            key: None if entry is None else pack_header(VERSION, entry[1]) + serialize(entry[0])
            for key, entry in self.staged.items()
        }

    def _from_stored(self, stored: bytes) -> Any:
        payload, timestamp = decode(stored, self.spec.name)
        value = self._deserialize(payload)
        return None if value is None else (value, timestamp)

    def _to_entry(self, internal: Any) -> Entry | None:
        return internal  # type: ignore[no-any-return]


class EncodedStore(StagedStore):
    """Keeps stored bytes and decodes at each read."""

    __slots__ = ("_deserialize", "_serialize")

    def __init__(self, spec: StoreSpec, backend: Backend, cache_bytes: int, undo: UndoLog | None = None) -> None:
        super().__init__(spec, backend, cache_bytes, undo)
        self._serialize = spec.value.serialize
        self._deserialize = spec.value.deserialize

    def get(self, key: bytes) -> Entry | None:
        stored = self.staged.get(key, MISSING)
        if stored is MISSING:
            stored = self.load(key)
        return self._to_entry(stored)

    def value(self, key: bytes) -> Any:
        stored = self.staged.get(key, MISSING)
        if stored is MISSING:
            stored = self.load(key)
        return None if stored is None else self._deserialize(stored[HEADER_BYTES:])

    def put(self, key: bytes, value: Any, timestamp: int) -> None:
        try:
            stored = None if value is None else pack_header(VERSION, timestamp) + self._serialize(value)
        except Exception as error:
            raise self.spec.value.refusal(value, error) from error
        staged = self.staged
        if self.undo is not None:
            self.undo.append((staged, key, staged.get(key, MISSING)))
        # Overwrites are counted too: over budget commits early, which is the safe side.
        self.staged_bytes += ENTRY_BYTES + len(key) + (0 if stored is None else len(stored))
        staged[key] = stored

    def _encoded(self) -> dict[bytes, bytes | None]:
        return dict(self.staged)

    def _from_stored(self, stored: bytes) -> Any:
        decode(stored, self.spec.name)
        return stored

    def _to_entry(self, internal: Any) -> Entry | None:
        if internal is None:
            return None
        value = self._deserialize(internal[HEADER_BYTES:])
        return None if value is None else (value, unpack_header(internal)[1])
