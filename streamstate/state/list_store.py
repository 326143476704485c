"""List stores: a list per key, of which each element is an entry of its own.

Rule of this module: it lays lists out in a staging overlay and keeps nothing of its own. Adding to an end or taking
from one costs the same however long the list is.

Two layouts, one behind the other in one store:

- ``BOUNDS``, the key: the numbers of the first element and of the one after the last; absent where the list is empty.
- ``ELEMENT``, length of the key, key, number: the element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Any

from streamstate.state.staging import StagedStore

BOUNDS, ELEMENT = b"\x00", b"\x01"
_LENGTH = Struct(">I")
_NUMBER = Struct(">Q")
_BOUNDS = Struct(">QQ")


class ListStore:
    """Implements ``streamstate.operators.process.store_views.ListStore``.

    Args:
        staging: the overlay of a store of kind ``list``.
        timestamp: gives the event time (ms) of the record in hand.
    """

    __slots__ = ("_key", "_maxlen", "_spec", "_staging", "_timestamp")

    def __init__(self, staging: StagedStore, timestamp: Callable[[], int]) -> None:
        self._staging = staging
        self._spec = staging.spec
        self._key = staging.spec.encoded_key
        self._maxlen = staging.spec.maxlen
        self._timestamp = timestamp

    def _encoded(self, value: Any) -> bytes:
        if value is None:
            raise ValueError(f"lists of store {self._spec.name!r} have no null elements")
        return self._spec.encoded_value(value)

    def _bounds(self, key: bytes) -> tuple[int, int]:
        entry = self._staging.get(BOUNDS + key)
        return (0, 0) if entry is None else _BOUNDS.unpack(entry[0])

    def _set_bounds(self, key: bytes, first: int, end: int) -> None:
        self._staging.put(BOUNDS + key, _BOUNDS.pack(first, end) if first < end else None, self._timestamp())

    def append(self, key: Any, value: Any) -> None:
        self.extend(key, (value,))

    def extend(self, key: Any, values: Iterable[Any]) -> None:
        encoded = self._key(key)
        # All of them before the first is written, so that one that cannot be encoded leaves nothing.
        added = [self._encoded(value) for value in values]
        if not added:
            return
        prefix, put, now = _prefix(encoded), self._staging.put, self._timestamp()
        first, end = self._bounds(encoded)
        if self._maxlen is not None:
            added = added[-self._maxlen :]
            keep = self._maxlen - len(added)
            while end - first > keep:
                put(prefix + _NUMBER.pack(first), None, now)
                first += 1
        for number, element in enumerate(added, end):
            put(prefix + _NUMBER.pack(number), element, now)
        self._set_bounds(encoded, first, end + len(added))

    def get(self, key: Any, start: int | None = None, stop: int | None = None) -> list[Any]:
        encoded = self._key(key)
        return list(self._elements(encoded, range(*self._bounds(encoded))[start:stop]))

    def iterate(self, key: Any, *, reverse: bool = False) -> Iterator[Any]:
        encoded = self._key(key)
        numbers = range(*self._bounds(encoded))
        return self._elements(encoded, numbers[::-1] if reverse else numbers)

    def _elements(self, key: bytes, numbers: range) -> Iterator[Any]:
        prefix, get, decode = _prefix(key), self._staging.get, self._spec.value.deserialize
        for number in numbers:
            entry = get(prefix + _NUMBER.pack(number))
            if entry is not None:
                yield decode(entry[0])

    def length(self, key: Any) -> int:
        first, end = self._bounds(self._key(key))
        return end - first

    def pop_left(self, key: Any) -> Any:
        return self._pop(key, left=True)

    def pop(self, key: Any) -> Any:
        return self._pop(key, left=False)

    def _pop(self, key: Any, *, left: bool) -> Any:
        encoded = self._key(key)
        first, end = self._bounds(encoded)
        if first == end:
            return None
        at = _prefix(encoded) + _NUMBER.pack(first if left else end - 1)
        entry = self._staging.get(at)
        assert entry is not None, "an element within the bounds and not in the store"
        self._staging.put(at, None, self._timestamp())
        self._set_bounds(encoded, first + left, end - (not left))
        return self._spec.value.deserialize(entry[0])

    def clear(self, key: Any) -> None:
        encoded = self._key(key)
        first, end = self._bounds(encoded)
        if first == end:
            return
        prefix, now = _prefix(encoded), self._timestamp()
        for number in range(first, end):
            self._staging.put(prefix + _NUMBER.pack(number), None, now)
        self._set_bounds(encoded, 0, 0)

    def keys(self) -> Iterator[Any]:
        decode = self._spec.key.deserialize
        return (decode(at[len(BOUNDS) :]) for at, _ in self._staging.scan(BOUNDS, ELEMENT))


def _prefix(key: bytes) -> bytes:
    return ELEMENT + _LENGTH.pack(len(key)) + key
