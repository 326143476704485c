"""A new version of a topology over state that stays, on a real broker: it goes on, or is refused before it joins."""

from __future__ import annotations

import json

import pytest

from tests.integration.support import Application

pytestmark = pytest.mark.broker

KEYS = [b"k%d" % number for number in range(20)]


def feed(application: Application, topic: str, times: int = 1) -> None:
    application.cluster.send(topic, [(key, b"5") for _ in range(times) for key in KEYS])


def newest(application: Application, topic: str) -> dict[bytes, dict[str, int]]:
    return {record.key: json.loads(record.value) for record in application.cluster.read(topic) if record.value}


@pytest.mark.parametrize("state", ["state", "another-machine"])
def test_a_new_version_goes_on_with_the_state_or_is_refused(application: Application, state: str) -> None:
    lines, out = application.create("lines", 2), application.create("out", 1)
    reader = application.reader(out)
    arguments = {"lines": lines, "out": out}
    first = application.start("aggregated", {**arguments, "named": ["n", "total"]})
    feed(application, lines, 3)
    reader.until(60)
    first.stop()

    changed = {**arguments, "named": ["largest", "n"], "grace_s": 7_200}
    second = application.start("aggregated", changed, state=state)
    feed(application, lines)
    reader.until(80)
    second.stop()
    assert set(map(str, newest(application, out).values())) == {"{'largest': 5, 'n': 4}"}
    assert "the ready aggregates largest are new" in second.log.read_text()
    assert "the ready aggregates total are gone" in second.log.read_text()

    refused = application.start("aggregated", {**changed, "gap_s": 60}, state=state).wait_error()
    assert refused["exit_code"] == 3
    assert "store 'sessions' holds state of another layout" in refused["message"]
    assert "sessions with a gap of 3600000 ms" in refused["message"]

    other = application.start("word_count", {"lines": lines, "counts": out}, state=state)
    # Another topology altogether: its store is a new one, and those of before are said.
    other.wait_tasks(4)
    assert "store 'totals' (ready aggregates) is not in the topology any more" in other.log.read_text()
    other.stop()


def test_a_rolling_update_of_ready_aggregates(application: Application) -> None:
    """Old and new processes side by side: the new ones go on, an old one ends rather than undo what they have done."""
    lines, out = application.create("lines", 4), application.create("out", 1)
    reader = application.reader(out)
    arguments = {"lines": lines, "out": out}
    old = application.start("aggregated", arguments)
    feed(application, lines, 2)
    reader.until(40)
    new = application.start("aggregated", {**arguments, "named": ["n", "total"]}, state="another-machine")
    new.wait(lambda status: len(new.running) == 2, "two of the four tasks")
    feed(application, lines)
    reader.until(60)
    # The new one leaves: the old one is given tasks that the new one has changed.
    new.stop()
    error = old.wait_error()
    assert error["exit_code"] == 3
    assert "started later with another topology" in error["message"]

    again = application.start("aggregated", {**arguments, "named": ["n", "total"]}, state="another-machine")
    feed(application, lines)
    reader.until(80)
    again.stop()
    assert {value["n"] for value in newest(application, out).values()} == {4}


def test_all_processes_go_back_to_earlier_ready_aggregates(application: Application) -> None:
    """One of the later version has to be gone first; others of the earlier one have not, whatever has committed yet."""
    lines, out = application.create("lines", 4), application.create("out", 1)
    reader = application.reader(out)
    earlier = {"lines": lines, "out": out}
    later = {**earlier, "named": ["n", "total"]}
    first = application.start("aggregated", earlier)
    feed(application, lines)
    reader.until(20)
    first.stop()
    newer = application.start("aggregated", later)
    feed(application, lines)
    reader.until(40)
    refused = application.start("aggregated", earlier, state="another-machine").wait_error()
    assert refused["exit_code"] == 3
    assert "has members that may run with them" in refused["message"]
    newer.stop()

    back = application.start("aggregated", earlier)
    back.wait_tasks(4)
    beside = application.start("aggregated", earlier, state="another-machine")
    beside.wait_tasks(2)
    feed(application, lines)
    reader.until(60)
    third = application.start("aggregated", earlier, state="a-third-machine")
    third.wait_tasks(1)
    for each in (third, beside, back):
        each.stop()
    assert set(map(str, newest(application, out).values())) == {"{'n': 3}"}
