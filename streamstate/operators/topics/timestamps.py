"""Reading a record's event time, and refusing one that is too far ahead.

Rule of this module: nothing of the record has been done yet when its time is refused, so there is nothing to take back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.errors import shown
from streamstate.graph.error_policy import CONTINUE, FAIL, ErrorPolicy
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.topics.event_time import EventTime, Timestamp

__all__ = ["TooFarAhead", "reader", "unbounded"]

Extract = Callable[[Any, Any], int | None]


class TooFarAhead(OperatorFailed):
    """The record's event time is further ahead of the wall clock than its source allows.

    Attributes:
        policy: what happens to it.
    """

    def __init__(self, operator: str, timestamp: int, now_ms: int, bound_ms: int, policy: ErrorPolicy) -> None:
        super().__init__(operator, "believing the event time")
        self.policy = policy
        self.__cause__ = ValueError(
            f"the event time {shown(timestamp)} ms is {shown(timestamp - now_ms)} ms ahead of the wall clock, "
            f"and the source allows {bound_ms} ms"
        )


def reader(name: str, spec: Timestamp, context: TaskContext, *, rows: bool) -> Extract | None:
    """What gives the event time of (key, value), of the record in the context; None: the record's own.

    Args:
        name: of the source.
        spec: the source's.
        context: the task's; its record must be the one whose time is asked for.
        rows: the source is a table's: a null value, which deletes, has its record's own.
    """
    extract = unbounded(spec, rows=rows)
    if isinstance(spec, EventTime) and spec.future_ms is not None:
        return _bounded(name, extract, spec, spec.future_ms, context)
    if extract is None or not rows:
        return extract
    of_row = extract

    def extracted(key: Any, value: Any) -> int | None:
        return _own(context) if value is None else of_row(key, value)

    return extracted


def _own(context: TaskContext) -> int:
    """The time of the record in hand."""
    record = context.record
    assert record is not None, "a record's time without a record"
    return record.timestamp()[1]


def unbounded(spec: Timestamp, *, rows: bool) -> Extract | None:
    """A source's ``timestamp=`` as a function of (key, value), whatever its bounds; None: the record's own.

    Args:
        spec: the source's.
        rows: the source is a table's: a null value, which deletes, is not asked for a time.
    """
    of = spec.of if isinstance(spec, EventTime) else spec
    if of is None:
        return None
    extract = _field(of) if isinstance(of, str) else of
    if not rows:
        return extract
    return lambda key, value: None if value is None else extract(key, value)


def _field(name: str) -> Callable[[Any, Any], int]:
    return lambda key, value: value[name]


def _bounded(
    name: str, extract: Extract | None, spec: EventTime[Any, Any], bound_ms: int, context: TaskContext
) -> Extract:
    clamp = spec.on_future == "clamp"
    known = {"drop": CONTINUE, "clamp": CONTINUE, "fail": FAIL}
    policy = known[spec.on_future] if isinstance(spec.on_future, str) else spec.on_future
    now_ms = context.now_ms
    # Asked again only for times beyond it: the clock goes on, and what was allowed stays so.
    latest = now_ms() + bound_ms

    def bounded(key: Any, value: Any) -> int | None:
        nonlocal latest
        timestamp = None if extract is None else extract(key, value)
        if timestamp is None and (extract is None or value is None):
            timestamp = _own(context)
        if type(timestamp) is int and timestamp > latest:
            now = now_ms()
            latest = now + bound_ms
            if timestamp > latest:
                if clamp:
                    return latest
                raise TooFarAhead(name, timestamp, now, bound_ms, policy)
        return timestamp

    return bounded
