"""What appends records to the outputs of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamstate.errors import shown
from streamstate.graph.names import checked
from streamstate.operators.base.context import Output, TaskContext, output_bytes
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Forward

if TYPE_CHECKING:
    from streamstate.operators.topics.spec import Sink


def _bad_timestamp(name: str, topic: str, timestamp: int, limit_ms: int, encoded: bytes | None) -> OperatorFailed:
    if timestamp < 0:
        cause = ValueError(f"the event time {timestamp} ms is negative, which Kafka cannot store")
    else:
        cause = ValueError(
            f"topic {topic!r} takes no timestamp later than {limit_ms} ms now (message.timestamp.after.max.ms); "
            f"this record's event time is {timestamp} ms. One such record would fail its whole transaction. "
            f"Correct the event time, or raise the topic's limit"
        )
    failure = OperatorFailed(name, f"writing to topic {topic!r}", encoded)
    failure.__cause__ = cause
    return failure


def _no_key(name: str, topic: str, encoded: bytes | None) -> OperatorFailed:
    failure = OperatorFailed(name, f"writing to topic {topic!r}", encoded)
    failure.__cause__ = ValueError(
        f"the key is null, and topic {topic!r} is compacted, so that every record needs a key. One such record would "
        f"fail its whole transaction. Give it a key with select_key, leave it out with filter, or set the topic's "
        f"cleanup.policy=delete"
    )
    return failure


def _measured(name: str, context: TaskContext) -> Callable[[Output], None]:
    """Appends to the task's outputs what its topic takes; the rest fails the record in hand. Only where a policy lets
    records fail one by one: elsewhere the broker's refusal ends the worker just as well."""
    limits, outputs = context.limits, context.outputs

    def append(output: Output) -> None:
        topic, value, key, headers = output[0], output[1], output[2], output[6]
        size = output_bytes(key, value, headers)
        most = limits(topic)[1]
        if size > most:
            failure = OperatorFailed(name, f"writing to topic {topic!r}")
            failure.__cause__ = ValueError(
                f"key, value and headers have {size} bytes, more than the {most} that topic {topic!r} takes from this "
                f"producer. Raise the topic's max.message.bytes and, by --set, the producer's message.max.bytes"
            )
            raise failure
        outputs.append(output)

    return append


def sink(
    name: str,
    spec: Sink,
    topic: str | None,
    context: TaskContext,
    *,
    measured: bool = False,
    keys_only: bool = False,
) -> Forward:
    """Append to the task's outputs.

    Args:
        topic: the real name, or None when the spec's function gives it.
        measured: a record that is too large for its topic fails here.
        keys_only: a record with a null key is left out and counted.
    """
    serialize_key, serialize_value = spec.key.serialize, spec.value.serialize
    append = _measured(name, context) if measured else context.outputs.append
    limits = context.limits

    if topic is None:
        choose: Any = spec.topic
        # Names that were looked at.
        known: set[str] = set()

        def dynamic(key: Any, value: Any, timestamp: int) -> None:
            doing = "choosing the topic"
            try:
                chosen = choose(key, value)
                if type(chosen) is not str:
                    raise TypeError(f"the topic function returned {shown(chosen)}, not a topic name")
                if chosen not in known:
                    checked(chosen, "topic that the function returned")
                    known.add(chosen)
                doing = f"encoding for topic {chosen!r}"
                encoded_key = None if key is None else serialize_key(key)
                encoded = None if value is None else serialize_value(value)
            except Exception as error:
                given = ((spec.key, key), (spec.value, value)) if doing.startswith("encoding") else ()
                raise not_encoded(name, doing, *given) from error
            limit = limits(chosen)
            if not 0 <= timestamp <= limit[0]:
                raise _bad_timestamp(name, chosen, timestamp, limit[0], encoded)
            if encoded_key is None and limit[2]:
                raise _no_key(name, chosen, encoded)
            record = context.record
            append((chosen, encoded, encoded_key, -1, None, timestamp, None if record is None else record.headers()))

        return dynamic

    limit = limits(topic)
    doing = f"encoding for topic {topic!r}"
    if spec.partition_of is not None:
        partition_of = spec.partition_of

        def placed(key: Any, value: Any, timestamp: int) -> None:
            try:
                encoded_key, encoded = serialize_key(key), serialize_value(value)
            except Exception as error:
                raise not_encoded(name, doing, (spec.key, key), (spec.value, value)) from error
            if not 0 <= timestamp <= limit[0]:
                raise _bad_timestamp(name, topic, timestamp, limit[0], encoded)
            record = context.record
            headers = None if record is None else record.headers()
            append((topic, encoded, encoded_key, partition_of(key, value), None, timestamp, headers))

        return placed

    def static(key: Any, value: Any, timestamp: int) -> None:
        try:
            if key is not None:
                encoded_key = serialize_key(key)
            elif keys_only:
                context.dropped += 1
                return
            else:
                encoded_key = None
                if limit[2]:
                    raise _no_key(name, topic, None)
            encoded = None if value is None else serialize_value(value)
        except OperatorFailed:
            raise
        except Exception as error:
            raise not_encoded(name, doing, (spec.key, key), (spec.value, value)) from error
        if not 0 <= timestamp <= limit[0]:
            raise _bad_timestamp(name, topic, timestamp, limit[0], encoded)
        record = context.record
        append((topic, encoded, encoded_key, -1, None, timestamp, None if record is None else record.headers()))

    def keyed(encoded_key: bytes | None, value: Any, timestamp: int) -> None:
        if encoded_key is None:
            if keys_only:
                context.dropped += 1
                return
            if limit[2]:
                raise _no_key(name, topic, None)
        try:
            encoded = None if value is None else serialize_value(value)
        except Exception as error:
            raise not_encoded(name, doing, (spec.value, value)) from error
        if not 0 <= timestamp <= limit[0]:
            raise _bad_timestamp(name, topic, timestamp, limit[0], encoded)
        record = context.record
        append((topic, encoded, encoded_key, -1, None, timestamp, None if record is None else record.headers()))

    static.keyed = (serialize_key, keyed)  # type: ignore[attr-defined]
    return static
