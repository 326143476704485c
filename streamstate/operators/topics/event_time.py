"""Where a record's event time comes from, and which event times are believed.

These are descriptions: ``timestamps`` reads event times, and the task moves stream time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from streamstate.errors import TopologyError
from streamstate.functions import checked_function
from streamstate.graph.spec import SinkSpec, SourceSpec
from streamstate.units import Duration
from streamstate.windows import as_timedelta, whole_ms

if TYPE_CHECKING:
    from streamstate.graph.error_policy import ErrorPolicy
    from streamstate.graph.node import Graph

__all__ = ["EventTime", "Timestamp", "edits", "event_time", "out_of_order_ms"]

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class EventTime(Generic[K, V]):
    """What ``event_time`` makes.

    Attributes:
        of: a field of the value, a function of (key, value), or None for the record's own timestamp.
        future_ms: how far ahead of the wall clock an event time may be; None: any.
        on_future: what happens to a record that is further ahead.
        out_of_order_ms: by how much stream time stays behind the highest event time.
    """

    of: str | Callable[[K, V], int] | None
    future_ms: int | None
    on_future: Literal["drop", "clamp", "fail"] | ErrorPolicy
    out_of_order_ms: int


Timestamp = str | Callable[[Any, Any], int] | EventTime[Any, Any] | None


@overload
def event_time(
    of: Callable[[K, V], int],
    *,
    future: Duration | None = None,
    on_future: Literal["drop", "clamp", "fail"] | ErrorPolicy = "drop",
    out_of_order: Duration = timedelta(0),
) -> EventTime[K, V]: ...


@overload
def event_time(
    of: str | None = None,
    *,
    future: Duration | None = None,
    on_future: Literal["drop", "clamp", "fail"] | ErrorPolicy = "drop",
    out_of_order: Duration = timedelta(0),
) -> EventTime[Any, Any]: ...


def event_time(
    of: str | Callable[[Any, Any], int] | None = None,
    *,
    future: Duration | None = None,
    on_future: Literal["drop", "clamp", "fail"] | ErrorPolicy = "drop",
    out_of_order: Duration = timedelta(0),
) -> EventTime[Any, Any]:
    """Event times with bounds, for ``timestamp=`` of a source (Kafka Streams: ``TimestampExtractor``).

    Args:
        of: where the time, in ms since 1970, comes from: a field of the value, a function of (key, value), or None
            for the record's own timestamp.
        future: how far ahead of this machine's wall clock an event time may be. One that is further ahead does not
            move stream time: it would close every window before its time.
        on_future: ``drop`` leaves such a record out and counts it, ``clamp`` gives it the latest time that is allowed,
            ``fail`` stops, ``dead_letter("topic")`` moves it.
        out_of_order: how late records are expected. Stream time stays this far behind the highest event time, so that
            windows close, and stream-time schedules are called, later by this much (Flink: bounded out-of-orderness).
            It holds for what is behind repartition topics too. Kafka Streams has only the windows' grace.

    Raises:
        TopologyError: a duration is negative, or ``on_future`` is none of these.

    >>> from datetime import timedelta
    >>> from streamstate import Topology, dead_letter, event_time, serde
    >>> topology = Topology("t")
    >>> times = event_time("at_ms", future=timedelta(hours=1), on_future=dead_letter("from-the-future"))
    >>> topology.stream("readings", value=serde.json(), timestamp=times)
    <Stream readings>
    """
    if of is not None and not isinstance(of, str) and not callable(of):
        raise TopologyError(f"event_time takes a field name or a function of (key, value), not {of!r}")
    if callable(of):
        checked_function(of, "event_time", "key, value")
    for name, duration in (("future", future), ("out_of_order", out_of_order)):
        if duration is not None:
            given = as_timedelta(duration)
            if given is None or given < timedelta(0):
                raise TopologyError(f"{name}= takes a duration that is not negative, not {duration!r}")
    action = getattr(on_future, "action", None)
    if on_future not in ("drop", "clamp", "fail") and action != "dead_letter":
        raise TopologyError(f"on_future= takes 'drop', 'clamp', 'fail' or dead_letter('topic'), not {on_future!r}")
    future_ms = None if future is None else whole_ms(future)
    return EventTime(of, future_ms, on_future, whole_ms(out_of_order))


def edits(timestamp: object) -> bool:
    """True when a source with this ``timestamp=`` may leave records out, or give them another time."""
    return isinstance(timestamp, EventTime) and timestamp.future_ms is not None and timestamp.on_future != "fail"


def out_of_order_ms(graph: Graph, source: str) -> int:
    """How far stream time stays behind what enters at a source: its own bound, or, for a repartition topic, the
    greatest of the sources that feed it."""
    writers: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        if isinstance(node.spec, SinkSpec) and node.spec.internal:
            writers.setdefault(str(node.spec.topic), []).append(node.name)
    greatest, seen, waiting = 0, set[str](), [source]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.nodes[name]
        waiting += node.parents
        if isinstance(node.spec, SourceSpec):
            times = getattr(node.spec, "timestamp", None)
            if isinstance(times, EventTime):
                greatest = max(greatest, times.out_of_order_ms)
            for topic in node.spec.topics:
                waiting += writers.get(topic, [])
    return greatest
