"""The Processor API: what a user's class implements and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Generic, Literal, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")
KOut = TypeVar("KOut")
VOut = TypeVar("VOut")
V_co = TypeVar("V_co", covariant=True)
KeyOut_contra = TypeVar("KeyOut_contra", contravariant=True)
ValueOut_contra = TypeVar("ValueOut_contra", contravariant=True)

Headers = list[tuple[str, bytes | None]]


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


class Cancellable(Protocol):
    """A scheduled punctuation."""

    def cancel(self) -> None:
        """Do not call it again."""
        ...


class ProcessorContext(Protocol[KeyOut_contra, ValueOut_contra]):
    """What a Processor knows of its task and of the record in hand.

    Attributes:
        application_id: of this application.
        task_id: such as ``lines_0``: sub-topology and partition.
        timestamp: event time of the record in hand, in ms since 1970; in a punctuation, its time.
        stream_time: highest event time this task has seen, in ms; -1 before the first record.
        topic: of the record in hand; None in a punctuation, as are partition and offset.
        partition: of the record in hand.
        offset: of the record in hand.
        headers: of the record in hand, as a new list; an empty one in a punctuation.
    """

    @property
    def application_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def stream_time(self) -> int: ...
    @property
    def topic(self) -> str | None: ...
    @property
    def partition(self) -> int | None: ...
    @property
    def offset(self) -> int | None: ...
    @property
    def headers(self) -> Headers: ...

    def now_ms(self) -> int:
        """Wall-clock time in ms since 1970 (the driver's clock in tests)."""
        ...

    def store(self, name: str) -> Any:
        """The store ``name``, which ``process(stores=...)`` must have listed, or that of a global table.

        A ``KeyValueStore``, or a ``VersionedKeyValueStore`` if it was made as one. Stores of tables that are read from
        a topic cannot be written.

        Raises:
            TopologyError: it was not listed.
        """
        ...

    def forward(
        self,
        key: KeyOut_contra,
        value: ValueOut_contra,
        *,
        timestamp: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Send a record on.

        Args:
            key: its key.
            value: its value.
            timestamp: ms since 1970; None: that of the record in hand.
            headers: replace those of the record in hand; None keeps them.
        """
        ...

    def schedule(
        self,
        interval: timedelta,
        kind: Literal["stream_time", "wall_clock"],
        callback: Callable[[int], object],
    ) -> Cancellable:
        """Call ``callback(time_ms)`` each time ``interval`` of stream time or wall-clock time has passed.

        Schedules belong to the running task: they are made anew by ``init`` when a task moves.
        As in Kafka Streams, stream time runs from the first record, a wall-clock schedule from now, and
        intervals missed while nothing ran are called once.
        """
        ...


class ValueTransformer(Generic[K, V, VOut]):
    """What ``Table.transform_values`` calls for each change of a row. One instance serves one task.

    >>> class Numbered(ValueTransformer[str, str, str]):
    ...     def init(self, context):
    ...         super().init(context)
    ...         self.versions = context.store("versions")
    ...
    ...     def transform(self, key, value):
    ...         number = (self.versions.get(key) or 0) + 1
    ...         self.versions.put(key, number)
    ...         return None if value is None else f"{value} ({number})"
    """

    context: ProcessorContext[Any, Any]

    def init(self, context: ProcessorContext[Any, Any]) -> None:
        """Called once, after the task's state is restored and before the first change. It cannot forward."""
        self.context = context

    def transform(self, key: K, value: V | None) -> VOut | None:
        """The row's new value. ``value`` is None for a row that was deleted; returning None deletes."""
        raise TypeError(f"{type(self).__name__} must define transform(self, key, value)")

    def close(self) -> None:
        """Called once, when the task leaves this process or the process ends."""


class Processor(Generic[K, V, KOut, VOut]):
    """A user's operator with state and schedules. One instance serves one task.

    >>> class Deduplicate(Processor[str, str, str, str]):
    ...     def init(self, context):
    ...         super().init(context)
    ...         self.seen = context.store("seen")
    ...
    ...     def process(self, key, value):
    ...         if self.seen.put_if_absent(key, value) is None:
    ...             self.context.forward(key, value)
    """

    context: ProcessorContext[KOut, VOut]

    def init(self, context: ProcessorContext[KOut, VOut]) -> None:
        """Called once, after the task's state is restored and before the first record."""
        self.context = context

    def process(self, key: K, value: V) -> None:
        """Called for each record, in the order of the task."""
        raise TypeError(f"{type(self).__name__} must define process(self, key, value)")

    def close(self) -> None:
        """Called once, when the task leaves this process or the process ends."""
