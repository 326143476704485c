"""The Processor API: what a user's class implements and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, Protocol, TypeVar

from streamstate.operators.process.store_views import Timers
from streamstate.units import Duration

K = TypeVar("K")
V = TypeVar("V")
KOut = TypeVar("KOut")
VOut = TypeVar("VOut")
KeyOut_contra = TypeVar("KeyOut_contra", contravariant=True)
ValueOut_contra = TypeVar("ValueOut_contra", contravariant=True)

Headers = list[tuple[str, bytes | None]]


class Cancellable(Protocol):
    """A scheduled punctuation."""

    def cancel(self) -> None:
        """Do not call it again."""
        ...


class TaskView(Protocol):
    """What processors of all kinds know of their task and of the record in hand.

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

        A ``KeyValueStore``, ``VersionedKeyValueStore``, ``ListStore``, ``WindowStore`` or ``SessionStore``, as it was
        made. Stores of tables that are read from a topic cannot be written.

        Raises:
            TopologyError: it was not listed, or holds timers.
        """
        ...

    def timers(self, name: str, callback: Callable[[Any, int], object]) -> Timers[Any]:
        """The timers ``name``, which ``process(stores=...)`` must have listed; to be called in ``init``.

        In stream time, what is due is called before the next record, in the order of the timers' times. By the wall
        clock, at most a thousand are called per turn of the worker. In the callback ``timestamp`` is the timer's
        time, also where that is long past, and there is no record.

        Args:
            name: of the store, made by ``stores.timers``.
            callback: takes (key, time in ms). The timer is no more then, and may be set again. A time that the timer in
                hand has reached waits until stream time moves again, or for the next turn.

        Raises:
            TopologyError: they were not listed, or another processor of the task has asked for them.
        """
        ...

    def schedule(
        self,
        interval: Duration,
        kind: Literal["stream_time", "wall_clock"],
        callback: Callable[[int], object],
    ) -> Cancellable:
        """Call ``callback(time_ms)`` each time ``interval`` of stream time or wall-clock time has passed.

        Schedules belong to the running task: they are made anew by ``init`` when a task moves.
        As in Kafka Streams, stream time runs from the first record, a wall-clock schedule from now, and
        intervals missed while nothing ran are called once.
        """
        ...


class ProcessorContext(TaskView, Protocol[KeyOut_contra, ValueOut_contra]):
    """What a Processor is given: what it knows, see ``TaskView``, and where its records go."""

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

        Raises:
            TypeError: the time or the headers have another type.
            ValueError: the time is negative, or later than 2^62 - 1 ms.
            Exception: an operator behind has failed. The record in hand fails, also when the processor catches it.
        """
        ...


class ValueProcessorContext(TaskView, Protocol[ValueOut_contra]):
    """What a ValueProcessor is given: what it knows, see ``TaskView``, and where its values go."""

    def forward(self, value: ValueOut_contra, *, timestamp: int | None = None, headers: Headers | None = None) -> None:
        """Send a value on, under the key of the record in hand.

        Args:
            value: the value.
            timestamp: ms since 1970; None: that of the record in hand.
            headers: replace those of the record in hand; None keeps them.

        Raises:
            RuntimeError: there is no record in hand, in a punctuation or a timer.
            TypeError, ValueError: see ``ProcessorContext.forward``.
            Exception: an operator behind has failed. The record in hand fails, also when the processor catches it.
        """
        ...


class ValueTransformer(Generic[K, V, VOut]):
    """What ``Table.transform_values`` calls for each change of a row, and ``Stream.transform_values`` for each record.

    One instance serves one task.

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
        """The new value. Of a row, ``value`` is None where it was deleted, and returning None deletes."""
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


class ValueProcessor(Generic[K, V, VOut]):
    """A user's operator with state and schedules that leaves the key alone (Kafka Streams: ``FixedKeyProcessor``).

    One instance serves one task. What it forwards has the key of the record in hand, so that records stay in their
    partition, and what is behind it needs no repartition topic.

    >>> class Deduplicate(ValueProcessor[str, str, str]):
    ...     def init(self, context):
    ...         super().init(context)
    ...         self.seen = context.store("seen")
    ...
    ...     def process(self, key, value):
    ...         if self.seen.put_if_absent(key, value) is None:
    ...             self.context.forward(value)
    """

    context: ValueProcessorContext[VOut]

    def init(self, context: ValueProcessorContext[VOut]) -> None:
        """Called once, after the task's state is restored and before the first record."""
        self.context = context

    def process(self, key: K, value: V) -> None:
        """Called for each record, in the order of the task."""
        raise TypeError(f"{type(self).__name__} must define process(self, key, value)")

    def close(self) -> None:
        """Called once, when the task leaves this process or the process ends."""
