"""Stateless operators as closures over what follows them.

Rule of this module: a closure takes ``(key, value, timestamp)``, calls the user's function inside a ``try`` that
names the operator (free of cost while nothing fails), and calls ``forward`` outside of it, so that a failure is
always the failure of the operator that had it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamstate.errors import shown
from streamstate.operators.context import OperatorFailed, Output, TaskContext, not_encoded, output_bytes
from streamstate.topology import specs
from streamstate.topology.names import checked

Forward = Callable[[Any, Any, int], None]


def with_encoded_key(forward: Forward, serialize_key: Callable[[Any], bytes]) -> Forward | None:
    """What does as ``forward``, but takes the key as ``serialize_key`` has encoded it.

    For operators whose stores have the same encoded keys as the topic that their results go to: the encoding is half of
    what a small record costs there. None when what follows needs the key, or encodes it in another way.
    """
    serializer, encoded = getattr(forward, "keyed", (None, None))
    return encoded if serializer is serialize_key else None


def nothing(key: Any, value: Any, timestamp: int) -> None:
    """The end of a stream that nobody reads."""


def fan_out(forwards: Sequence[Forward]) -> Forward:
    """One closure that calls all of ``forwards`` in order."""
    if not forwards:
        return nothing
    if len(forwards) == 1:
        return forwards[0]
    if len(forwards) == 2:
        first, second = forwards

        def both(key: Any, value: Any, timestamp: int) -> None:
            first(key, value, timestamp)
            second(key, value, timestamp)

        return both
    every = tuple(forwards)

    def all_of_them(key: Any, value: Any, timestamp: int) -> None:
        for forward in every:
            forward(key, value, timestamp)

    return all_of_them


def filter_(name: str, spec: specs.Filter, forward: Forward) -> Forward:
    predicate = spec.predicate
    if spec.negate:

        def drop(key: Any, value: Any, timestamp: int) -> None:
            try:
                # The answer is tested in here: pandas.NA, an array or a lazy expression refuses to be true or false.
                if predicate(key, value):
                    return
            except Exception as error:
                raise OperatorFailed(name) from error
            forward(key, value, timestamp)

        return drop

    def keep(key: Any, value: Any, timestamp: int) -> None:
        try:
            if not predicate(key, value):
                return
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, value, timestamp)

    return keep


def map_(name: str, spec: specs.Map, forward: Forward) -> Forward:
    function = spec.function

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            pair = function(key, value)
            new_key, new_value = pair if type(pair) is tuple else _as_pair(pair)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(new_key, new_value, timestamp)

    return run


def _as_pair(pair: Any) -> tuple[Any, Any]:
    """What a function returned as key and value. Text of two letters, a set or a dict of two could be taken apart as
    well, and would be without a word."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"the function returned {shown(pair)}, not a pair of a key and a value")
    return pair[0], pair[1]


def map_values(name: str, spec: specs.MapValues, forward: Forward) -> Forward:
    function = spec.function
    if spec.with_key:

        def run_with_key(key: Any, value: Any, timestamp: int) -> None:
            try:
                new_value = function(key, value)
            except Exception as error:
                raise OperatorFailed(name) from error
            forward(key, new_value, timestamp)

        return run_with_key

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            new_value = function(value)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, new_value, timestamp)

    return run


def flat_map(name: str, spec: specs.FlatMap, forward: Forward) -> Forward:
    function = spec.function

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            # A list, so that a generator's failure is this operator's and comes before anything is forwarded.
            records = [
                pair if type(pair) is tuple and len(pair) == 2 else _as_pair(pair) for pair in function(key, value)
            ]
        except Exception as error:
            raise OperatorFailed(name) from error
        for new_key, new_value in records:
            forward(new_key, new_value, timestamp)

    return run


def flat_map_values(name: str, spec: specs.FlatMapValues, forward: Forward) -> Forward:
    function = spec.function
    if spec.with_key:

        def run_with_key(key: Any, value: Any, timestamp: int) -> None:
            try:
                values = function(key, value)
                if type(values) is not list:
                    values = list(values)
            except Exception as error:
                raise OperatorFailed(name) from error
            for new_value in values:
                forward(key, new_value, timestamp)

        return run_with_key

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            values = function(value)
            if type(values) is not list:
                values = list(values)
        except Exception as error:
            raise OperatorFailed(name) from error
        for new_value in values:
            forward(key, new_value, timestamp)

    return run


def select_key(name: str, spec: specs.SelectKey, forward: Forward) -> Forward:
    function = spec.function

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            new_key = function(key, value)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(new_key, value, timestamp)

    return run


def peek(name: str, spec: specs.Peek, forward: Forward) -> Forward:
    function = spec.function

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            function(key, value)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, value, timestamp)

    return run


def split(name: str, spec: specs.Split, branches: Sequence[Forward]) -> Forward:
    """``branches`` has one forward per predicate and one for the rest."""
    pairs = tuple(zip(spec.predicates, branches, strict=False))
    rest = branches[len(spec.predicates)]

    def run(key: Any, value: Any, timestamp: int) -> None:
        forward = rest
        try:
            for predicate, branch in pairs:
                if predicate(key, value):
                    forward = branch
                    break
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, value, timestamp)

    return run


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
    spec: specs.Sink,
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
