"""Process the records of a task's several inputs, smallest event time first.

No record is added to an input within a batch. So the merger chooses an input once, and processes its records up to the
event time of the next input's first record, without comparing per record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.ports import Message
from streamstate.engine.task.error_policy import ErrorPolicyHandler
from streamstate.engine.task.held_records import HeldRecords
from streamstate.engine.task.inputs import Input, decoded_head
from streamstate.operators.base.compilation import SourceEntry
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.base.schedules import NEVER_MS
from streamstate.state.undo import UndoLog
from streamstate.windows import LATEST_TIME_MS

# Returns true when the task need not wait any longer for an empty input.
MaySkipEmpty = Callable[[Input], bool]
# Input, its entry, and what is needed of the two per record.
_Lane = tuple[Input, SourceEntry, Any, Any, Any, Any]


class InputMerger:
    """Merges buffered inputs by event time.

    Args:
        context: the task's.
        failures: apply error policies.
        undo: what the record in hand has staged; None when no policy needs it.
        held_records: releases records that operators hold back; None where none does.
        punctuate: calls what is due at a stream time.
        one_by_one: work may be due between two records: an operator holds records back, or stream time stays behind
            event times.

    Attributes:
        one_by_one: see above.
    """

    def __init__(
        self,
        context: TaskContext,
        failures: ErrorPolicyHandler,
        undo: UndoLog | None,
        held_records: HeldRecords | None,
        punctuate: Callable[[int], object],
        one_by_one: bool,
    ) -> None:
        self._context = context
        self._failures = failures
        self._undo = undo
        self._held_records = held_records
        self._punctuate = punctuate
        self.one_by_one = one_by_one

    def process(self, inputs: Sequence[Input], batch_sizer: BatchSizer, may_skip_empty: MaySkipEmpty) -> int:
        """Process buffered records, as many as make a batch; return how many.

        Args:
            inputs: in the order of ``precedence``.
            batch_sizer: says how many make a batch, and ends it early.
            may_skip_empty: see its type.

        Raises:
            ProcessingError: a record failed under the policy ``fail``.
        """
        lanes: list[_Lane] = []
        for input_ in inputs:
            entry = input_.entry
            assert entry is not None, "processing before it was opened"
            lanes.append((input_, entry, entry.decode_key, entry.decode_value, entry.timestamp, entry.forward))
        limit, done = batch_sizer.size, 0
        while done < limit and not batch_sizer.halted:
            lane, until = self._next(lanes, may_skip_empty)
            if lane is None:
                break
            if self.one_by_one:
                done += self._process_one_by_one(lane, until, limit - done, batch_sizer)
                continue
            other: _Lane | None = None
            if len(lanes) == 2:
                other = lanes[1] if lane is lanes[0] else lanes[0]
                if other[0].head is None:
                    other = None
            done += self._process_run(lane, until, limit - done, batch_sizer, other, lanes[0])
        return done

    def _next(self, lanes: Sequence[_Lane], may_skip_empty: MaySkipEmpty) -> tuple[_Lane | None, int]:
        """Return the input to process next, and the event time up to which it goes before the others."""
        best: _Lane | None = None
        best_time, until = 0, NEVER_MS
        for lane in lanes:
            input_ = lane[0]
            head = input_.head
            if head is None:
                if not input_.buffer:
                    if not may_skip_empty(input_):
                        return None, 0
                    continue
                head = input_.head = decoded_head(input_, self._context)
            time = head[2]
            if best is None:
                best, best_time = lane, time
            elif time < best_time:
                # At equal times the earlier input in the list goes first.
                if best_time <= until:
                    until = best_time - 1
                best, best_time = lane, time
            elif time < until:
                until = time
        return best, until

    def _process_run(
        self, lane: _Lane, until: int, max_records: int, batch_sizer: BatchSizer, other: _Lane | None, first: _Lane
    ) -> int:
        """Process records of one input up to a time; return how many. ``RecordProcessor`` does it for an only input.

        Args:
            lane: the input to process.
            until: event time of the last record to process.
            max_records: upper limit of records to process.
            batch_sizer: ends it early.
            other: the input to go on with behind that time; None to end there. Set where exactly two inputs have
                records, which often alternate.
            first: the lane that goes first at equal times.
        """
        input_, entry, decode_key, decode_value, extract, forward = lane
        context, undo, buffer = self._context, self._undo, input_.buffer
        assert input_.head is not None, "no head"
        key, value, timestamp, failure = input_.head
        input_.head = None
        mark = done = 0
        last: Message | None = None
        try:
            while True:
                context.record = message = buffer.popleft()
                before = context.stream_time
                if undo is not None:
                    undo.clear()
                    mark = len(context.outputs)
                try:
                    if failure is not None:
                        raise failure
                    if timestamp > before:
                        context.stream_time = timestamp
                    forward(key, value, timestamp)
                except OperatorFailed as raised:
                    self._failures.record_failed(raised, message, entry, mark)
                    context.stream_time = timestamp = before
                last = message
                done += 1
                if timestamp > before and timestamp >= context.schedules.next_stream_ms:
                    self._punctuate(timestamp)
                if done >= max_records or batch_sizer.halted or not buffer:
                    return done
                # As ``decoded_head``, which finds out what is wrong with a record. An extractor may read the record's
                # own time from the context.
                context.record = message = buffer[0]
                try:
                    key = message.key()
                    if key is not None:
                        key = decode_key(key)
                    value = message.value()
                    if value is not None:
                        value = decode_value(value)
                    timestamp = message.timestamp()[1] if extract is None else extract(key, value)
                    usable = type(timestamp) is int and 0 <= timestamp <= LATEST_TIME_MS
                except Exception:  # noqa: BLE001 - it fails in the same way below
                    usable = False
                failure = None
                if not usable:
                    key, value, timestamp, failure = decoded_head(input_, context)
                if timestamp > until:
                    input_.head = key, value, timestamp, failure
                    if other is None:
                        return done
                    input_.next_offset = last.offset() + 1
                    last = None
                    until = timestamp if other is first else timestamp - 1
                    lane, other = other, lane
                    input_, entry, decode_key, decode_value, extract, forward = lane
                    buffer = input_.buffer
                    assert input_.head is not None, "no head"
                    key, value, timestamp, failure = input_.head
                    input_.head = None
        finally:
            if last is not None:
                input_.next_offset = last.offset() + 1

    def _process_one_by_one(self, lane: _Lane, until: int, max_records: int, batch_sizer: BatchSizer) -> int:
        """Do the same where work may be due between two records."""
        input_ = lane[0]
        done = 0
        while True:
            self.process_head(input_)
            done += 1
            if done >= max_records or batch_sizer.halted or not input_.buffer:
                return done
            input_.head = head = decoded_head(input_, self._context)
            if head[2] > until:
                return done

    def process_head(self, input_: Input) -> None:
        """Process the first buffered record, which is decoded, and call what is due after it."""
        entry, context, held_records = input_.entry, self._context, self._held_records
        assert input_.head is not None, "no head"
        assert entry is not None, "no entry"
        key, value, timestamp, failure = input_.head
        context.record = message = input_.buffer.popleft()
        input_.head = None
        mark, before = len(context.outputs), context.stream_time
        if self._undo is not None:
            self._undo.clear()
        try:
            if failure is not None:
                raise failure
            reached = timestamp - entry.out_of_order_ms
            if reached > before:
                context.stream_time = reached
            entry.forward(key, value, timestamp)
        except OperatorFailed as raised:
            self._failures.record_failed(raised, message, entry, mark)
            context.stream_time = before
        input_.next_offset = message.offset() + 1
        if context.release_due and held_records is not None:
            held_records.release(every=False)
        if context.stream_time > before and context.stream_time >= context.schedules.next_stream_ms:
            if held_records is not None:
                # Punctuations see the new time, so that records from before it must go on first.
                held_records.release(every=True)
            self._punctuate(context.stream_time)
