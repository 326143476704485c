"""What a Processor's stores can do, kind by kind.

Rule of this module: protocols only. ``streamstate.state`` implements them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from streamstate.windows import Windowed

K = TypeVar("K")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class KeyValueStore(Protocol[K, V]):
    """A named store of this task: reads see every earlier write, committed or not.

    Ranges follow the order of the serialized keys. An iterator shows the store as it was when it was made;
    writing while iterating is allowed.
    """

    def get(self, key: K) -> V | None:
        """The value of ``key``, or None."""
        ...

    def put(self, key: K, value: V | None) -> None:
        """Set ``key``; None deletes it. The entry's timestamp is that of the record in hand."""
        ...

    def put_all(self, entries: Iterable[tuple[K, V | None]]) -> None:
        """``put`` for each of ``entries``, in order."""
        ...

    def put_if_absent(self, key: K, value: V) -> V | None:
        """Set ``key`` unless it has a value; return the value it had."""
        ...

    def delete(self, key: K) -> V | None:
        """Remove ``key`` and return the value it had."""
        ...

    def range(self, start: K | None = None, end: K | None = None, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Entries from ``start`` to ``end``, both inclusive; None is open; ``reverse`` goes from the end."""
        ...

    def prefix_scan(self, prefix: bytes, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Entries whose serialized key starts with ``prefix``."""
        ...

    def all(self, *, reverse: bool = False) -> Iterator[tuple[K, V]]:
        """Every entry."""
        ...


class VersionedRecord(Protocol[V_co]):
    """What a versioned store had, and since when (ms since 1970)."""

    @property
    def value(self) -> V_co: ...
    @property
    def timestamp(self) -> int: ...


class VersionedKeyValueStore(Protocol[K, V]):
    """A named store of this task that keeps the versions of each key (Kafka Streams: ``VersionedKeyValueStore``).

    The newest version of a key never expires. Older ones can be read as far back as the store's history reaches from
    the greatest timestamp put.
    """

    def get(self, key: K, as_of: int | None = None) -> VersionedRecord[V] | None:
        """The newest version of ``key``, or the one that held at ``as_of`` (ms since 1970); None: there is none."""
        ...

    def put(self, key: K, value: V | None, timestamp: int | None = None) -> bool | None:
        """Add a version from ``timestamp`` on, by default that of the record in hand; None deletes.

        Returns:
            Whether it is the newest one of its key; None when it is older than the history and was not taken.
        """
        ...

    def delete(self, key: K, timestamp: int | None = None) -> bool | None:
        """``put`` of None."""
        ...

    def all(self, *, reverse: bool = False) -> Iterator[tuple[K, VersionedRecord[V]]]:
        """Every key that has a value, with its newest version."""
        ...


class ListStore(Protocol[K, V]):
    """A named store of this task with a list per key. Adding to it and taking from its ends cost the same however long
    a list is. There are no null elements; a list without elements is not there."""

    def append(self, key: K, value: V) -> None:
        """Add an element at the end. A list of ``maxlen`` elements loses its first."""
        ...

    def extend(self, key: K, values: Iterable[V]) -> None:
        """``append`` for each of ``values``, in order."""
        ...

    def get(self, key: K, start: int | None = None, stop: int | None = None) -> list[V]:
        """The elements, or those of the slice ``[start:stop]``, as a new list."""
        ...

    def iterate(self, key: K, *, reverse: bool = False) -> Iterator[V]:
        """The elements one by one, without those added meanwhile and those removed before their turn."""
        ...

    def length(self, key: K) -> int:
        """How many elements there are."""
        ...

    def pop_left(self, key: K) -> V | None:
        """Remove the first element and return it; None where there is none."""
        ...

    def pop(self, key: K) -> V | None:
        """Remove the last element and return it; None where there is none."""
        ...

    def clear(self, key: K) -> None:
        """Remove all elements of ``key``."""
        ...

    def keys(self) -> Iterator[K]:
        """The keys that have elements, by their bytes."""
        ...


class Timers(Protocol[K]):
    """The timers of a store of this task: at most one per key. Times are in ms since 1970."""

    def set(self, key: K, at_ms: int) -> None:
        """Call back at ``at_ms``, in place of the time that was set before.

        One for a time that has come already is called when stream time next moves, or in the next turn.
        """
        ...

    def cancel(self, key: K) -> bool:
        """Do not call back; false where nothing was set."""
        ...

    def get(self, key: K) -> int | None:
        """The time that is set, or None."""
        ...

    def all(self) -> Iterator[tuple[K, int]]:
        """(key, time) of all that are set, in the order in which they will be called."""
        ...


class WindowStore(Protocol[K, V]):
    """A named store of this task with a value per key and start of a window (Kafka Streams: ``WindowStore``).

    The store's time is the greatest start put. Windows that start as long before it as the store's retention, or
    longer, are neither shown nor taken. Times are in ms since 1970; ranges include both ends.
    """

    def put(self, key: K, value: V | None, start_ms: int | None = None) -> bool:
        """Set the window that starts at ``start_ms``, by default at the time of the record in hand; None deletes it.

        Returns:
            False when it is older than the retention, and was not taken.
        """
        ...

    def get(self, key: K, start_ms: int) -> V | None:
        """The value of the window that starts at ``start_ms``, or None."""
        ...

    def fetch(
        self, key: K, start_ms: int | None = None, end_ms: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[int, V]]:
        """(start, value) of the windows of ``key`` that start in the range, in order of time; None is open."""
        ...

    def fetch_all(self, start_ms: int | None = None, end_ms: int | None = None) -> Iterator[tuple[Windowed[K], V]]:
        """The windows of all keys that start in the range: by stretch of time, then by key, then by start."""
        ...


class SessionStore(Protocol[K, V]):
    """A named store of this task with a value per key and session (Kafka Streams: ``SessionStore``).

    The store's time is the greatest end put. Sessions that end as long before it as the store's retention, or longer,
    are neither shown nor taken. Times are in ms since 1970; a session includes both its ends.
    """

    def put(self, key: K, start_ms: int, end_ms: int, value: V | None) -> bool:
        """Set the session; None deletes it.

        Returns:
            False when it is older than the retention, and was not taken.
        """
        ...

    def remove(self, key: K, start_ms: int, end_ms: int) -> None:
        """Delete the session; harmless when there is none."""
        ...

    def get(self, key: K, start_ms: int, end_ms: int) -> V | None:
        """The value of that very session, or None."""
        ...

    def fetch(
        self, key: K, earliest_end_ms: int | None = None, latest_start_ms: int | None = None
    ) -> Iterator[tuple[Windowed[K], V]]:
        """The sessions of ``key`` that end at ``earliest_end_ms`` or later and start at ``latest_start_ms`` or earlier,
        in order of their ends (Kafka Streams: ``findSessions``); None is open."""
        ...

    def fetch_all(self) -> Iterator[tuple[Windowed[K], V]]:
        """The sessions of all keys: by stretch of time, then by key, then by end."""
        ...
