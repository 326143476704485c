"""The timelines of docs/processors.md: what a store with a time to live shows, and when timers are called. As those of
docs/windows.md they are what a topology made of its records. ``python -m docs.pictures.draw`` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from docs.pictures.timelines import OTHER, Bar, Mark, seconds, svg
from streamstate import Processor, ProcessorContext, Topology, serde, stores
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
TTL_S, QUIET_S, END_S = 10, 5, 35


class Remember(Processor[str, str, str, str]):
    """Keeps the newest value of each key but one."""

    def process(self, key: str, value: str) -> None:
        if key != "reader":
            self.context.store("recent").put(key, value)


class Remind(Processor[str, str, str, str]):
    """Calls back when nothing has come for some seconds."""

    def init(self, context: ProcessorContext[str, str]) -> None:
        super().init(context)
        self.timers = context.timers("quiet", lambda key, time_ms: context.forward(key, str(time_ms)))

    def process(self, key: str, value: str) -> None:
        self.timers.set(key, self.context.timestamp + QUIET_S * 1_000)


def topology_of(processor: type[Processor[str, str, str, str]], store: Any) -> Topology:
    topology = Topology("timeline")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.process(processor, stores=[store]).to("out", key=TEXT, value=TEXT)
    return topology


def counted() -> Topology:
    """A count that forgets, of all keys but one."""
    topology = Topology("timeline")
    stream = topology.stream("in", key=TEXT, value=TEXT)
    stream.filter(lambda key, value: key != "reader").group_by_key().count(store="recent", ttl=seconds(TTL_S))
    return topology


def shown(title: str, topology: Topology, records: Sequence[tuple[int, str]]) -> str:
    """For how long a store has what for the key of these records, as a reader sees it in each second."""
    waiting, bars = list(records), []
    with TopologyTestDriver(topology) as driver:
        seen, since = None, 0
        for second in range(END_S + 1):
            while waiting and waiting[0][0] == second:
                driver.input("in").pipe("k", waiting.pop(0)[1], timestamp=second * 1_000)
            driver.input("in").pipe("reader", "", timestamp=second * 1_000)
            value = driver.store("recent").get("k")
            if value != seen:
                if seen is not None:
                    bars.append(Bar(since * 1_000, second * 1_000, str(seen)))
                seen, since = value, second
        assert seen is None, "the last value is still there at the end of the picture"
    return svg(title, [Mark(time, value) for time, value in records], bars, END_S)


def timers(records: Sequence[tuple[int, str, str]]) -> str:
    """Timers that each record of a key sets anew, and the record that has them called."""
    bars = []
    with TopologyTestDriver(topology_of(Remind, stores.timers("quiet", key=TEXT))) as driver:
        called = driver.output("out", key=TEXT, value=TEXT)
        newest: dict[str, int] = {}
        for time, key, value in records:
            driver.input("in").pipe(key, value, timestamp=time * 1_000)
            for record in called.read_all():
                assert record.value is not None, "a call without its time"
                bars.append(Bar(newest[record.key or ""] * 1_000, int(record.value), f"called by {value}"))
            newest[key] = time
    marks = [Mark(time, value) if key == "k" else Mark(time, value, OTHER) for time, key, value in records]
    title = f"Timers {QUIET_S} s after the last record of a key: key k (black) and another one (white)"
    return svg(title, marks, bars, END_S)


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    records = [(2, "k", "a"), (5, "k", "b"), (12, "x", "c"), (16, "k", "d"), (24, "x", "e"), (33, "k", "f")]
    three = [(2, "a"), (8, "b"), (22, "c")]
    kept = topology_of(Remember, stores.key_value("recent", key=TEXT, value=TEXT, ttl=seconds(TTL_S)))
    return {
        "time_to_live": shown(f"What a store with a ttl of {TTL_S} s has for the key of these records", kept, three),
        "forgetting": shown(f"A count of the key of these records, with a ttl of {TTL_S} s", counted(), three),
        "timers": timers(records),
    }
