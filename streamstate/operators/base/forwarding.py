"""How operators call what follows them: ``Forward`` for records, ``Change`` for changes of tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Change = Callable[[Any, Any, Any, int], None]


def no_change(key: Any, new: Any, old: Any, timestamp: int) -> None:
    """The end of a table that nobody reads."""


def fan_out_changes(forwards: Sequence[Change]) -> Change:
    """One closure that calls all of ``forwards`` in order."""
    if not forwards:
        return no_change
    if len(forwards) == 1:
        return forwards[0]
    every = tuple(forwards)

    def all_of_them(key: Any, new: Any, old: Any, timestamp: int) -> None:
        for forward in every:
            forward(key, new, old, timestamp)

    return all_of_them


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


def stamped(forward: Forward) -> Forward:
    """For folds that take the event time: the value together with it."""

    def run(key: Any, value: Any, timestamp: int) -> None:
        forward(key, None if value is None else (value, timestamp), timestamp)

    return run
