"""The overlay of stores whose entries are read and written back record by record, such as counts.

Rule of this module: one object per key, changed in place. What a record costs there is mostly memory that is not in the
processor's caches; an entry that is found is found with its place for the new value, and is staged once per commit, not
once per record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any, Final, final

from streamstate.serde import long
from streamstate.state.backend import Backend
from streamstate.state.entry_format import HEADER, VERSION, decode, pack_header
from streamstate.state.spec import StoreSpec
from streamstate.state.staging import ENTRY_BYTES, DecodedStore
from streamstate.state.undo import Entry

_LONG: Final = long()
# Header and value in one step, for what is stored most: counts.
_PACK_LONG: Final = Struct(HEADER.format + "q").pack


@final
class MutableEntry:
    """The newest entry of a key.

    Attributes:
        value: decoded; None for an absent or deleted key.
        timestamp: event time in ms.
        dirty: changed since it was last sealed. Whoever sets it puts the slot among those staged.
    """

    __slots__ = ("dirty", "timestamp", "value")

    def __init__(self, value: Any, timestamp: int) -> None:
        self.value = value
        self.timestamp = timestamp
        self.dirty = False

    def entry(self) -> Entry | None:
        """As stores give it."""
        return None if self.value is None else (self.value, self.timestamp)


class MutableEntryStore(DecodedStore):
    """Keeps decoded values, of serdes whose values cannot change in place; not for windowed stores.

    The two generations of the cache hold uncommitted slots too, as long as these are in use. ``staged`` and the sealed
    entries keep each of them until it is committed, whatever becomes of the cache.
    """

    __slots__ = ("_complete",)

    def __init__(self, spec: StoreSpec, backend: Backend, cache_bytes: int) -> None:
        super().__init__(spec, backend, cache_bytes)
        assert self.segments is None, "a windowed store"
        # Every entry of the store is in memory: what is not found there is nowhere.
        self._complete = False

    @property
    def young(self) -> dict[bytes, MutableEntry]:
        """Slots by key, to be looked into before ``load``; the same dict object for the store's life."""
        return self._young

    # -- reading -------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Entry | None:
        slot = self._young.get(key)
        return (self.load(key) if slot is None else slot).entry()

    def load(self, key: bytes) -> MutableEntry:
        """The slot of ``key``, which is not among the young ones."""
        slot = self._kept(key)
        if slot is None:
            stored = None if self._complete else self._read(key)
            if stored is None:
                slot = MutableEntry(None, 0)
            else:
                payload, timestamp = decode(stored, self.spec.name)
                slot = MutableEntry(self._deserialize(payload), timestamp)
                self._young_bytes += len(stored)
        self._cache(key, slot)
        return slot

    def _kept(self, key: bytes) -> MutableEntry | None:
        """A slot that is in memory, but not among the young ones."""
        slot: MutableEntry | None = self._old.get(key)
        if slot is None:
            # Uncommitted, and not used for two generations.
            slot = self.staged.get(key)
            if slot is None:
                slot = self._sealed.get(key)
        return slot

    def _cache(self, key: bytes, slot: MutableEntry) -> None:
        self._young[key] = slot
        self._young_bytes += ENTRY_BYTES + len(key)
        if 2 * self._young_bytes > self.cache_bytes:
            self._age()

    def _age(self) -> None:
        if self._old:
            self._complete = False
        # Operators hold on to ``young`` itself.
        self._old = dict(self._young)
        self._young.clear()
        self._young_bytes = 0

    def scan(self, start: bytes | None, end: bytes | None, reverse: bool = False) -> Iterator[tuple[bytes, Entry]]:
        staged = sorted(
            (
                (key, slot.entry())
                for key, slot in {**self._sealed, **self.staged}.items()
                if (start is None or key >= start) and (end is None or key < end)
            ),
            key=lambda item: item[0],
            reverse=reverse,
        )
        return self._merge(staged, self._backend.scan(self.spec.name, start, end, reverse), reverse)

    # -- writing -------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: Any, timestamp: int) -> None:
        if type(value) is not self._kind and value is not None:
            value = self._as_read(value)
        slot = self._young.get(key)
        if slot is None:
            slot = self._kept(key)
            if slot is None:
                slot = MutableEntry(None, 0)
            self._cache(key, slot)
        size = len(value) if type(value) is str or type(value) is bytes else 0
        if size or not slot.dirty:
            self.staged_bytes += ENTRY_BYTES + len(key) + size
        slot.value = value
        slot.timestamp = timestamp
        if not slot.dirty:
            slot.dirty = True
            self.staged[key] = slot

    def _encoded(self) -> dict[bytes, bytes | None]:
        # Not by the spec, which names the elements' serde where a store of another kind lies above this one.
        if self._serialize is _LONG.serialize:
            return {
                key: None if slot.value is None else _PACK_LONG(VERSION, slot.timestamp, slot.value)
                for key, slot in self.staged.items()
            }
        serialize = self._serialize
        return {
            key: None if slot.value is None else pack_header(VERSION, slot.timestamp) + serialize(slot.value)
            for key, slot in self.staged.items()
        }

    # -- the life of a transaction -------------------------------------------------------------------------

    def seal(self) -> dict[bytes, bytes | None]:
        writes = super().seal()
        for slot in self._sealed.values():
            slot.dirty = False
        return writes

    def committed(self) -> None:
        self._sealed = {}
        self.sealed_bytes = 0

    def outdated(self, keys: Iterable[bytes]) -> None:
        self._complete = False
        super().outdated(keys)

    def discard(self) -> None:
        # What is committed of the keys that they hold is in the backend only.
        self._complete = False
        for key in (*self.staged, *self._sealed):
            self._young.pop(key, None)
            self._old.pop(key, None)
        super().discard()

    def forget(self) -> None:
        self._read = self._backend.reader(self.spec.name)
        self.discard()
        # Operators hold on to it.
        self._young.clear()
        self._old, self._young_bytes = {}, 0
        self._complete = next(self._backend.scan(self.spec.name, None, None, False), None) is None
