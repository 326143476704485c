"""The proof of the demonstration: what its topology makes of real flights stands it, any other output does not."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from streamstate_cli.demonstration import data, show
from streamstate_cli.demonstration.proof import GROUPINGS, Output, Tally, check, tally

from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock


@pytest.fixture(scope="module")
def sample() -> list[dict[str, Any]]:
    flights = list(data.flights(data.find()))
    # Every carrier, and cancelled flights among them.
    return [*flights[:400], *flights[100_000:100_400], *(flight for flight in flights if flight["carrier"] == "OO")]


@pytest.fixture(scope="module")
def outputs(sample: list[dict[str, Any]]) -> dict[str, list[Output]]:
    """What topologies/flight_delays.py makes of the sample, on the broker in memory."""
    clock = ManualClock()
    broker = MemoryBroker(clock)
    broker.create_topic("flights", 4)
    for topic in GROUPINGS:
        broker.create_topic(topic, 4)
    for flight in sample:
        key, value = data.key_of(flight).encode(), orjson.dumps(flight)
        broker.append("flights", key=key, value=value, timestamp=clock.now_ms())
    topology = runpy.run_path(str(show.topology_file()))["topology"]
    worker = MemoryApplication(topology.build(), broker, clock).worker("one")
    for _ in range(200):
        worker.tick()
        clock.advance(50)
    worker.close()
    return {
        topic: [
            Output(record.partition(), record.offset(), record.timestamp()[1], record.key(), record.value())
            for record in broker.read(topic)
        ]
        for topic in GROUPINGS
    }


@pytest.mark.parametrize("topic", GROUPINGS)
def test_the_topology_stands_the_proof(
    topic: str, sample: list[dict[str, Any]], outputs: dict[str, list[Output]]
) -> None:
    checked = check(topic, outputs[topic], tally(sample)[topic])
    assert (checked.problems, checked.shown) == (0, [])
    assert checked.outputs == len(sample)
    assert sum(value["flights"] for value in checked.last.values()) == len(sample)


def changed(output: Output, **fields: Any) -> Output:
    assert output.value is not None
    return replace(output, value=orjson.dumps({**orjson.loads(output.value), **fields}))


def at(outputs: list[Output], key: bytes, number: int) -> int:
    """Where the key's output of this number is; negative numbers count from its last."""
    return [index for index, output in enumerate(outputs) if output.key == key][number]


def missing(outputs: list[Output]) -> list[Output]:
    del outputs[at(outputs, b"EWR", 7)]
    return outputs


def missing_last(outputs: list[Output]) -> list[Output]:
    del outputs[at(outputs, b"LGA", -1)]
    return outputs


def repeated(outputs: list[Output]) -> list[Output]:
    index = at(outputs, b"JFK", 3)
    return [*outputs[: index + 1], outputs[index], *outputs[index + 1 :]]


def swapped(outputs: list[Output]) -> list[Output]:
    one, other = at(outputs, b"EWR", 3), at(outputs, b"EWR", 4)
    outputs[one], outputs[other] = outputs[other], outputs[one]
    return outputs


def counted_twice(outputs: list[Output]) -> list[Output]:
    for number in range(5, 20):
        index = at(outputs, b"EWR", number)
        outputs[index] = changed(outputs[index], flights=number + 2)
    return outputs


def started_again(outputs: list[Output]) -> list[Output]:
    index = at(outputs, b"JFK", 9)
    outputs[index] = changed(outputs[index], flights=1)
    return outputs


def last_with(**fields: Any) -> Callable[[list[Output]], list[Output]]:
    def change(outputs: list[Output]) -> list[Output]:
        index = at(outputs, b"EWR", -1)
        outputs[index] = changed(outputs[index], **fields)
        return outputs

    return change


def other_time(outputs: list[Output]) -> list[Output]:
    index = at(outputs, b"EWR", -1)
    outputs[index] = replace(outputs[index], timestamp_ms=outputs[index].timestamp_ms + 1)
    return outputs


def other_partition(outputs: list[Output]) -> list[Output]:
    index = at(outputs, b"EWR", 5)
    outputs[index] = replace(outputs[index], partition=outputs[index].partition + 1)
    return outputs


def strange_key(outputs: list[Output]) -> list[Output]:
    return [*outputs, Output(0, 99_999, 0, b"ZRH", b'{"flights":1,"mean_delay":null,"max_delay":null}')]


def whole_key_gone(outputs: list[Output]) -> list[Output]:
    return [output for output in outputs if output.key != b"LGA"]


def not_json(outputs: list[Output]) -> list[Output]:
    outputs[5] = replace(outputs[5], value=b"{")
    return outputs


def no_value(outputs: list[Output]) -> list[Output]:
    outputs[5] = replace(outputs[5], value=None)
    return outputs


def count_is_text(outputs: list[Output]) -> list[Output]:
    outputs[5] = changed(outputs[5], flights="6")
    return outputs


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing, "EWR: 9 flights at offset"),
        (missing_last, "LGA ends with flights"),
        (repeated, "JFK: 4 flights at offset"),
        (swapped, "where 4 must follow"),
        (counted_twice, "EWR: 7 flights at offset"),
        (started_again, "JFK: 1 flights at offset"),
        (last_with(mean_delay=1.25), "EWR ends with mean_delay 1.25"),
        (last_with(max_delay=1), "EWR ends with max_delay 1"),
        (other_time, "EWR ends at event time"),
        (other_partition, "EWR is in partitions"),
        (strange_key, "ZRH is not in the source"),
        (whole_key_gone, "LGA is not in the output"),
        (not_json, "is no such output"),
        (no_value, "no key or no value"),
        (count_is_text, "'6' flights"),
        (lambda outputs: [], "0 outputs for"),
    ],
)
def test_the_proof_fails_on_any_wrong_output(
    spoil: Callable[[list[Output]], list[Output]],
    said: str,
    sample: list[dict[str, Any]],
    outputs: dict[str, list[Output]],
) -> None:
    topic = "delays-by-origin"
    checked = check(topic, spoil(list(outputs[topic])), tally(sample)[topic])
    assert checked.problems > 0
    assert any(said in text for text in checked.shown), checked.shown
    assert all(text.startswith(topic) for text in checked.shown)


def test_only_the_first_problems_are_kept_in_words() -> None:
    spoiled = [Output(0, offset, 0, b"EWR", b'{"flights":7}') for offset in range(100)]
    checked = check("delays-by-origin", spoiled, {"EWR": Tally(flights=100)})
    assert checked.problems >= 100
    assert len(checked.shown) == 10
