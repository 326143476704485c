"""Topologies that hold records back, for the tests of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from streamstate import (
    Topology,
    serde,
)
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
NUMBER = serde.long()
LONG = timedelta(hours=1)
Batches = list[list[Any]]


def lengths(seen: Batches) -> Callable[[list[str]], list[int]]:
    def function(values: list[str]) -> list[int]:
        seen.append(values)
        return [len(value) for value in values]

    return function


def batching(seen: Batches, *, size: int = 3, delay: timedelta = LONG, **source: Any) -> Topology:
    topology = Topology("app")
    words = topology.stream("in", key=TEXT, value=TEXT, **source)
    words.map_batches(lengths(seen), size=size, delay=delay).to("out", value=NUMBER)
    return topology


def put(driver: TopologyTestDriver, *values: str, key: bytes = b"k", topic: str = "in", start: int = 0) -> None:
    """All at once: the worker takes them in one poll."""
    for number, value in enumerate(values, start):
        driver.broker.append(topic, key=key, value=value.encode(), timestamp=number, headers=[("n", b"%d" % number)])


def go(driver: TopologyTestDriver) -> None:
    driver.advance(timedelta(0))


# -- calls -------------------------------------------------------------------------------------------------


def calling(function: Callable[..., Any], **options: Any) -> Topology:
    topology = Topology("app")
    source = {name: options.pop(name) for name in list(options) if name.startswith("source_")}
    words = topology.stream("in", key=TEXT, value=TEXT, **{name[7:]: value for name, value in source.items()})
    words.map_async(function, **options).to("out", value=TEXT)
    return topology


async def shout(key: str, value: str) -> str:
    await asyncio.sleep(0)
    return value.upper()
