"""Process the records of a task's only input. Hot path: nothing here runs per record that could run per batch.

The life of a record: decode key and value, take the event time, advance stream time, call the operators, apply the
error policy when one fails, punctuate. ``input_merger.py`` does the same for tasks with several inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamstate.engine.flow.batch_size import BatchSizer
from streamstate.engine.ports import Message
from streamstate.engine.task.dead_letters import other_event_time, unreadable
from streamstate.engine.task.error_policy import ErrorPolicyHandler
from streamstate.engine.task.input_merger import InputMerger
from streamstate.engine.task.inputs import Input, decoded_head
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.topics.timestamps import TooFarAhead
from streamstate.state.undo import UndoLog
from streamstate.windows import LATEST_TIME_MS


class RecordProcessor:
    """Runs records of one input through the operators.

    Args:
        context: of the task.
        failures: applies error policies.
        undo: what the record in hand has staged; None when no policy needs it.
        merger: processes records one by one where something is due between two of them.
        punctuate: calls what is due at a stream time.
    """

    def __init__(
        self,
        context: TaskContext,
        failures: ErrorPolicyHandler,
        undo: UndoLog | None,
        merger: InputMerger,
        punctuate: Callable[[int], object],
    ) -> None:
        self._context = context
        self._failures = failures
        self._undo = undo
        self._merger = merger
        self._punctuate = punctuate

    def process(self, input_: Input, messages: Sequence[Message], batch_sizer: BatchSizer) -> int:
        """Process records in order until ``batch_sizer`` halts the batch; return how many.

        Raises:
            ProcessingError: a record failed under the policy ``fail``.
        """
        if self._merger.one_by_one:
            return self._process_one_by_one(input_, messages, batch_sizer)
        entry, context, undo = input_.entry, self._context, self._undo
        assert entry is not None, "processing before it was opened"
        decode_key, decode_value, extract = entry.decode_key, entry.decode_value, entry.timestamp
        forward, outputs, schedules = entry.forward, context.outputs, context.schedules
        latest = LATEST_TIME_MS
        assert input_.next_offset is not None, "running without a position"
        if messages[0].offset() < input_.next_offset:
            messages = [message for message in messages if message.offset() >= input_.next_offset]
            if not messages:
                return 0
        stream_time = before = context.stream_time
        mark = 0
        message: Message | None = None
        feed = batch_sizer.feed(messages)
        for message in feed:
            context.record = message
            if undo is not None:
                undo.clear()
                mark, before = len(outputs), stream_time
            key: Any = message.key()
            value: Any = message.value()
            try:
                try:
                    if key is not None:
                        key = decode_key(key)
                    if value is not None:
                        value = decode_value(value)
                    timestamp = message.timestamp()[1] if extract is None else extract(key, value)
                except TooFarAhead:
                    raise
                except Exception as error:
                    raise unreadable(entry, message) from error
                if type(timestamp) is not int or not 0 <= timestamp <= latest:
                    timestamp = other_event_time(entry, message, timestamp)
                if timestamp <= stream_time:
                    forward(key, value, timestamp)
                    continue
                context.stream_time = stream_time = timestamp
                forward(key, value, timestamp)
            except OperatorFailed as failure:
                self._failures.record_failed(failure, message, entry, mark)
                if undo is not None:
                    context.stream_time = stream_time = before
                continue
            if timestamp >= schedules.next_stream_ms:
                self._punctuate(timestamp)
        if message is None:
            return 0
        done = len(messages)
        if len(feed) != done:
            done = 1 + next(index for index, reached in enumerate(messages) if reached is message)
        input_.next_offset = message.offset() + 1
        return done

    def _process_one_by_one(self, input_: Input, messages: Sequence[Message], batch_sizer: BatchSizer) -> int:
        """Do the same where held records or punctuations may be due after each record."""
        expected, merger = input_.next_offset, self._merger
        assert expected is not None, "running without a position"
        done = 0
        for message in batch_sizer.feed([message for message in messages if message.offset() >= expected]):
            input_.buffer.append(message)
            input_.head = decoded_head(input_, self._context)
            merger.process_head(input_)
            done += 1
        return done
