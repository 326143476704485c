"""Values that are too large, and results that were held back for the commit, meet the error policy of their source."""

from __future__ import annotations

from typing import Any

import pytest

from streamstate import ProcessingError, Topology, dead_letter, serde
from streamstate.engine.assign.topics import DEFAULT_BATCH_BYTES, prepare_topics
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock
from tests.unit.application_support import START_MS, Pair, Run

TEXT = serde.string()
POLICIES = ["continue", dead_letter("rejected")]
HOUR_MS = 3_600_000


def copying(on_error: Any, **options: Any) -> Run:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT, on_error=on_error).map_values(lambda v: v * 1_000).to("out", value=TEXT)
    run = Run(topology, {"in": 1, "out": 1, "rejected": 1}, **options)
    run.broker.topic("out").config["max.message.bytes"] = "5000"
    return run


def letters(run: Run) -> list[tuple[Pair, dict[str, str]]]:
    found = []
    for record in run.broker.read("rejected"):
        headers = {name.rpartition(".")[2]: (value or b"").decode() for name, value in record.headers() or ()}
        found.append(((record.key(), record.value()), headers))
    return found


# -- too large -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("on_error", POLICIES, ids=str)
def test_a_value_larger_than_its_topic_takes_meets_the_policy(on_error: Any, exactly_once: bool) -> None:
    run = copying(on_error, exactly_once=exactly_once)
    run.send(b"a", b"much too large", b"b")
    run.ticks(8)
    assert run.out() == [(b"k", b"a" * 1_000), (b"k", b"b" * 1_000)]
    assert run.offset() == 3
    status = run.worker.status()
    assert (status.failed, status.rollbacks) == (1, 0)
    if on_error != "continue":
        [(pair, headers)] = letters(run)
        assert pair == (b"k", b"much too large")
        assert "14001 bytes, more than the 4907 that topic 'out' takes" in headers["message"]
        assert "max.message.bytes" in headers["message"]


def test_under_fail_the_refusal_ends_the_worker() -> None:
    run = copying("fail")
    run.send(b"a", b"much too large", b"b")
    with pytest.raises(ProcessingError, match=r"MSG_SIZE_TOO_LARGE.*max\.message\.bytes"):
        run.ticks(8)
    assert run.out() == []


def test_what_just_fits_is_taken() -> None:
    run = copying("continue")
    run.broker.topic("out").config["max.message.bytes"] = "1093"
    # With the key that is one byte over, and in the second just what fits.
    run.send(b"a")
    run.send((b"", b"a"))
    run.ticks(8)
    assert run.out() == [(b"", b"a" * 1_000)]


def test_headers_count_too() -> None:
    run = copying("continue")
    run.send(b"aaaa", headers=[("h", b"x" * 900)])
    run.send(b"aaaa", headers=[("h", b"x" * 500)])
    run.ticks(8)
    assert [len(record.headers() or ()) for record in run.broker.read("out")] == [1]
    assert run.worker.status().failed == 1


def test_a_producer_that_compresses_is_held_to_its_own_limit_only() -> None:
    run = copying("continue", compressed=True, record_bytes=9_000)
    run.broker.topic("out").config["max.message.bytes"] = "20000"
    run.send(b"a" * 8, b"a" * 9)
    run.ticks(8)
    assert [len(value or b"") for _, value in run.out()] == [8_000]


def test_a_dead_letter_that_is_too_large_itself_goes_without_its_value() -> None:
    run = copying(dead_letter("rejected"))
    run.broker.topic("rejected").config["max.message.bytes"] = "2000"
    run.send(b"x" * 3_000)
    run.ticks(8)
    [(pair, headers)] = letters(run)
    assert pair == (b"k", None)
    assert headers["left_out"] == "the value, 3000 bytes: too large for this topic"
    assert (headers["topic"], headers["partition"], headers["offset"]) == ("in", "0", "0")
    assert run.offset() == 1


def test_batches_are_no_larger_than_the_smallest_limit() -> None:
    """A broker holds a batch against the limit: small records in a large batch would be refused like one large one."""
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT, on_error=dead_letter("rejected")).to("out")
    broker = MemoryBroker(ManualClock(START_MS))
    broker.create_topic("in", 1)
    admin = MemoryAdmin(broker)
    assert prepare_topics(topology.build(), "app", admin).batch_bytes == DEFAULT_BATCH_BYTES * 9 // 10
    broker.topic("out").config["max.message.bytes"] = "20000"
    assert prepare_topics(topology.build(), "app", admin).batch_bytes == 18_000
    broker.topic("rejected").config["max.message.bytes"] = "10000"
    assert prepare_topics(topology.build(), "app", admin).batch_bytes == 9_000


