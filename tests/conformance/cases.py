"""The cases as values, and the comparison of what came out with what had to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from streamstate import Topology
from streamstate.testing.driver.driver import StateDisk, TopologyTestDriver
from streamstate.testing.driver.topics import OutputTopic, Record

# One output as it is compared: key, value, time.
Output = tuple[Any, Any, int]


@dataclass(frozen=True, slots=True)
class Case:
    """See README.md in this directory."""

    source: str
    topology: str
    inputs: Sequence[Mapping[str, Any]]
    expected_outputs: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    comparison: str
    note: str
    cross_key_order_impl_defined: bool = False

    @property
    def outputs(self) -> list[str]:
        """Topics that are looked at."""
        return list(dict.fromkeys(item["topic"] for item in (*self.checks, *self.expected_outputs)))

    @property
    def topics(self) -> list[str]:
        """All that it names."""
        return sorted({record["topic"] for record in self.inputs} | set(self.outputs))


@cache
def load() -> dict[str, Case]:
    """All cases by name."""
    return _read("cases.json") | own()


@cache
def own() -> dict[str, Case]:
    """Those that we have thought of ourselves."""
    return _read("own_cases.json")


def _read(name: str) -> dict[str, Case]:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return {case["source"]: Case(**case) for case in json.loads(text)}


# -- running -----------------------------------------------------------------------------------------------


def run(case: Case, topology: Topology, disk: StateDisk | None = None) -> list[str]:
    """Play the case on the test driver; what is wrong, in words, or nothing."""
    with TopologyTestDriver(topology, topics=case.topics, disk=disk) as driver:
        readers = {topic: driver.output(topic) for topic in case.outputs}

        def feed(record: Mapping[str, Any]) -> None:
            driver.input(record["topic"]).pipe(record["key"], record["value"], timestamp=record["ts"])

        return play(case, feed, lambda topic: take(readers[topic]))


def play(
    case: Case, feed: Callable[[Mapping[str, Any]], None], new_outputs: Callable[[str], list[Output]]
) -> list[str]:
    """Feed the case's inputs one by one, compare at its checks; what is wrong, in words, or nothing.

    Args:
        case: to be played.
        feed: puts one of its inputs in, and returns when it is done with.
        new_outputs: what has come into a topic since the last time.
    """
    wrong: list[str] = []
    seen: dict[str, list[Output]] = {topic: [] for topic in case.outputs}
    before = dict.fromkeys(case.outputs, 0)
    for number, record in enumerate(case.inputs, 1):
        feed(record)
        for check in case.checks:
            if check["after_input"] != number:
                continue
            topic = check["topic"]
            found = new_outputs(topic)
            seen[topic] += found
            wrong += compared(case, topic, found, since=before[topic], upto=number, count=check["count"])
            before[topic] = number
    if case.comparison == "set_per_window":
        for topic in case.outputs:
            wrong += windows_compared(case, topic, seen[topic])
    return wrong


def take(reader: OutputTopic[Any, Any]) -> list[Output]:
    """What came since the last time."""
    return [plain_record(record) for record in reader.read_all()]


def plain_record(record: Record[Any, Any]) -> Output:
    """As the cases write it."""
    return plain(record.key), record.value, record.timestamp


def plain(key: Any) -> Any:
    """A key as the cases write it; a windowed one becomes a dict."""
    if hasattr(key, "start") and hasattr(key, "end"):
        return {"key": key.key, "start": key.start, "end": key.end}
    return key


# -- comparing ---------------------------------------------------------------------------------------------


def compared(case: Case, topic: str, found: list[Output], *, since: int, upto: int, count: int | None) -> list[str]:
    """Compare what one check found.

    Args:
        found: outputs since the check before.
        since, upto: numbers of the inputs between which they came.
        count: how many there must be; None: any number.
    """
    if case.comparison == "set_per_window":
        return [] if count is None or len(found) == count else [f"{topic}: {len(found)} outputs, not {count}"]
    wanted = [o for o in case.expected_outputs if o["topic"] == topic and since < o["after_input"] <= upto]
    if case.comparison == "map":
        last = {repr(key): value for key, value, _ in found}
        right = {repr(output["key"]): output["value"] for output in wanted} == last
        right = right and (count is None or len(last) == count)
    elif case.comparison == "ordered":
        right = (count is None or len(found) == count) and in_order(case, wanted, found)
    else:
        raise ValueError(f"{case.source}: unknown comparison {case.comparison!r}")
    if right:
        return []
    return [f"{topic}, inputs {since + 1} to {upto}: expected {_shown(wanted)}, came {found}"]


def in_order(case: Case, wanted: Sequence[Mapping[str, Any]], found: Sequence[Output]) -> bool:
    """Equal in order, within each key where the order between keys is free."""
    if not case.cross_key_order_impl_defined:
        return same(wanted, found)
    keys = {repr(inner(output["key"])) for output in wanted} | {repr(inner(key)) for key, _, _ in found}
    return all(
        same(
            [output for output in wanted if repr(inner(output["key"])) == key],
            [output for output in found if repr(inner(output[0])) == key],
        )
        for key in keys
    )


def inner(key: Any) -> Any:
    """The key itself where it is windowed."""
    return key["key"] if isinstance(key, dict) else key


def same(wanted: Sequence[Mapping[str, Any]], found: Sequence[Output]) -> bool:
    """One by one; the time only where the case states one."""
    return len(wanted) == len(found) and all(
        (expected["key"], expected["value"], expected.get("ts", time)) == (key, value, time)
        for expected, (key, value, time) in zip(wanted, found, strict=True)
    )


def windows_compared(case: Case, topic: str, found: Sequence[Output]) -> list[str]:
    """The set of (value, time) of each window over the whole run."""
    wanted = _by_window(
        [(output["key"], output["value"], output["ts"]) for output in case.expected_outputs if output["topic"] == topic]
    )
    came = _by_window(found)
    return [
        f"{topic}, window {window}: expected {wanted.get(window, set())}, came {came.get(window, set())}"
        for window in sorted(wanted.keys() | came.keys())
        if wanted.get(window) != came.get(window)
    ]


def _by_window(outputs: Sequence[Output]) -> dict[tuple[str, int, int], set[tuple[Any, int]]]:
    windows: dict[tuple[str, int, int], set[tuple[Any, int]]] = {}
    for key, value, time in outputs:
        windows.setdefault((repr(key["key"]), key["start"], key["end"]), set()).add((value, time))
    return windows


def _shown(wanted: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any, Any]]:
    return [(output["key"], output["value"], output.get("ts", "any time")) for output in wanted]


# -- builders ----------------------------------------------------------------------------------------------

Builder = Callable[[Case], Topology]
BUILDERS: dict[str, Builder] = {}


def builds(*sources: str) -> Callable[[Builder], Builder]:
    """Register a function as the builder of the cases of these names."""

    def register(builder: Builder) -> Builder:
        for source in sources:
            if source not in load():
                raise ValueError(f"there is no case {source!r}")
            if source in BUILDERS:
                raise ValueError(f"two builders for {source!r}")
            BUILDERS[source] = builder
        return builder

    return register
