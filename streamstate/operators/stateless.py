"""Stateless operators as closures over what follows them.

Rule of this module: a closure takes ``(key, value, timestamp)``, calls the user's function inside a ``try`` that
names the operator (free of cost while nothing fails), and calls ``forward`` outside of it, so that a failure is
always the failure of the operator that had it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamstate.operators.context import OperatorFailed, TaskContext
from streamstate.topology import specs

Forward = Callable[[Any, Any, int], None]


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
                out = predicate(key, value)
            except Exception as error:
                raise OperatorFailed(name) from error
            if not out:
                forward(key, value, timestamp)

        return drop

    def keep(key: Any, value: Any, timestamp: int) -> None:
        try:
            wanted = predicate(key, value)
        except Exception as error:
            raise OperatorFailed(name) from error
        if wanted:
            forward(key, value, timestamp)

    return keep


def map_(name: str, spec: specs.Map, forward: Forward) -> Forward:
    function = spec.function

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            new_key, new_value = function(key, value)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(new_key, new_value, timestamp)

    return run


def map_values(name: str, spec: specs.MapValues, forward: Forward) -> Forward:
    function = spec.function

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
            records = [(new_key, new_value) for new_key, new_value in function(key, value)]
        except Exception as error:
            raise OperatorFailed(name) from error
        for new_key, new_value in records:
            forward(new_key, new_value, timestamp)

    return run


def flat_map_values(name: str, spec: specs.FlatMapValues, forward: Forward) -> Forward:
    function = spec.function

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


def _bad_timestamp(name: str, topic: str, timestamp: int, limit_ms: int) -> OperatorFailed:
    if timestamp < 0:
        cause = ValueError(f"the event time {timestamp} ms is negative, which Kafka cannot store")
    else:
        cause = ValueError(
            f"topic {topic!r} takes no timestamp later than {limit_ms} ms now (message.timestamp.after.max.ms); "
            f"this record's event time is {timestamp} ms. One such record would fail its whole transaction. "
            f"Correct the event time, or raise the topic's limit"
        )
    failure = OperatorFailed(name, f"writing to topic {topic!r}")
    failure.__cause__ = cause
    return failure


def sink(name: str, spec: specs.Sink, topic: str | None, context: TaskContext) -> Forward:
    """Append to the task's outputs. ``topic`` is the real name, or None when the spec's function gives it."""
    serialize_key, serialize_value = spec.key.serialize, spec.value.serialize
    append = context.outputs.append
    latest_timestamp = context.latest_timestamp

    if topic is None:
        choose: Any = spec.topic

        def dynamic(key: Any, value: Any, timestamp: int) -> None:
            doing = "choosing the topic"
            try:
                chosen = choose(key, value)
                if type(chosen) is not str or not chosen:
                    raise TypeError(f"the topic function returned {chosen!r}, not a topic name")
                doing = f"encoding for topic {chosen!r}"
                encoded_key = None if key is None else serialize_key(key)
                encoded = None if value is None else serialize_value(value)
            except Exception as error:
                raise OperatorFailed(name, doing) from error
            limit = latest_timestamp(chosen)
            if not 0 <= timestamp <= limit[0]:
                raise _bad_timestamp(name, chosen, timestamp, limit[0])
            record = context.record
            append((chosen, encoded, encoded_key, -1, None, timestamp, None if record is None else record.headers()))

        return dynamic

    limit = latest_timestamp(topic)
    if spec.partition_of is not None:
        partition_of = spec.partition_of

        def placed(key: Any, value: Any, timestamp: int) -> None:
            try:
                encoded_key, encoded = serialize_key(key), serialize_value(value)
            except Exception as error:
                raise OperatorFailed(name, f"encoding for topic {topic!r}") from error
            if not 0 <= timestamp <= limit[0]:
                raise _bad_timestamp(name, topic, timestamp, limit[0])
            record = context.record
            headers = None if record is None else record.headers()
            append((topic, encoded, encoded_key, partition_of(key, value), None, timestamp, headers))

        return placed

    def static(key: Any, value: Any, timestamp: int) -> None:
        try:
            encoded_key = None if key is None else serialize_key(key)
            encoded = None if value is None else serialize_value(value)
        except Exception as error:
            raise OperatorFailed(name, f"encoding for topic {topic!r}") from error
        if not 0 <= timestamp <= limit[0]:
            raise _bad_timestamp(name, topic, timestamp, limit[0])
        record = context.record
        append((topic, encoded, encoded_key, -1, None, timestamp, None if record is None else record.headers()))

    return static