# -- held back -------------------------------------------------------------------------------------------------


def joining(on_error: Any, **options: Any) -> Run:
    """Joins a key's values, and sends the newest at each commit. A value may be a time that the result then has."""

    def timed(key: str, value: str) -> int:
        return int(value) if value.isdigit() else START_MS

    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, timestamp=timed, on_error=on_error)
    joined = stream.group_by_key().reduce(lambda old, new: old + new, store="joined")
    joined.to_stream(emit="commit").to("out")
    run = Run(topology, {"in": 1, "out": 1, "rejected": 1}, **options)
    run.broker.topic("out").config["max.message.bytes"] = "5000"
    return run


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("on_error", POLICIES, ids=str)
@pytest.mark.parametrize("case", ["too large", "too far ahead"])
def test_a_held_back_result_that_fails_meets_the_policy(on_error: Any, exactly_once: bool, case: str) -> None:
    run = joining(on_error, exactly_once=exactly_once)
    bad = b"x" * 6_000 if case == "too large" else b"%d" % (START_MS + 2 * HOUR_MS)
    run.send((b"a", b"1x"), (b"bad", bad), (b"c", b"2x"))
    run.ticks(8)
    assert run.out() == [(b"a", b"1x"), (b"c", b"2x")]
    # The table has it: only the result of this commit is left out, not the records it is made of.
    assert run.state("joined") == {b"a": b"1x", b"bad": bad, b"c": b"2x"}
    assert run.offset() == 3
    status = run.worker.status()
    assert (status.failed, status.rollbacks) == (1, 0)
    if on_error != "continue":
        [(pair, headers)] = letters(run)
        assert pair == (b"bad", None if case == "too large" else bad)
        assert set(headers) == {"application", "task", "operator", "error", "message"}
        assert headers["operator"] == "joined.reduce.to_stream.to"
    # Started again it does not meet it again.
    run.restart()
    run.send((b"a", b"3x"))
    run.ticks(8)
    assert run.out()[2:] == [(b"a", b"1x3x")]


def test_a_held_back_result_under_fail_ends_the_worker_and_nothing_is_kept() -> None:
    run = joining("fail")
    run.send((b"a", b"1x"), (b"bad", b"%d" % (START_MS + 2 * HOUR_MS)))
    with pytest.raises(ProcessingError, match=r"joined\.reduce\.to_stream\.to.*message\.timestamp\.after\.max\.ms"):
        run.ticks(8)
    assert run.out() == []
    assert run.state("joined") == {}
    assert run.offset() is None


def test_what_a_held_back_result_did_before_it_failed_is_taken_back() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    held = stream.group_by_key().reduce(lambda old, new: new, store="newest").to_stream(emit="commit")
    held.to("first")
    held.group_by_key().count(store="seen").to_stream().to("counts", value=serde.long())

    def refuse(value: str) -> str:
        if value == "bad":
            raise ValueError("cannot take this")
        return value

    held.map_values(refuse).to("second", value=TEXT)
    run = Run(topology, {"in": 1})
    run.send((b"a", b"good"), (b"b", b"bad"), (b"c", b"good"))
    run.ticks(8)
    for topic in ("first", "second"):
        assert run.out(topic) == [(b"a", b"good"), (b"c", b"good")]
    assert [key for key, _ in run.out("counts")] == [b"a", b"c"]
    assert set(run.state("seen")) == {b"a", b"c"}
    assert run.worker.status().failed == 1


def test_sources_of_unlike_policies_fail_together() -> None:
    topology = Topology("t")
    lenient = topology.stream("in", key=TEXT, value=TEXT, on_error="continue")
    strict = topology.stream("also", key=TEXT, value=TEXT)
    merged = lenient.merge(strict).group_by_key().reduce(lambda old, new: new, store="newest")
    merged.to_stream(emit="commit").map_values(lambda value: 1 // 0).to("out", value=serde.long())
    run = Run(topology, {"in": 1, "also": 1}, fetch_wait_ms=0, behind_wait_ms=0)
    run.send(b"x")
    with pytest.raises(ProcessingError, match="ZeroDivisionError"):
        run.ticks(8)
