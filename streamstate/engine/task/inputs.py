"""One input partition of a task: its position, its buffered records, and the decoded head of the buffer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from streamstate.engine.ports import Message, TopicPartition
from streamstate.engine.task.dead_letters import other_event_time, unreadable
from streamstate.operators.base.compilation import SourceEntry
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.topics.timestamps import TooFarAhead
from streamstate.windows import LATEST_TIME_MS


@dataclass(slots=True)
class Input:
    """One input partition of a task.

    Attributes:
        next_offset: of the next record to process; None until known.
        committed: offset that Kafka has for it; None when it has none.
        origin: where it started when Kafka had none.
        at_start: number of partitions when the group first read the topic; None where nothing depends on it.
        buffer: fetched records not processed yet, for tasks with several inputs.
        paused: true while its buffer is full.
        empty_since_ms: when the buffer ran dry.
    """

    partition: TopicPartition
    entry: SourceEntry | None = None
    next_offset: int | None = None
    committed: int | None = None
    origin: int | None = None
    at_start: int | None = None
    buffer: deque[Message] = field(default_factory=deque)
    head: tuple[Any, Any, int, OperatorFailed | None] | None = None
    paused: bool = False
    empty_since_ms: int | None = None


def decoded_head(input_: Input, context: TaskContext) -> tuple[Any, Any, int, OperatorFailed | None]:
    """Decode the first buffered record: key, value and event time, and the failure when that is not possible."""
    message, entry = input_.buffer[0], input_.entry
    assert entry is not None, "processing before it was opened"
    key: Any = message.key()
    value: Any = message.value()
    timestamp: Any = message.timestamp()[1]
    # An extractor may read the record's own time from the context.
    context.record = message
    try:
        try:
            if key is not None:
                key = entry.decode_key(key)
            if value is not None:
                value = entry.decode_value(value)
            if entry.timestamp is not None:
                timestamp = entry.timestamp(key, value)
        except TooFarAhead:
            raise
        except Exception as error:
            raise unreadable(entry, message) from error
        if type(timestamp) is not int or not 0 <= timestamp <= LATEST_TIME_MS:
            timestamp = other_event_time(entry, message, timestamp)
    except TooFarAhead as failure:
        # Its time would hold up the records behind it: process it at once.
        return None, None, 0, failure
    except OperatorFailed as failure:
        # It is processed in the order of the time it was sent at; the error policy is applied then.
        return None, None, max(0, message.timestamp()[1]), failure
    return key, value, timestamp, None


@dataclass(frozen=True, slots=True)
class TaskCounters:
    """Counts of a task since it was created."""

    processed: int
    failed: int
    dropped: int


def precedence(input_: Input) -> tuple[bool, int, int]:
    """Return the sort key of an input among those whose event times are equal: lowest first."""
    assert input_.entry is not None, "processing before it was opened"
    return input_.entry.precedence
