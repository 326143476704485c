"""Which instances suppliers have given: each may be given once.

Rule of this module: it keeps nothing alive. An instance that two tasks share would have the stores of the task that was
made last, and one that comes again after a roll-back remembers what was never committed.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from streamstate.errors import TopologyError

# By the address of the instance: itself, as long as it lives, and what it was made for.
_given: dict[int, tuple[ref[Any], str, str]] = {}


def once(instance: Any, operator: str, task: str) -> None:
    """Take note of an instance.

    Args:
        instance: what the supplier returned. What has no room for a weak reference cannot be recognised again.
        operator, task: for which it is made.

    Raises:
        TopologyError: it was given before.

    >>> class Count: ...
    >>> one = Count()
    >>> once(one, "count", "lines_0")
    >>> once(Count(), "count", "lines_1")
    >>> once(one, "count", "lines_1")
    Traceback (most recent call last):
    streamstate.errors.TopologyError: operator 'count': its supplier gave task lines_1 the instance of Count ...
    """
    address = id(instance)
    known = _given.get(address)
    if known is not None and known[0]() is instance:
        _, first_operator, first_task = known
        kind = type(instance).__name__
        whose = f"task {first_task}" if first_operator == operator else f"operator {first_operator!r} in {first_task}"
        if (first_operator, first_task) == (operator, task):
            whose += " before it started over"
        raise TopologyError(
            f"operator {operator!r}: its supplier gave task {task} the instance of {kind} that it gave {whose}. Each "
            f"task needs a new instance, also after a roll-back: pass the class itself, or a function that makes one "
            f"at each call, such as lambda: {kind}(...)"
        )

    def forget(gone: ref[Any]) -> None:
        present = _given.get(address)
        if present is not None and present[0] is gone:
            del _given[address]

    try:
        _given[address] = ref(instance, forget), operator, task
    except TypeError:
        # Its class has __slots__ without __weakref__. Subclasses of Processor always have room.
        return
