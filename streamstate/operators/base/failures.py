"""Failures of a record, and what is no failure of a record."""

from __future__ import annotations

from typing import Any

from streamstate.errors import SerdeError
from streamstate.serde import Serde


class OperatorFailed(Exception):
    """User code or a serde failed on the record in hand. The task applies its error policy.

    Attributes:
        operator: the node's name.
        doing: what it was doing, for the message.
        encoded: the value that a sink could encode but not send.
        refusal: why a serde refused what it was given, in words; None where that is not what failed.
        ends: a result that is not of the record in hand failed under ``fail``: the policy of the record does not help.
    """

    def __init__(self, operator: str, doing: str = "", encoded: bytes | None = None) -> None:
        super().__init__(operator, doing)
        self.operator = operator
        self.doing = doing
        self.encoded = encoded
        self.refusal: SerdeError | None = None
        self.ends = False

    @property
    def reason(self) -> BaseException | None:
        """Why, in the words that say most."""
        return self.refusal or self.__cause__


def not_encoded(operator: str, doing: str, *given: tuple[Serde[Any], Any]) -> OperatorFailed:
    """The failure of an operator that could not encode a key or a value; to be raised from what ``serialize`` raised.

    Args:
        operator: the node's name.
        doing: what it was doing.
        given: each serde with what it was given; the first one that refuses its value has the say.
    """
    failure = OperatorFailed(operator, doing)
    for serde, value in given:
        try:
            serde.encode(value)
        except SerdeError as refusal:
            failure.refusal = refusal
            break
    return failure


class TaskInterrupted(Exception):
    """What a record needs is not to be had now, through no fault of the record: no error policy applies, and what
    was done since the last commit starts over."""
