"""Leaving out records that came before, as a closure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Forward
from streamstate.state import StagedStore

__all__ = ["first_of_each"]


def first_of_each(
    name: str,
    by: Callable[[Any, Any], Any] | None,
    store: StagedStore,
    context: TaskContext,
    forward: Forward,
) -> Forward:
    """Pass on records whose identity is not in ``store``, which forgets identities by itself.

    Args:
        name: of the node.
        by: (key, value) to the identity; None: the key.
        store: with a time to live.
        context: the task's.
        forward: takes the records that pass.
    """
    serialize, get, put = store.spec.key.serialize, store.get, store.put

    def run(key: Any, value: Any, timestamp: int) -> None:
        identity = key
        if by is not None:
            try:
                identity = by(key, value)
            except Exception as error:
                raise OperatorFailed(name, "in by=") from error
        if identity is not None:
            try:
                encoded = serialize(identity)
            except Exception as error:
                raise not_encoded(name, "encoding the identity", (store.spec.key, identity)) from error
            if get(encoded) is not None:
                context.dropped += 1
                return
            put(encoded, timestamp, timestamp)
        forward(key, value, timestamp)

    return run
