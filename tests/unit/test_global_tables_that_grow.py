"""A global table's topic gets partitions while it is read: rows of the new ones are there within seconds, and after any
crash each row is the newest of its partition."""

from __future__ import annotations

import logging

import pytest

from tests.unit.application_support import Run
from tests.unit.test_global_tables import TOPICS, Crash, answers, ask, topology

SECONDS = 12
NEW = 3


def put(run: Run, key: str, value: str | None, partition: int) -> None:
    encoded = None if value is None else value.encode()
    run.broker.append("names", key=key.encode(), value=encoded, partition=partition)


def turns(run: Run) -> None:
    run.ticks(SECONDS * 4, 250)


def test_partitions_that_are_added_are_read_from_their_beginning(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(topology(), TOPICS)
    put(run, "a", "1", 0)
    turns(run)
    run.broker.add_partitions("names", 5)
    put(run, "b", "at once", NEW)
    with caplog.at_level(logging.WARNING, "streamstate"):
        turns(run)
    assert "topic 'names' has got partitions 3, 4, which are read from their beginning" in caplog.text
    put(run, "c", "later", NEW + 1)
    run.ticks(4)
    for key in "abc":
        ask(run, key)
    run.ticks(4)
    assert sorted(answers(run)) == ["a+1", "b+at once", "c+later"]


def test_those_that_were_added_while_it_was_down_too(caplog: pytest.LogCaptureFixture) -> None:
    """The rows that are there stay, and are not read again: those that are newer come behind them."""
    run = Run(topology(), TOPICS)
    for _ in range(3):
        put(run, "moved", "old", 0)
    turns(run)
    run.workers.pop("w").close()
    run.broker.add_partitions("names", 4)
    put(run, "moved", "new", NEW)
    run.start()
    with caplog.at_level(logging.WARNING, "streamstate"):
        run.ticks(8)
    assert "topic 'names' has got partitions 3, which are read from their beginning" in caplog.text
    ask(run, "moved")
    run.ticks(4)
    assert answers(run) == ["moved+new"]


def test_empty_partitions_are_new_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(topology(), TOPICS)
    put(run, "a", "1", 0)
    turns(run)
    run.broker.add_partitions("names", 4)
    turns(run)
    with caplog.at_level(logging.WARNING, "streamstate"):
        caplog.clear()
        run.restart()
        turns(run)
    assert caplog.text == ""


def played(crash_at: int | None) -> tuple[list[str], int]:
    run = Run(topology(), TOPICS, restore_batch=2)
    for number in range(4):
        put(run, f"n{number}", "old", number % 3)
    calls = 0

    def on_call(actor: str, call: str, phase: str) -> None:
        nonlocal calls
        if call.startswith(("restore.", "admin.")):
            calls += 1
            if calls == crash_at:
                raise Crash

    def through(count: int) -> None:
        for _ in range(count):
            try:
                run.ticks(1, 250)
            except Crash:
                run.workers.pop("w")
                run.broker.expel("w")
                run.start()

    run.start()
    through(8)
    run.broker.add_partitions("names", 4)
    for number in range(4):
        put(run, f"n{number}", f"new {number}", NEW)
    put(run, "n0", None, NEW)
    run.broker.on_call = on_call
    through(SECONDS * 4)
    run.broker.on_call = None
    for number in range(4):
        ask(run, f"n{number}")
    turns(run)
    return sorted(answers(run)), calls


def test_a_crash_at_any_call_leaves_the_newest_rows() -> None:
    right, calls = played(None)
    assert right == ["n0+None", "n1+new 1", "n2+new 2", "n3+new 3"]
    assert calls > 50
    for number in range(1, calls + 1, 3):
        assert played(number)[0] == right, number
