"""Topologies and faults, for the tests of what the worker does when calls fail."""

from __future__ import annotations

from collections.abc import Callable

from streamstate import Topology, serde
from streamstate.engine.ports import Retriable

TEXT = serde.string()
NUMBER = serde.long()
OnCall = Callable[[str, str, str], None]


def long(value: int) -> bytes:
    return NUMBER.serialize(value)


def counting() -> Topology:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=TEXT).group_by_key()
    grouped.count(store="counts").to_stream().to("out", value=NUMBER)
    return topology


def raising(*calls: str, error: type[Exception] = Retriable, only: Callable[[], bool] = lambda: True) -> OnCall:
    def hook(actor: str, call: str, phase: str) -> None:
        if phase == "before" and call in calls and only():
            raise error(f"injected at {call}")

    return hook
