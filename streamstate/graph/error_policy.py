"""Error policies: what happens to a record that fails in user code or in a serde."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamstate.errors import TopologyError
from streamstate.graph.names import checked


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What happens to a record that fails in user code or in a serde.

    Attributes:
        action: ``fail`` stops the worker; ``continue`` counts and logs the record and goes on;
            ``dead_letter`` writes its original bytes to ``topic`` within the same transaction and goes on.
        topic: the dead-letter topic, for ``dead_letter`` only.
    """

    action: Literal["fail", "continue", "dead_letter"]
    topic: str | None = None


FAIL = ErrorPolicy("fail")
CONTINUE = ErrorPolicy("continue")


def checked_policy(on_error: object) -> ErrorPolicy:
    """The policy that ``on_error=`` names.

    Raises:
        TopologyError: it names none.
    """
    if on_error == "fail" or on_error == "continue":
        return ErrorPolicy(on_error)
    if isinstance(on_error, ErrorPolicy):
        if on_error.action == "dead_letter":
            checked(on_error.topic or "", "dead-letter topic")
        return on_error
    raise TopologyError(f"on_error= takes 'fail', 'continue' or dead_letter('topic'), not {on_error!r}")
