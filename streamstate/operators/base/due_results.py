"""Results that time sets free, such as that of a window that closes: each fails for itself.

Rule of this module: the operator has forgotten the result before it sends it on, so that a result that fails is not due
again. What was done behind the operator up to the failure is taken back to a savepoint in the undo log of the record in
hand, which can still take back all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from streamstate.graph.error_policy import ErrorPolicy
from streamstate.operators.base.context import Headers, TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.state.undo import UndoLog

Send = TypeVar("Send", bound=Callable[..., None])


class FailedResult(NamedTuple):
    """What is known of a result that failed.

    Attributes:
        key: encoded.
        timestamp: in ms.
        value: encoded, where it was kept so; None: what the operator that failed could encode.
        headers: of the record that it was; None of results.
    """

    key: bytes
    timestamp: int
    value: bytes | None = None
    headers: Headers | None = None


def each_by_itself(
    send: Send,
    encode_key: Callable[[Any], bytes],
    context: TaskContext,
    undo: UndoLog | None,
    on_error: ErrorPolicy,
    encode_value: Callable[[Any], bytes] | None = None,
) -> Send:
    """What sends due results on, so that one that fails meets ``on_error`` and leaves the record in hand alone.

    Args:
        send: takes the key first and the timestamp last.
        encode_key: for the dead letter.
        context: the task's.
        undo: the undo log of the record in hand; None when no policy needs it: then nothing is to be added.
        on_error: the policy of the sources; that of an operator comes before it.
        encode_value: of operators that hold records back, for the dead letter: the value comes second.
    """
    if undo is None:
        return send

    def attempt(*arguments: Any) -> None:
        savepoint, mark = len(undo), len(context.outputs)
        record, timestamp = context.record, context.timestamp
        try:
            send(*arguments)
        except OperatorFailed as failure:
            context.record, context.timestamp = record, timestamp
            value = headers = None
            if encode_value is not None:
                value = encode_value(arguments[1])
                headers = None if record is None else record.headers()
            result = FailedResult(encode_key(arguments[0]), arguments[-1], value, headers)
            context.due_failed(failure, result, on_error, mark, savepoint)

    return attempt  # type: ignore[return-value]
