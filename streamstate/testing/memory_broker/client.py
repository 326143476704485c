"""What the in-memory clients share: the hook around every port call.

Rule of this module: no call reaches the broker, and no answer the caller, without passing the hook.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from streamstate.testing.memory_broker.broker import MemoryBroker

__all__ = ["Client", "port"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="Client")


class Client:
    """A client of the in-memory broker.

    Args:
        broker: the broker.
        client_id: the actor the broker's ``on_call`` is told.
    """

    kind = "client"

    def __init__(self, broker: MemoryBroker, client_id: str) -> None:
        self.broker = broker
        self.client_id = client_id

    def hook(self, call: str, phase: str) -> None:
        """Let the fault injector see a call."""
        if self.broker.on_call is not None:
            self.broker.on_call(self.client_id, f"{self.kind}.{call}", phase)

    def failed(self, call: str, error: Exception) -> None:
        """The hook raised; a client that keeps state about errors takes note here."""


def port(method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    """Pass the hook before and after the method."""
    call = method.__name__

    @wraps(method)
    def wrapper(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.broker.on_call is None:
            return method(self, *args, **kwargs)
        try:
            self.hook(call, "before")
        except Exception as error:
            self.failed(call, error)
            raise
        result = method(self, *args, **kwargs)
        try:
            self.hook(call, "after")
        except Exception as error:
            self.failed(call, error)
            raise
        return result

    return wrapper
