"""A batch ends after the record in hand: when the worker is told to stop, and when records have become slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamstate import Topology, serde
from tests.unit.application_support import Run

TEXT = serde.string()
NUMBER = serde.long()


def counting(function: Callable[[str, str], object], topics: list[str]) -> Topology:
    topology = Topology("t")
    stream = topology.stream(topics, key=TEXT, value=TEXT).peek(function)
    stream.group_by_key().count(store="counts").to_stream().to("out", value=NUMBER)
    return topology


def counted(run: Run) -> list[int]:
    return [NUMBER.deserialize(value or b"") for _, value in run.out()]


@pytest.mark.parametrize("topics", [["in"], ["in", "also"]], ids=["one input", "two inputs"])
def test_told_to_stop_it_finishes_the_record_in_hand_and_no_other(topics: list[str]) -> None:
    run: Run
    seen: list[str] = []

    def function(key: str, value: str) -> None:
        seen.append(value)
        if value == "7":
            run.worker.interrupt()

    run = Run(counting(function, topics), dict.fromkeys(topics, 1))
    run.ticks(3)
    run.send(*[b"%d" % number for number in range(30)])
    run.until(lambda: "7" in seen, step_ms=2_000)
    run.ticks(3)
    run.workers.pop("w").close()
    assert seen == [str(number) for number in range(8)]
    assert counted(run) == list(range(1, 9))
    assert run.offset() == 8
    seen.clear()
    run.start()
    run.until(lambda: len(run.out()) == 30, step_ms=2_000)
    assert seen == [str(number) for number in range(8, 30)]
    assert counted(run) == list(range(1, 31))


def test_told_to_stop_between_two_partitions_of_a_batch() -> None:
    run: Run
    topology = Topology("t")
    seen: list[str] = []

    def function(key: str, value: str) -> None:
        seen.append(value)
        if value == "last":
            run.worker.interrupt()

    topology.stream("in", key=TEXT, value=TEXT).peek(function).to("out")
    run = Run(topology, {"in": 2})
    run.ticks(3)
    for number in range(2):
        run.send(b"first", b"last", partition=number)
    run.ticks(1)
    run.workers.pop("w").close()
    assert seen == ["first", "last"]
    assert sorted([run.offset(partition=0) or 0, run.offset(partition=1) or 0]) == [0, 2]
    run.start()
    run.until(lambda: len(run.out()) == 4)
    assert seen == ["first", "last"] * 2


@pytest.mark.parametrize("topics", [["in"], ["in", "also"]], ids=["one input", "two inputs"])
def test_records_that_become_slow_in_the_middle_of_a_batch_end_it(topics: list[str]) -> None:
    """A large batch was asked for while records were quick. Somebody beside the worker looks now and then."""
    run: Run
    slow, turns = False, [0]

    def function(key: str, value: str) -> None:
        turns[0] += 1
        if slow:
            run.clock.advance(700)
            run.worker.halt_if_slow(1_000)

    run = Run(
        counting(function, topics), dict.fromkeys(topics, 1), max_task_idle_ms=0, fetch_wait_ms=0, behind_wait_ms=0
    )
    run.send(*[b"x"] * 3_000)
    run.until(lambda: len(run.out()) == 3_000)
    slow, turns[0], longest = True, 0, 0

    def watch(actor: str, call: str, phase: str) -> None:
        nonlocal longest
        longest = max([longest, *run.broker.transactions.open_transactions().values()])

    run.broker.on_call = watch
    run.send(*[b"x"] * 40)
    run.ticks(1)
    # Two records after the one second, not the batch of 40.
    assert turns[0] == 2
    run.until(lambda: len(run.out()) == 3_040)
    assert counted(run) == list(range(1, 3_041))
    assert turns[0] == 40, "none was processed twice"
    assert longest <= 2_000
    assert run.worker.status().rollbacks == 0


def test_slow_records_of_several_inputs_make_small_batches_too() -> None:
    run: Run
    done: list[str] = []

    def function(key: str, value: str) -> None:
        done.append(value)
        run.clock.advance(300)

    run = Run(counting(function, ["in", "also"]), {"in": 1, "also": 1}, fetch_wait_ms=0, behind_wait_ms=0)
    run.send(*[b"x"] * 20)
    run.send(*[b"x"] * 20, topic="also")
    run.until(lambda: len(done) >= 12)
    before = len(done)
    run.ticks(1)
    assert len(done) == before + 1


def test_a_commit_within_a_batch_does_not_count_as_slow_records() -> None:
    run: Run
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).to("out")
    run = Run(topology, {"in": 4}, commit_interval_ms=10, max_poll_records=64)

    def slow(actor: str, call: str, phase: str) -> None:
        if call == "producer.commit" and phase == "before":
            run.clock.advance(5_000)
            run.worker.halt_if_slow(1_000)

    run.broker.on_call = slow
    for number in range(4):
        run.send(*[b"x"] * 200, partition=number)
    run.until(lambda: len(run.out()) == 800, limit=40)
    assert run.worker.status().rollbacks == 0
    assert run.worker.status().processed == 800
