"""Release records that operators hold back, between records and before a commit, never within a record.

A released record goes on with the time, headers and stream time that it arrived with, and under its own error policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamstate.engine.ports import Message
from streamstate.operators.base.context import TaskContext, original
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.base.holding import HoldingOperator
from streamstate.state.undo import UndoLog

# (failure, the record or None, outputs there were before it) applies the record's error policy.
OnFailure = Callable[[OperatorFailed, "Message | None", int], None]


class HeldRecords:
    """Releases the records of operators that hold records back.

    Args:
        holders: parents before children.
        context: the task's.
        undo: what the record in hand has staged; None when no policy needs it.
        failed: applies the record's error policy.
    """

    def __init__(
        self, holders: Sequence[HoldingOperator], context: TaskContext, undo: UndoLog | None, failed: OnFailure
    ) -> None:
        self._holders = holders
        self._context = context
        self._undo = undo
        self._failed = failed

    def __bool__(self) -> bool:
        return bool(self._holders)

    @property
    def pending(self) -> bool:
        """True while a record is held."""
        return any(len(holder) for holder in self._holders)

    def release(self, *, every: bool) -> None:
        """Send held records on: those that are ready, or all, waiting for them."""
        context = self._context
        stream_time = context.stream_time
        context.release_due = False
        try:
            # Parents first, so that a child also releases what its parents have just sent on.
            for holder in self._holders:
                if len(holder):
                    self._release(holder, every)
        finally:
            context.stream_time = stream_time
            context.record = None
            context.schedules.hold(min(holder.due_ms for holder in self._holders))

    def _release(self, holder: HoldingOperator, every: bool) -> None:
        context, undo = self._context, self._undo
        for held, value, error in holder.release(every):
            context.record = held.record
            if holder.alone:
                context.stream_time = held.stream_time
            if undo is not None:
                undo.clear()
            mark = len(context.outputs)
            try:
                if error is not None:
                    raise OperatorFailed(holder.name) from error
                holder.forward(held.key, value, held.timestamp)
            except OperatorFailed as failure:
                self._failed(failure, original(held.record), mark)

    def discard(self) -> None:
        """Drop held records and cancel the calls that run for them."""
        for holder in self._holders:
            holder.discard()
