"""Operators of a stream that hold records back: batches, and calls that are awaited.

Rule of this module: a part of ``Stream``, with its rules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, get_args, overload

from streamstate.errors import TopologyError
from streamstate.graph.error_policy import checked_policy
from streamstate.graph.handles import Handle, OnError, stream_at
from streamstate.operators.async_map.spec import MapAsync, MapBatches, Order
from streamstate.units import Duration
from streamstate.windows import as_timedelta

if TYPE_CHECKING:
    from streamstate.dsl.stream import Stream

__all__ = ["Holding"]

K = TypeVar("K")
V = TypeVar("V")
V2 = TypeVar("V2")

_MILLISECOND = timedelta(milliseconds=1)


class Holding(Handle[K, V]):
    """What ``Stream`` has of these operators."""

    __slots__ = ()

    @overload
    def map_batches(
        self,
        function: Callable[[list[V]], Sequence[V2]],
        *,
        size: int = 100,
        delay: Duration | None = timedelta(seconds=1),
        on_error: OnError | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def map_batches(
        self,
        function: Callable[[list[K], list[V]], Sequence[V2]],
        *,
        size: int = 100,
        delay: Duration | None = timedelta(seconds=1),
        on_error: OnError | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    def map_batches(
        self,
        function: Callable[..., Sequence[V2]],
        *,
        size: int = 100,
        delay: Duration | None = timedelta(seconds=1),
        on_error: OnError | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]:
        """Replace values by those of ``function(list of values)``: for models, and whatever is faster by the batch.

        A batch is called when it is full, when its first record has waited for ``delay``, and before each commit; so
        the commit interval bounds it too. The results go on as if each had been made by ``map_values``: in order,
        with the time, headers and stream time of its record. Behind an exception the function is called again for
        each value alone, and those that fail then are failed records.

        Args:
            function: gets a list of at most ``size`` values, or a list of their keys and one of the values, and
                returns one result for each, in their order.
            size: most values in a batch.
            delay: longest wait for a batch to fill, on the wall clock; None: until it is full, or a commit comes.
            on_error: what happens to a record whose value fails; by default what its source says.
            name: of the operator.

        Raises:
            TopologyError: a bound is none, or the function cannot be called so.

        >>> from streamstate import Topology, serde
        >>> texts = Topology("t").stream("texts", value=serde.string())
        >>> texts.map_batches(lambda batch: [len(text) for text in batch], size=64)
        <Stream texts.map_batches>
        """
        if not isinstance(size, int) or size < 1:
            raise TopologyError(f"map_batches after {self._at.node!r}: size= takes 1 or more, not {size!r}")
        with_key = self._at.takes_key(function, "map_batches", "list of values", key="list of keys")
        delay_ms = None if delay is None else self._checked("map_batches", "delay", delay, 0)
        policy = None if on_error is None else checked_policy(on_error)
        return self._holding(MapBatches(function, size, delay_ms, policy, with_key), "map_batches", name)

    @overload
    def map_async(
        self,
        function: Callable[[V], Awaitable[V2]],
        *,
        order: Order = "key",
        in_flight: int = 100,
        timeout: Duration | None = timedelta(seconds=5),
        retries: int = 0,
        backoff: Duration = timedelta(milliseconds=100),
        on_error: OnError | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    @overload
    def map_async(
        self,
        function: Callable[[K, V], Awaitable[V2]],
        *,
        order: Order = "key",
        in_flight: int = 100,
        timeout: Duration | None = timedelta(seconds=5),
        retries: int = 0,
        backoff: Duration = timedelta(milliseconds=100),
        on_error: OnError | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]: ...

    def map_async(
        self,
        function: Callable[..., Awaitable[V2]],
        *,
        order: Order = "key",
        in_flight: int = 100,
        timeout: Duration | None = timedelta(seconds=5),
        retries: int = 0,
        backoff: Duration = timedelta(milliseconds=100),
        on_error: OnError | None = None,
        name: str | None = None,
    ) -> Stream[K, V2]:
        """Replace each value by what the coroutine ``function(value)`` returns (Flink: ``AsyncDataStream``).

        Calls begin as records come and run side by side, in one event loop of the process. All have ended before
        each commit, so that no offset passes an unfinished record. After a failure calls are made again for records
        that were not committed: what a call does outside, it may do twice.

        Args:
            function: an ``async def`` of (value) or of (key, value), or a lambda that returns an awaitable. It must not
                block, and cannot change the key.
            order: in which results go on: ``key``: within each key as the records came; ``input``: all as they came,
                the results being those of ``map_values``; ``none``: as they are ready.
            in_flight: most calls at a time, for each task.
            timeout: of one attempt; None: it may take for ever, and commits and an orderly end wait for it.
            retries: attempts after the first, where one raises or times out.
            backoff: wait before the first retry; twice as long before each next one.
            on_error: what happens to a record whose call fails; by default what its source says.
            name: of the operator.

        Raises:
            TopologyError: a bound is none, or the function is no coroutine function.

        >>> from streamstate import Topology, serde
        >>> async def looked_up(key: str, value: str) -> str:
        ...     return value.upper()
        >>> words = Topology("t").stream("words", key=serde.string(), value=serde.string())
        >>> words.map_async(looked_up, in_flight=50)
        <Stream words.map_async>
        """
        if order not in get_args(Order):
            raise TopologyError(
                f"map_async after {self._at.node!r}: order= takes 'key', 'input' or 'none', not {order!r}"
            )
        for what, number, least in (("in_flight", in_flight, 1), ("retries", retries, 0)):
            if not isinstance(number, int) or number < least:
                raise TopologyError(f"map_async after {self._at.node!r}: {what}= takes {least} or more, not {number!r}")
        with_key = self._at.takes_key(function, "map_async", "value", kind="coroutine")
        timeout_ms = None if timeout is None else self._checked("map_async", "timeout", timeout, 1)
        backoff_ms = self._checked("map_async", "backoff", backoff, 0)
        policy = None if on_error is None else checked_policy(on_error)
        spec = MapAsync(function, order, in_flight, timeout_ms, retries, backoff_ms, policy, with_key)
        return self._holding(spec, "map_async", name)

    def _checked(self, kind: str, what: str, duration: Duration, least_ms: int) -> int:
        given = as_timedelta(duration)
        if given is None or given // _MILLISECOND < least_ms:
            raise TopologyError(
                f"{kind} after {self._at.node!r}: {what}= takes a duration of {least_ms} ms or more, not {duration!r}"
            )
        return given // _MILLISECOND

    def _holding(self, spec: MapAsync | MapBatches, kind: str, name: str | None) -> Stream[K, Any]:
        return stream_at(self._at.then(spec, kind, name).with_new_value())
