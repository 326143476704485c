"""The key-value store that a Processor sees: typed, over the staging overlay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streamstate.state.staging import StagedStore


def after_prefix(prefix: bytes) -> bytes | None:
    """The first key behind all keys that start with ``prefix``; None when there is none.

    >>> after_prefix(b"ab"), after_prefix(b"a\\xff"), after_prefix(b"\\xff")
    (b'ac', b'b', None)
    """
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


class TypedStore:
    """Implements ``streamstate.topology.processor.KeyValueStore``.

    Args:
        staging: the overlay.
        timestamp: gives the event time (ms) to store with an entry.
    """

    __slots__ = ("_decode_key", "_encode_key", "_staging", "_timestamp")

    def __init__(self, staging: StagedStore, timestamp: Callable[[], int]) -> None:
        self._staging = staging
        self._timestamp = timestamp
        self._encode_key = staging.spec.key.serialize
        self._decode_key = staging.spec.key.deserialize

    def _key(self, key: Any) -> bytes:
        if key is None:
            raise ValueError(f"store {self._staging.spec.name!r} has no null keys")
        return self._encode_key(key)

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
        low = None if start is None else self._encode_key(start)
        # The end is inclusive; the shortest key behind it is itself and a zero byte.
        high = None if end is None else self._encode_key(end) + b"\x00"
        return self._typed(self._staging.scan(low, high, reverse))

    def prefix_scan(self, prefix: bytes, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        return self._typed(self._staging.scan(prefix, after_prefix(prefix), reverse))

    def all(self, *, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        return self._typed(self._staging.scan(None, None, reverse))

    def _typed(self, entries: Iterator[tuple[bytes, tuple[Any, int]]]) -> Iterator[tuple[Any, Any]]:
        decode_key = self._decode_key
        return ((decode_key(key), entry[0]) for key, entry in entries)
