"""Failed records: their error messages, and the records for dead-letter topics.

Each message names the topic, partition, offset, key and operator, and the setting that lets such records pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from streamstate.engine.ports import Message
from streamstate.engine.task.user_code import raised_at
from streamstate.errors import ProcessingError, SerdeError, shown
from streamstate.graph.error_policy import ErrorPolicy
from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.base.compilation import SourceEntry
from streamstate.operators.base.context import Headers, TaskContext, output_bytes
from streamstate.operators.base.context import Output as TaskOutput
from streamstate.operators.base.due_results import FailedResult
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.topics.timestamps import TooFarAhead
from streamstate.windows import LATEST_TIME_MS

log = logging.getLogger("streamstate.task")

LOG_INTERVAL_MS = 1_000


class FailedRecordLog:
    """Logs failed records at a bounded rate.

    Args:
        task: its id, for each line.
        now_ms: wall clock.
    """

    def __init__(self, task: str, now_ms: Callable[[], int]) -> None:
        self._task = task
        self._now_ms = now_ms
        self._logged_ms = -LOG_INTERVAL_MS
        self._unlogged = 0

    def record(self, failure: OperatorFailed, message: Message | None, policy: ErrorPolicy) -> None:
        """Log a record, or a result without one, that failed and was skipped."""
        now_ms = self._now_ms()
        if now_ms - self._logged_ms < LOG_INTERVAL_MS:
            self._unlogged += 1
            return
        log.warning(
            "%s; policy %s%s; %d more since the last such line",
            describe(failure, message, self._task),
            policy.action,
            f" to {policy.topic!r}" if policy.topic else "",
            self._unlogged,
        )
        self._logged_ms, self._unlogged = now_ms, 0


def has_policy(graph: Graph, subtopology: SubTopology) -> bool:
    """Return true when a record may fail without stopping the worker, so that the task needs an undo log."""
    for name in subtopology.nodes:
        spec = graph.nodes[name].spec
        policy = getattr(spec, "on_error", None)
        if policy is not None and policy.action != "fail":
            return True
    return False


def unreadable(entry: SourceEntry, message: Message) -> OperatorFailed:
    """Return the failure of a record whose key, value or event time cannot be read; it names which, and why."""
    for part, serde, data in zip(("key", "value"), entry.serdes or (), (message.key(), message.value()), strict=False):
        try:
            serde.decode(data)
        except SerdeError as refusal:
            failure = OperatorFailed(entry.name, f"decoding the {part}")
            failure.refusal = refusal
            return failure
    return OperatorFailed(entry.name, "reading the event time")


def other_event_time(entry: SourceEntry, message: Message, timestamp: object) -> int:
    """Refuse an event time that ``timestamp=`` gave and that cannot be used.

    Raises:
        OperatorFailed: the record has no usable event time.
    """
    failure = OperatorFailed(entry.name, "reading the event time")
    if type(timestamp) is int and timestamp > LATEST_TIME_MS:
        text = (
            f"the event time {shown(timestamp)} ms is later than {LATEST_TIME_MS} ms, the latest there is: is it in "
            f"microseconds or nanoseconds, or does it mean 'never'?"
        )
    else:
        text = f"an event time is a whole number of milliseconds since 1970, not {shown(timestamp)}"
    failure.__cause__ = ValueError(
        text + ("; the record carries none" if timestamp == -1 and entry.timestamp is None else "")
    )
    raise failure


def _key_text(data: bytes | None) -> str:
    if data is None:
        return "None"
    return repr(data) if len(data) <= 80 else f"{data[:80]!r}... ({len(data)} bytes)"


def describe(failure: OperatorFailed, message: Message | None, task: str) -> str:
    """Describe a failure: the operator, the record, and the reason."""
    where = f"task {task}: operator {failure.operator!r} failed"
    if failure.doing:
        where += f" {failure.doing}"
    if message is not None:
        where += (
            f" at topic {message.topic()!r}, partition {message.partition()}, offset {message.offset()}, "
            f"key {_key_text(message.key())}"
        )
    # Some errors quote the data they could not decode, all of it.
    reason = failure.reason
    # The message of a serde is a sentence already.
    cause = shown(reason, 600, str if isinstance(reason, SerdeError) else repr)
    text = f"{where}: {cause}"
    line = raised_at(failure.__cause__)
    return text if line is None else f"{text}, {line}"


def processing_error(failure: OperatorFailed, message: Message | None, task: str) -> ProcessingError:
    """Return the error that ends the worker under the policy ``fail``."""
    kind = SerdeError if failure.doing.startswith(("decoding", "encoding")) else ProcessingError
    hint = ""
    if message is not None:
        hint = (
            ". Nothing of this record was kept. Mend the topology, or let such records pass: "
            "on_error='continue' or on_error=dead_letter('topic') on the source or the processor"
        )
    return kind(describe(failure, message, task) + hint)


def too_far_ahead(failure: TooFarAhead, message: Message, task: str) -> ProcessingError:
    """The error that ends the worker under ``on_future="fail"``."""
    return ProcessingError(
        f"{describe(failure, message, task)}. Nothing of this record was kept. Mend the clocks, or let such records "
        "pass: event_time(future=..., on_future='drop'), 'clamp' or dead_letter('topic'), on the source"
    )


def dead_letter(failure: OperatorFailed, message: Message, context: TaskContext, topic: str) -> TaskOutput:
    """The output that takes a failed record to its dead-letter topic: original bytes and headers, and what failed."""
    cause = failure.reason
    facts = {
        "application": context.application_id,
        "task": context.task_id,
        "operator": failure.operator,
        "topic": message.topic(),
        "partition": str(message.partition()),
        "offset": str(message.offset()),
        "error": type(failure.__cause__).__name__,
        "message": shown(cause, 1_000, str),
    }
    headers = [*(message.headers() or ()), *_headers(facts)]
    # Original bytes; its own time where the topic takes it, else the time of writing.
    return _dead_letter_record(topic, message.value(), message.key(), message.timestamp()[1], headers, context)


def dead_result(failure: OperatorFailed, result: FailedResult, context: TaskContext, topic: str) -> TaskOutput:
    """The same for a result that was held back for the commit or came due with time: no one record stands for it. Its
    value goes along where it could be encoded."""
    cause = failure.reason
    facts = {
        "application": context.application_id,
        "task": context.task_id,
        "operator": failure.operator,
        "error": type(failure.__cause__).__name__,
        "message": shown(cause, 1_000, str),
    }
    value = failure.encoded if result.value is None else result.value
    headers = [*(result.headers or ()), *_headers(facts)]
    return _dead_letter_record(topic, value, result.key, result.timestamp, headers, context)


def _headers(facts: dict[str, str]) -> Headers:
    return [(f"streamstate.error.{name}", text.encode("utf-8", "replace")) for name, text in facts.items()]


def _dead_letter_record(
    topic: str, value: bytes | None, key: bytes | None, timestamp: int, headers: Headers, context: TaskContext
) -> TaskOutput:
    latest_ms, most, keyed = context.limits(topic)
    if key is None and keyed:
        # A compacted topic takes no record without a key, and keeps one record of each.
        facts = dict(headers)
        place = [facts[f"streamstate.error.{part}"] or b"" for part in ("topic", "partition", "offset")]
        key = b"-".join(place)
        headers = [*headers, *_headers({"left_out": "the null key: this topic takes records with a key only"})]
    if output_bytes(key, value, headers) > most:
        # Send it without its value, because the headers say where the record is.
        size = 0 if value is None else len(value)
        headers = [*headers, *_headers({"left_out": f"the value, {size} bytes: too large for this topic"})]
        value = None
    fits = 0 <= timestamp <= latest_ms
    return topic, value, key, -1, None, timestamp if fits else None, headers
