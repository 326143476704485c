"""What windowed operators are made of: plain descriptions, no behaviour.

Rule of this module: as of ``specs``, which lists these among its own. Every spec here names the stores that its
operator uses in ``stores``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from streamstate.serde import Serde
from streamstate.topology.emit import WindowEmit
from streamstate.windows import JoinWindows, SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows

Windows = TimeWindows | UnlimitedWindows | SlidingWindows | SessionWindows
Aggregator = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Late:
    """Where records go that are too late for all their windows, within the same transaction."""

    topic: str
    key: Serde[Any]
    value: Serde[Any]


@dataclass(frozen=True, slots=True)
class WindowedAggregate:
    """Folds (key, value, aggregate) per key and window. Emits table changes, by ``Windowed`` keys.

    Attributes:
        kind: what it is called.
        initializer: None: the first value is the start.
        aggregators: (key, value, aggregate) to the next aggregate, one for each parent.
        merger: (key, aggregate, aggregate) to that of both; for sessions only.
        result: what the table shows of the stored aggregate; None: the aggregate itself.
        key: serde of the key itself, without its window.
        emit: each update, only the last when its window closes, or the newest at each commit.
        late: None: late records are counted and dropped.
        timed: aggregators take (key, (value, event time), aggregate).
        idle_ms: after so long (wall clock) without a record, stream time goes on with the wall clock; None: never.
    """

    kind: Literal["count", "reduce", "aggregate", "cogroup"]
    store: str
    windows: Windows
    initializer: Callable[[], Any] | None
    aggregators: tuple[Aggregator, ...]
    merger: Aggregator | None
    result: Callable[[Any], Any] | None
    key: Serde[Any]
    emit: WindowEmit = "update"
    late: Late | None = None
    idle_ms: int | None = None
    timed: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.store,)


@dataclass(frozen=True, slots=True)
class Suppress:
    """Holds changes of a table back.

    Attributes:
        store: what is held.
        key: serde of the table's keys.
        wait_ms: how much stream time after its own a change is let go; None: only when it is full.
        by_window: a change's own time is the end of its window, and deletions are left out; else its timestamp.
        max_records, max_bytes: None: no limit.
        when_full: ``emit`` sends the first ones early, ``stop`` stops the worker.
    """

    store: str
    key: Serde[Any]
    wait_ms: int | None
    by_window: bool
    max_records: int | None
    max_bytes: int | None
    when_full: Literal["emit", "stop"]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.store,)


@dataclass(frozen=True, slots=True)
class StreamJoin:
    """Joins two streams by key and time.

    Attributes:
        left, right: the nodes they come from; the same one in a self-join.
        within: how far apart records may be.
        joiner: (left value, right value) to that of the result; None for what is missing.
        left_alone, right_alone: records of that side that meet nothing are sent too.
        key: serde of the key.
        stores: of left records, of right ones and of those that wait; a self-join that sends nothing alone has one.
        with_key: ``joiner`` takes the key too, in front.
    """

    left: str
    right: str
    within: JoinWindows
    joiner: Callable[..., Any]
    left_alone: bool
    right_alone: bool
    key: Serde[Any]
    stores: tuple[str, ...]
    with_key: bool = False


WindowSpec = WindowedAggregate | Suppress | StreamJoin
