"""Where committed state lives: the protocol, and the in-memory one.

Rule of this module: a backend holds what Kafka has committed, together with the changelog positions that this
state reflects. ``apply`` is atomic over all stores of the task; nothing uncommitted ever gets here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from streamstate.errors import TaskCorrupted

InputPartition = tuple[str, int]
Writes = Mapping[str, Mapping[bytes, bytes | None]]

NOTHING_EXPIRED: Final[Mapping[str, bytes]] = MappingProxyType({})
NO_FACTS: Final[Mapping[str, str]] = MappingProxyType({})


class StateDamaged(TaskCorrupted):
    """Local state does not read as it was written. Its backend sets itself aside when it is closed, so that the next
    one starts empty and is restored; no error policy of a record may hide it.

    Attributes:
        backend: whose state it is.
    """

    def __init__(self, message: str, backend: object) -> None:
        super().__init__(message)
        self.backend = backend


class Backend(Protocol):
    """Durable bytes of one task's stores. Every method may raise ``StateDamaged``, which the worker mends, and
    ``StateDirectoryFailed`` or ``TooManyOpenFiles``, which end it."""

    def reader(self, store: str) -> Callable[[bytes], bytes | None]:
        """A function that looks a key up; valid until ``close`` or ``clear(store)``."""
        ...

    def scan(self, store: str, start: bytes | None, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Entries with ``start <= key < end`` as they are now, in key order or reversed."""
        ...

    def apply(
        self,
        writes: Writes,
        positions: Mapping[str, int],
        offsets: Mapping[InputPartition, int],
        expired_below: Mapping[str, bytes] = NOTHING_EXPIRED,
        *,
        current: bool = True,
        facts: Mapping[str, str] = NO_FACTS,
    ) -> None:
        """Write all stores, changelog positions and input offsets, all or nothing.

        Args:
            writes: entries by store; None deletes.
            positions: changelog position by store.
            offsets: by input partition.
            expired_below: by store, the key below which everything is deleted, before ``writes``, as one range.
                ``writes`` has nothing but deletions there.
            current: all stores are now what Kafka has, as after a commit; False while they are being read.
            facts: see ``note``.
        """
        ...

    def restore(
        self, store: str, records: Mapping[bytes, bytes | None], position: int, *, complete: bool = False
    ) -> None:
        """Apply the newest of some changelog records by key, and move the store's position.

        Kept at the latest by the next ``apply`` or by ``close``. A crash before leaves an earlier position, and any of
        the entries: they are replayed from there.

        Args:
            store: its name.
            records: entries by key; None deletes.
            position: behind the last of them.
            complete: nothing more of this restore follows.
        """
        ...

    def positions(self) -> dict[str, int]:
        """Changelog position per store: the offset of the first record it does not reflect."""
        ...

    def offsets(self) -> dict[InputPartition, int]:
        """Input offsets of the last ``apply``."""
        ...

    def clear(self, store: str) -> None:
        """Empty the store and forget its position."""
        ...

    def facts(self) -> dict[str, str]:
        """Small facts kept beside the state, such as the topic id of a changelog."""
        ...

    def note(self, facts: Mapping[str, str]) -> None:
        """Keep facts."""
        ...

    def begin_close(self) -> None:
        """Start to release it, beside others; nothing but ``close`` may follow, which waits for the end."""
        ...

    def close(self) -> None:
        """Release it. Everything applied is kept."""
        ...


class MemoryBackend:
    """A backend on dicts; for tests, for the driver and as the reference of the contract suite.

    >>> backend = MemoryBackend(["counts"])
    >>> backend.apply({"counts": {b"a": b"1", b"b": b"2"}}, {"counts": 2}, {("lines", 0): 7})
    >>> backend.reader("counts")(b"a"), list(backend.scan("counts", b"b", None, False)), backend.positions()
    (b'1', [(b'b', b'2')], {'counts': 2})
    """

    def __init__(self, stores: Sequence[str]) -> None:
        self._data: dict[str, dict[bytes, bytes]] = {store: {} for store in stores}
        self._order: dict[str, list[bytes]] = {store: [] for store in stores}
        self._positions: dict[str, int] = {}
        self._offsets: dict[InputPartition, int] = {}
        self._facts: dict[str, str] = {}

    def hold(self, stores: Sequence[str]) -> None:
        """Have these stores too; those that are not among them stay."""
        for store in stores:
            self._data.setdefault(store, {})
            self._order.setdefault(store, [])

    def reader(self, store: str) -> Callable[[bytes], bytes | None]:
        return self._data[store].get

    def scan(self, store: str, start: bytes | None, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        order, data = self._order[store], self._data[store]
        low = 0 if start is None else bisect_left(order, start)
        high = len(order) if end is None else bisect_left(order, end)
        keys = order[low:high]
        if reverse:
            keys.reverse()
        return iter([(key, data[key]) for key in keys])

    def apply(
        self,
        writes: Writes,
        positions: Mapping[str, int],
        offsets: Mapping[InputPartition, int],
        expired_below: Mapping[str, bytes] = NOTHING_EXPIRED,
        *,
        current: bool = True,
        facts: Mapping[str, str] = NO_FACTS,
    ) -> None:
        unknown = (writes.keys() | expired_below.keys()) - self._data.keys()
        if unknown:
            raise KeyError(f"no such store: {sorted(unknown)}")
        for store, bound in expired_below.items():
            order = self._order[store]
            end = bisect_left(order, bound)
            for key in order[:end]:
                del self._data[store][key]
            del order[:end]
        for store, entries in writes.items():
            for key, value in entries.items():
                self._set(store, key, value)
        self._positions.update(positions)
        self._offsets.update(offsets)
        self._facts.update(facts)

    def restore(
        self, store: str, records: Mapping[bytes, bytes | None], position: int, *, complete: bool = False
    ) -> None:
        for key, value in records.items():
            self._set(store, key, value)
        self._positions[store] = position

    def _set(self, store: str, key: bytes, value: bytes | None) -> None:
        data, order = self._data[store], self._order[store]
        if value is None:
            if key in data:
                del data[key]
                del order[bisect_left(order, key)]
            return
        if key not in data:
            insort(order, key)
        data[key] = value

    def positions(self) -> dict[str, int]:
        return dict(self._positions)

    def offsets(self) -> dict[InputPartition, int]:
        return dict(self._offsets)

    def clear(self, store: str) -> None:
        self._data[store].clear()
        self._order[store].clear()
        self._positions.pop(store, None)

    def facts(self) -> dict[str, str]:
        return dict(self._facts)

    def note(self, facts: Mapping[str, str]) -> None:
        self._facts.update(facts)

    def begin_close(self) -> None:
        """Nothing that would take time."""

    def close(self) -> None:
        """Nothing to release."""
