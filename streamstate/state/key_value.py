"""The key-value stores that a Processor sees: typed, over the staging overlay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from streamstate.state.staging import StagedStore
from streamstate.state.versioned import Versions
from streamstate.windows import checked_time


def after_prefix(prefix: bytes) -> bytes | None:
    """The first key behind all keys that start with ``prefix``; None when there is none.

    >>> after_prefix(b"ab"), after_prefix(b"a\\xff"), after_prefix(b"\\xff")
    (b'ac', b'b', None)
    """
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


class TypedStore:
    """Implements ``streamstate.operators.process.store_views.KeyValueStore``.

    Args:
        staging: the overlay.
        timestamp: gives the event time (ms) to store with an entry.
    """

    __slots__ = ("_decode_key", "_key", "_staging", "_timestamp")

    def __init__(self, staging: StagedStore, timestamp: Callable[[], int]) -> None:
        self._staging = staging
        self._timestamp = timestamp
        self._key = staging.spec.encoded_key
        self._decode_key = staging.spec.key.deserialize

    def get(self, key: Any) -> Any:
        entry = self._staging.get(self._key(key))
        return None if entry is None else entry[0]

    def put(self, key: Any, value: Any) -> None:
        self._staging.put(self._key(key), value, self._timestamp())

    def put_all(self, entries: Iterable[tuple[Any, Any]]) -> None:
        for key, value in entries:
            self.put(key, value)

    def put_if_absent(self, key: Any, value: Any) -> Any:
        encoded = self._key(key)
        entry = self._staging.get(encoded)
        if entry is not None:
            return entry[0]
        self._staging.put(encoded, value, self._timestamp())
        return None

    def delete(self, key: Any) -> Any:
        encoded = self._key(key)
        entry = self._staging.get(encoded)
        if entry is None:
            return None
        self._staging.put(encoded, None, self._timestamp())
        return entry[0]

    def range(self, start: Any = None, end: Any = None, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        low = None if start is None else self._key(start)
        # The end is inclusive; the shortest key behind it is itself and a zero byte.
        high = None if end is None else self._key(end) + b"\x00"
        return self._typed(self._staging.scan(low, high, reverse))

    def prefix_scan(self, prefix: bytes, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        return self._typed(self._staging.scan(prefix, after_prefix(prefix), reverse))

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        return self._typed(self._staging.scan(None, None, reverse))

    def _typed(self, entries: Iterator[tuple[bytes, tuple[Any, int]]]) -> Iterator[tuple[Any, Any]]:
        decode_key = self._decode_key
        return ((decode_key(key), entry[0]) for key, entry in entries)


class ReadOnlyStore(TypedStore):
    """The same of a store that something else writes: the rows of a table that is read from a topic."""

    __slots__ = ()

    def _refuse(self) -> NoReturn:
        spec = self._staging.spec
        raise TypeError(
            f"store {spec.name!r} cannot be written: it is the table of topic {spec.source!r}, which alone says what "
            f"is in it"
        )

    def put(self, key: Any, value: Any) -> None:
        self._refuse()

    def put_all(self, entries: Iterable[tuple[Any, Any]]) -> None:
        self._refuse()

    def put_if_absent(self, key: Any, value: Any) -> Any:
        self._refuse()

    def delete(self, key: Any) -> Any:
        self._refuse()


class VersionedRecord(NamedTuple):
    """What a versioned store had.

    Attributes:
        value: the value.
        timestamp: since when it held, in ms since 1970.
    """

    value: Any
    timestamp: int


class VersionedStore:
    """Implements ``streamstate.operators.process.store_views.VersionedKeyValueStore``.

    Args:
        staging: the overlay of a versioned store.
        timestamp: gives the event time (ms) of the record in hand.
    """

    __slots__ = ("_key", "_spec", "_timestamp", "_versions")

    def __init__(self, staging: StagedStore, timestamp: Callable[[], int]) -> None:
        self._spec = staging.spec
        self._key = staging.spec.encoded_key
        self._versions = Versions(staging)
        self._timestamp = timestamp

    def _record(self, entry: tuple[bytes, int] | None) -> VersionedRecord | None:
        if entry is None:
            return None
        value = self._spec.value.deserialize(entry[0])
        return None if value is None else VersionedRecord(value, entry[1])

    def get(self, key: Any, as_of: int | None = None) -> VersionedRecord | None:
        encoded = self._key(key)
        return self._record(self._versions.newest(encoded) if as_of is None else self._versions.at(encoded, as_of))

    def put(self, key: Any, value: Any, timestamp: int | None = None) -> bool | None:
        if self._spec.source is not None:
            raise TypeError(f"store {self._spec.name!r} cannot be written: it is the table of {self._spec.source!r}")
        encoded = None if value is None else self._spec.encoded_value(value)
        if timestamp is not None:
            checked_time(timestamp, f"a version in store {self._spec.name!r}")
        return self._versions.put(self._key(key), encoded, self._timestamp() if timestamp is None else timestamp)

    def delete(self, key: Any, timestamp: int | None = None) -> bool | None:
        return self.put(key, None, timestamp)

    def range(
        self, start: Any = None, end: Any = None, *, reverse: bool = False
    ) -> Iterator[tuple[Any, VersionedRecord]]:
        low = b"" if start is None else self._key(start)
        return self._typed(low, None if end is None else self._key(end) + b"\x00", reverse)

    def prefix_scan(self, prefix: bytes, *, reverse: bool = False) -> Iterator[tuple[Any, VersionedRecord]]:
        return self._typed(prefix, after_prefix(prefix), reverse)

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, VersionedRecord]]:
        return self._typed(b"", None, reverse)

    def _typed(self, start: bytes, end: bytes | None, reverse: bool) -> Iterator[tuple[Any, VersionedRecord]]:
        decode_key = self._spec.key.deserialize
        found = ((key, self._record(entry)) for key, entry in self._versions.live(start, end, reverse))
        return ((decode_key(key), record) for key, record in found if record is not None)
