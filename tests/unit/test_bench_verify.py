"""The benchmarks' verifiers: what a contender must not get away with."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import orjson
import pytest

from benchmarks.expected import JOIN_WINDOW_MS, MODELS, counts
from benchmarks.inputs import KEYS, MINUTE_MS, events
from benchmarks.verify import Expectation, Output, WrongOutput, check

RECORDS = 3_000
BEGIN_MS = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
FIELDS = {
    "map": ("id", "twice"),
    "tumbling-mean": ("start", "mean"),
    "table-join": ("id", "amount", "name"),
    "stream-join": ("left", "right"),
}


@functools.cache
def model(work: str) -> Expectation:
    return MODELS[work](RECORDS, BEGIN_MS)


def correct(work: str) -> list[Output]:
    """Outputs as a contender without faults would write them."""
    return list(_correct(work))


@functools.cache
def _correct(work: str) -> list[Output]:
    found: list[Output] = []
    for key, values in model(work).values.items():
        for value in values:
            text = orjson.dumps(dict(zip(FIELDS[work], value, strict=True)) if work in FIELDS else value)  # type: ignore[call-overload]
            found.append((len(key) % 4, key, text))
    return found


every_work = pytest.mark.parametrize("work", MODELS)
in_order = pytest.mark.parametrize("work", [work for work in MODELS if model(work).mode == "sequence"])


@every_work
def test_correct_outputs_pass(work: str) -> None:
    outputs = correct(work)
    assert check(outputs, model(work)) == len(outputs) > 300


def busiest(outputs: list[Output]) -> int:
    """The place of an output in the middle of the key with the most of them."""
    key = Counter(output[1] for output in outputs).most_common(1)[0][0]
    places = [place for place, output in enumerate(outputs) if output[1] == key]
    assert len(places) > 2
    return places[len(places) // 2]


def lost(outputs: list[Output], at: int) -> None:
    del outputs[at]


def duplicated(outputs: list[Output], at: int) -> None:
    outputs.insert(at, outputs[at])


def swapped(outputs: list[Output], at: int) -> None:
    outputs[at], outputs[at + 1] = outputs[at + 1], outputs[at]


def another_value(outputs: list[Output], at: int) -> None:
    """One digit is another one."""
    partition, key, value = outputs[at]
    assert value is not None
    digit = next(place for place, character in enumerate(value) if chr(character).isdigit())
    outputs[at] = (partition, key, value[:digit] + (b"1" if value[digit] != ord("1") else b"2") + value[digit + 1 :])


def unreadable(outputs: list[Output], at: int) -> None:
    outputs[at] = (*outputs[at][:2], b"{")


def without_value(outputs: list[Output], at: int) -> None:
    outputs[at] = (*outputs[at][:2], None)


def without_key(outputs: list[Output], at: int) -> None:
    outputs[at] = (outputs[at][0], None, outputs[at][2])


def of_an_unknown_key(outputs: list[Output], at: int) -> None:
    outputs[at] = (outputs[at][0], b"key-x", outputs[at][2])


@every_work
@pytest.mark.parametrize(
    "doctor",
    [duplicated, unreadable, without_value, without_key, of_an_unknown_key],
    ids=lambda doctor: doctor.__name__,
)
def test_a_doctored_output_is_noticed(work: str, doctor: Callable[[list[Output], int], None]) -> None:
    outputs = correct(work)
    doctor(outputs, busiest(outputs))
    with pytest.raises(WrongOutput):
        check(outputs, model(work))


@in_order
@pytest.mark.parametrize("doctor", [lost, swapped, another_value], ids=lambda doctor: doctor.__name__)
def test_in_a_sequence_nothing_may_be_missing_or_out_of_place(
    work: str, doctor: Callable[[list[Output], int], None]
) -> None:
    outputs = correct(work)
    doctor(outputs, busiest(outputs))
    with pytest.raises(WrongOutput):
        check(outputs, model(work))


def test_a_lost_or_strange_pair_of_a_join_is_noticed() -> None:
    for doctor in (lost, another_value):
        outputs = correct("stream-join")
        doctor(outputs, busiest(outputs))
        with pytest.raises(WrongOutput, match="missing"):
            check(outputs, model("stream-join"))


def test_the_order_of_a_joins_pairs_does_not_matter() -> None:
    outputs = correct("stream-join")
    assert check(reversed(outputs), model("stream-join")) == len(outputs)


def test_a_key_in_two_partitions_is_noticed() -> None:
    outputs: list[Output] = [(0, b"a", b"1"), (1, b"a", b"2")]
    with pytest.raises(WrongOutput, match="partitions 0 and 1"):
        check(outputs, counts(Counter({b"a": 2})))


class TestEmittedAtCommit:
    """Some values may be left out, but not the newest, and none may come back."""

    expected = counts(Counter({b"a": 5, b"b": 1}), "latest")

    def outputs(self, *values: int) -> list[Output]:
        return [(0, b"b", b"1"), *((0, b"a", b"%d" % value) for value in values)]

    @pytest.mark.parametrize("values", [(5,), (1, 5), (1, 2, 3, 4, 5)])
    def test_accepted(self, values: tuple[int, ...]) -> None:
        assert check(self.outputs(*values), self.expected) == len(values) + 1

    @pytest.mark.parametrize("values", [(), (1, 4), (5, 5), (5, 4), (3, 2, 5), (6,), (0, 5), (5, 6)])
    def test_refused(self, values: tuple[int, ...]) -> None:
        with pytest.raises(WrongOutput):
            check(self.outputs(*values), self.expected)

    def test_of_values_that_are_no_range(self) -> None:
        expected = Expectation("latest", {b"a": ["x", "y", "x", "z"]}, bytes.decode)
        assert check([(0, b"a", b"x"), (0, b"a", b"x"), (0, b"a", b"z")], expected) == 3
        with pytest.raises(WrongOutput):
            check([(0, b"a", b"y"), (0, b"a", b"y"), (0, b"a", b"z")], expected)


class TestModels:
    """The expectations themselves, against the input taken another way."""

    def test_means_start_anew_in_each_window(self) -> None:
        found = MODELS["tumbling-mean"](61_000, BEGIN_MS)
        first = next(event for event in events(61_000) if event.id >= 60_000 and event.key == "key-0")
        starts = [start for start, _ in found.values[b"key-0"]]  # type: ignore[misc]
        assert sorted(set(starts)) == [BEGIN_MS, BEGIN_MS + MINUTE_MS]
        assert (BEGIN_MS + MINUTE_MS, float(first.amount)) in found.values[b"key-0"]

    def test_pairs_are_those_within_the_window(self) -> None:
        seen = list(events(RECORDS))
        plain = {
            (left.key.encode(), left.id, right.id)
            for left in seen[::2]
            for right in seen[1::2]
            if left.key == right.key and abs(left.id - right.id) <= JOIN_WINDOW_MS
        }
        modelled = {(key, *pair) for key, pairs in model("stream-join").values.items() for pair in pairs}  # type: ignore[misc]
        assert modelled == plain
        assert len(plain) > 300

    def test_keys_are_skewed(self) -> None:
        found = Counter(event.key for event in events(50_000))
        assert found.most_common(1)[0][0] == "key-0"
        assert 0.018 < found["key-0"] / 50_000 < 0.026
        assert max(int(key.removeprefix("key-")) for key in found) > KEYS * 0.99

    def test_a_shorter_input_is_the_beginning_of_a_longer_one(self) -> None:
        assert list(events(100)) == list(events(1_000))[:100]

    def test_a_record_has_about_sixty_bytes(self) -> None:
        sizes = [len(event.json()) for event in events(1_000)]
        assert 50 < sum(sizes) / len(sizes) < 70
        event = next(iter(events(1)))
        assert orjson.loads(event.json()) == {"id": 0, "group": event.group, "amount": event.amount, "note": "abcdefgh"}
