"""Joins of a stream with a table, as closures.

Rule of this module: only records of the stream make results, with the record's timestamp. A record with a null value
makes none; one with a null key makes one in a left join only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.operators.context import OperatorFailed, TaskContext
from streamstate.operators.stateless import Forward
from streamstate.operators.table import Getter


def join(
    name: str,
    joiner: Callable[[Any, Any], Any],
    left: bool,
    row: Getter,
    context: TaskContext,
    forward: Forward,
) -> Forward:
    """With the row as it is now."""

    def run(key: Any, value: Any, timestamp: int) -> None:
        if value is None or (key is None and not left):
            context.dropped += 1
            return
        found = None if key is None else row(key)
        if found is None and not left:
            return
        try:
            joined = joiner(value, None if found is None else found[0])
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, joined, timestamp)

    return run
