"""The proof: what is in the output topics against what is in the source file.

Rule of this module: pure. It knows neither Kafka nor the topology; it counts the file by itself and compares
every output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["GROUPINGS", "Checked", "Output", "Tally", "check", "tally"]

# Output topic to the field of a flight that it is keyed by.
GROUPINGS = {"delays-by-carrier": "carrier", "delays-by-origin": "origin"}
MAX_SHOWN = 10


@dataclass(slots=True)
class Tally:
    """One carrier's or origin's numbers, counted directly.

    Attributes:
        flights: all, cancelled ones included.
        departed: those with a delay.
        delay_sum: of these, in minutes.
        max_delay: None when none departed.
        latest_ms: the latest scheduled departure.
    """

    flights: int = 0
    departed: int = 0
    delay_sum: int = 0
    max_delay: int | None = None
    latest_ms: int = 0

    @property
    def mean_delay(self) -> float | None:
        """None when none departed."""
        return self.delay_sum / self.departed if self.departed else None


@dataclass(frozen=True, slots=True)
class Output:
    """One record of an output topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Checked:
    """What one output topic was found to be.

    Attributes:
        topic: its name.
        outputs: records in it.
        last: by key, the value of the last one.
        problems: how many records or keys are not as they must be.
        shown: the first of them, in words.
    """

    topic: str
    outputs: int = 0
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: int = 0
    shown: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Count a problem, and keep it if it is among the first."""
        self.problems += 1
        if self.problems <= MAX_SHOWN:
            self.shown.append(f"{self.topic}: {text}")


def tally(flights: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Tally]]:
    """Count the flights directly: by output topic, then by key."""
    found: dict[str, dict[str, Tally]] = {topic: {} for topic in GROUPINGS}
    groups = [(field_name, found[topic]) for topic, field_name in GROUPINGS.items()]
    for flight in flights:
        delay, scheduled_ms = flight["dep_delay"], flight["scheduled_ms"]
        for field_name, by_key in groups:
            key = flight[field_name]
            one = by_key.get(key)
            if one is None:
                one = by_key[key] = Tally()
            one.flights += 1
            if scheduled_ms > one.latest_ms:
                one.latest_ms = scheduled_ms
            if delay is not None:
                one.departed += 1
                one.delay_sum += delay
                if one.max_delay is None or delay > one.max_delay:
                    one.max_delay = delay
    return found


def check(topic: str, outputs: Iterable[Output], expected: Mapping[str, Tally]) -> Checked:
    """Compare every output of one topic with the source.

    Per key the counts must be 1, 2, 3, ... n in this order and in one partition, n being the number of flights in
    the file; the last output must show the mean and the maximum that a direct computation gives, and carry the
    event time of the latest flight.

    Args:
        topic: its name, for the messages.
        outputs: all its records, in the order of their offsets within each partition.
        expected: the direct computation, from `tally`.
    """
    checked = Checked(topic)
    last: dict[str, tuple[Output, dict[str, Any]]] = {}
    for key, output, value in _decoded(outputs, checked):
        before = last.get(key)
        wanted = before[1]["flights"] + 1 if before else 1
        if value["flights"] != wanted:
            checked.problem(
                f"{key}: {value['flights']:,} flights at offset {output.offset} of partition {output.partition}, "
                f"where {wanted:,} must follow"
            )
        if before and before[0].partition != output.partition:
            checked.problem(f"{key} is in partitions {before[0].partition} and {output.partition}")
        last[key] = output, value
    for key in sorted(expected.keys() | last.keys()):
        _check_end(checked, key, last.get(key), expected.get(key))
    total = sum(one.flights for one in expected.values())
    if checked.outputs != total:
        checked.problem(f"{checked.outputs:,} outputs for {total:,} flights")
    counted = sum(value["flights"] for _, value in last.values())
    if counted != total:
        checked.problem(f"the last counts add up to {counted:,}, not to {total:,}")
    checked.last = {key: value for key, (_, value) in last.items()}
    return checked


def _decoded(outputs: Iterable[Output], checked: Checked) -> Iterator[tuple[str, Output, dict[str, Any]]]:
    loads = orjson.loads
    for output in outputs:
        checked.outputs += 1
        try:
            if output.key is None or output.value is None:
                raise ValueError("no key or no value")
            key, value = output.key.decode(), loads(output.value)
            if type(value["flights"]) is not int:
                raise ValueError(f"{value['flights']!r} flights")
        except (ValueError, KeyError, TypeError) as error:
            checked.problem(f"offset {output.offset} of partition {output.partition} is no such output: {error!r}")
            continue
        yield key, output, value


def _check_end(checked: Checked, key: str, last: tuple[Output, dict[str, Any]] | None, expected: Tally | None) -> None:
    if last is None or expected is None:
        checked.problem(f"{key} is not in the {'output' if last is None else 'source'}")
        return
    output, value = last
    wanted = {"flights": expected.flights, "mean_delay": expected.mean_delay, "max_delay": expected.max_delay}
    for name, right in wanted.items():
        if value.get(name) != right:
            checked.problem(f"{key} ends with {name} {value.get(name)}, which must be {right}")
    if output.timestamp_ms != expected.latest_ms:
        checked.problem(f"{key} ends at event time {output.timestamp_ms}, which must be {expected.latest_ms}")
