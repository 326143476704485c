"""Stateless operators as closures over what follows them.

A closure takes ``(key, value, timestamp)`` and calls the user's function inside a ``try`` that names the operator. It
calls ``forward`` outside of it, so that a failure always belongs to the operator that had it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from streamstate.errors import shown
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.base.forwarding import Forward

if TYPE_CHECKING:
    from streamstate.operators.stateless.spec import (
        Filter,
        FlatMap,
        FlatMapValues,
        Map,
        MapValues,
        Peek,
        SelectKey,
        Split,
    )


def filter_(name: str, spec: Filter, forward: Forward) -> Forward:
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


def map_(name: str, spec: Map, forward: Forward) -> Forward:
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


def map_values(name: str, spec: MapValues, forward: Forward) -> Forward:
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


def flat_map(name: str, spec: FlatMap, forward: Forward) -> Forward:
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


def flat_map_values(name: str, spec: FlatMapValues, forward: Forward) -> Forward:
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


def select_key(name: str, spec: SelectKey, forward: Forward) -> Forward:
    function = spec.function

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            new_key = function(key, value)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(new_key, value, timestamp)

    return run


def peek(name: str, spec: Peek, forward: Forward) -> Forward:
    function = spec.function

    def run(key: Any, value: Any, timestamp: int) -> None:
        try:
            function(key, value)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, value, timestamp)

    return run


def split(name: str, spec: Split, branches: Sequence[Forward]) -> Forward:
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
