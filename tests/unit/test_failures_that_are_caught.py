"""A record fails whatever a processor catches of the operators behind it; what is no pair is not taken for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import ProcessingError, Processor, Topology, ValueProcessor, dead_letter, serde, stores
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT = serde.string()
SECOND = timedelta(seconds=1)


class Catches(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        with contextlib.suppress(Exception):
            self.context.forward(key, value)


class CatchesWithHeaders(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        with contextlib.suppress(Exception):
            self.context.forward(key, value, headers=[("a", b"1")])


class RaisesAnother(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        try:
            self.context.forward(key, value)
        except Exception as error:
            raise KeyError("of the processor") from error


class GoesOn(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        try:
            self.context.forward(key, value)
        except Exception:  # noqa: BLE001 - as users do
            self.context.forward(key, "instead")


class CatchesValues(ValueProcessor[str, str, str]):
    def process(self, key: str, value: str) -> None:
        with contextlib.suppress(Exception):
            self.context.forward(value)


class Count(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        counts = self.context.store("counts")
        counts.put(key, (counts.get(key) or 0) + 1)


def refuse(key: str, value: str) -> None:
    if value == "bad":
        raise ValueError("behind the processor")


def built(processor: type[Any], on_error: Any = "fail", own: Any = None) -> Topology:
    """The record is counted, sent, and only then refused, behind the processor."""
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error=on_error)
    step = stream.process_values if issubclass(processor, ValueProcessor) else stream.process
    behind = step(processor, name="catches", **({} if own is None else {"on_error": own}))
    behind.process(Count, stores=[stores.key_value("counts", key=TEXT, value=serde.long())])
    behind.to("out", key=TEXT, value=TEXT)
    behind.for_each(refuse, name="refuse")
    return topology


PROCESSORS = [Catches, CatchesWithHeaders, RaisesAnother, GoesOn, CatchesValues]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("on_error", ["continue", dead_letter("rejected")], ids=str)
def test_a_failure_that_is_caught_leaves_the_whole_record_out(processor: type[Any], on_error: Any) -> None:
    with TopologyTestDriver(built(processor, on_error), partitions={"out": 1}) as driver:
        for value in ("a", "bad", "b"):
            driver.input("in").pipe("k", value)
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["a", "b"]
        assert driver.store("counts").get("k") == 2
        assert driver.status().failed == 1
        if on_error != "continue":
            assert driver.output("rejected", key=TEXT, value=TEXT).values() == ["bad"]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_failure_that_is_caught_is_that_of_the_operator_behind(processor: type[Any]) -> None:
    """Under the source's policy, whatever the processor's own one says."""
    with TopologyTestDriver(built(processor, "fail", own="continue"), partitions={"out": 1}) as driver:
        driver.input("in").pipe("k", "a")
        with pytest.raises(ProcessingError, match=r"operator 'refuse' failed at topic 'in', partition 0, offset 1"):
            driver.input("in").pipe("k", "bad")


def test_a_failure_that_is_caught_in_a_timer_ends_the_process() -> None:
    class Remind(Processor[str, str, str, str]):
        def init(self, context: Any) -> None:
            super().init(context)
            self.timers = context.timers("timers", self.due)

        def process(self, key: str, value: str) -> None:
            self.timers.set(key, self.context.timestamp + 1)

        def due(self, key: str, at_ms: int) -> None:
            with contextlib.suppress(Exception):
                self.context.forward(key, "bad")

    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    stream.process(Remind, stores=[stores.timers("timers", key=TEXT)]).for_each(refuse, name="refuse")
    with TopologyTestDriver(topology) as driver:
        driver.input("in").pipe("k", "a", timestamp=0)
        with pytest.raises(ProcessingError, match="operator 'refuse'"):
            driver.input("in").pipe("another", "a", timestamp=5)


def test_a_failure_that_is_caught_in_init_ends_the_process() -> None:
    """What it forwards to is another processor, which has no ``init`` behind it yet."""

    class AtOnce(Catches):
        def init(self, context: Any) -> None:
            super().init(context)
            self.process("k", "bad")

    with (
        pytest.raises(ProcessingError, match=r"operator 'catches\.process'"),
        TopologyTestDriver(built(AtOnce, "continue")),
    ):
        pass


NO_PAIRS: dict[str, Any] = {
    "text": "ab",
    "bytes": b"ab",
    "set": {"a", "b"},
    "dict": {"a": 1, "b": 2},
    "generator": (letter for letter in "ab"),
    "three": ("a", "b", "c"),
    "number": 7,
}
STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "map": lambda stream, bad: stream.map(lambda k, v: bad if v == "bad" else (k, v)),
    "map of lists": lambda stream, bad: stream.map(lambda k, v: bad if v == "bad" else [k, v]),
    "flat_map": lambda stream, bad: stream.flat_map(lambda k, v: [(k, v), bad] if v == "bad" else [(k, v)]),
    "flat_map of lists": lambda stream, bad: stream.flat_map(lambda k, v: [[k, v], bad] if v == "bad" else [[k, v]]),
}


@pytest.mark.parametrize("bad", NO_PAIRS.values(), ids=NO_PAIRS)
@pytest.mark.parametrize("step", STEPS)
def test_what_is_no_pair_fails_its_record(step: str, bad: Any) -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    STEPS[step](stream, bad).to("out", key=TEXT, value=TEXT)
    with TopologyTestDriver(topology, partitions={"out": 1}) as driver:
        for value in ("a", "bad", "b"):
            driver.input("in").pipe("k", value)
        assert driver.output("out", key=TEXT, value=TEXT).values() == ["a", "b"]
        assert driver.status().failed == 1
