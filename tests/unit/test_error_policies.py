"""What happens to a record that fails: nothing of it stays, and the policy decides what comes next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import ProcessingError, Processor, SerdeError, TaskCorrupted, Topology, dead_letter, serde, stores
from tests.unit.application_support import START_MS, Run

TEXT = serde.string()
NUMBER = serde.long()
POLICIES = ["continue", dead_letter("rejected")]


class Partial(Processor[str, str, str, str]):
    """Does all it can before it fails."""

    def init(self, context: Any) -> None:
        super().init(context)
        self.kept = context.store("kept")

    def process(self, key: str, value: str) -> None:
        self.kept.put("last", value)
        self.kept.put(key, value)
        self.kept.put(key, value * 2)
        self.kept.delete("first")
        self.context.forward(key, value)
        if value == "bad":
            raise ValueError("cannot take this")
        self.context.forward(key, "done")


def partial(source_policy: Any, **processor_options: Any) -> Topology:
    topology = Topology("t")
    kept = stores.key_value("kept", key=TEXT, value=TEXT)
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error=source_policy)
    stream.process(Partial, stores=[kept], name="partial", **processor_options).to("out", key=TEXT, value=TEXT)
    return topology


@pytest.mark.parametrize("on_error", POLICIES, ids=str)
@pytest.mark.parametrize("size", [1, 10])
def test_a_failed_record_leaves_no_output_and_no_state(on_error: Any, size: int) -> None:
    run = Run(partial(on_error), max_poll_records=size)
    run.send((b"first", b"1"), (b"a", b"2"), (b"first", b"3"), (b"a", b"bad"), (b"b", b"bad"))
    run.ticks(8)
    assert run.out() == [(k, v) for k, n in ((b"first", b"1"), (b"a", b"2"), (b"first", b"3")) for v in (n, b"done")]
    # "first" was written after it was deleted, and the two bad ones deleted it in vain.
    assert run.state("kept") == {b"last": b"3", b"a": b"22"}
    assert run.offset() == 5
    assert run.worker.status().failed == 2


@pytest.mark.parametrize("on_error", POLICIES, ids=str)
def test_what_was_there_before_is_back(on_error: Any) -> None:
    """Committed, staged by an earlier record of the transaction, or not there at all."""
    run = Run(partial(on_error))
    run.send((b"a", b"1"))
    run.ticks()
    run.send((b"b", b"2"), (b"a", b"bad"), (b"b", b"bad"), (b"c", b"bad"))
    run.ticks()
    assert run.state("kept") == {b"last": b"2", b"a": b"11", b"b": b"22"}
    run.restart(close=False)
    run.send((b"c", b"3"))
    run.ticks()
    assert run.state("kept") == {b"last": b"3", b"a": b"11", b"b": b"22", b"c": b"33"}


def counting(on_error: Any, emit: Any = "update") -> Topology:
    """The count stands before what fails."""
    topology = Topology("t")
    counts = topology.stream("in", key=TEXT, value=TEXT, on_error=on_error).group_by_key().count(store="counts")
    held = counts.to_stream(emit="commit")
    held.to("held", value=NUMBER)
    counts.to_stream(emit=emit).map_values(lambda n: 1 // (n - 2)).to("out", value=NUMBER)
    return topology


def test_a_failed_record_leaves_no_pending_result() -> None:
    run = Run(counting("continue"))
    run.send((b"a", b"1"), (b"b", b"1"), (b"a", b"1"), (b"a", b"1"))
    run.ticks()
    # Every second count fails, is taken back, and so is tried again by the next record.
    assert sorted(run.out("held")) == [(b"a", NUMBER.serialize(1)), (b"b", NUMBER.serialize(1))]
    assert run.state("counts") == {b"a": NUMBER.serialize(1), b"b": NUMBER.serialize(1)}
    assert run.worker.status().failed == 2


@pytest.mark.parametrize("two_inputs", [False, True])
def test_a_failed_record_leaves_no_stream_time(two_inputs: bool) -> None:
    seen: list[tuple[str, int]] = []
    punctuations: list[int] = []

    class Clocked(Processor[str, str, str, str]):
        def init(self, context: Any) -> None:
            super().init(context)
            context.schedule(timedelta(seconds=1), "stream_time", punctuations.append)

        def process(self, key: str, value: str) -> None:
            seen.append((value, self.context.stream_time))
            if value == "bad":
                raise ValueError

    topology = Topology("t")
    topics = ["in", "in2"] if two_inputs else ["in"]
    topology.stream(topics, key=TEXT, value=TEXT, on_error="continue").process(Clocked)
    run = Run(topology, dict.fromkeys(topics, 1), fetch_wait_ms=0, behind_wait_ms=0)
    run.send(b"1", timestamp=100)
    # One far-future timestamp must not expire everything.
    run.send(b"bad", timestamp=50_000)
    run.send(b"2", timestamp=200)
    run.ticks(8)
    assert seen == [("1", 100), ("bad", 50_000), ("2", 200)]
    assert punctuations == [100]
    run.restart(close=False)
    run.send(b"3", timestamp=150)
    run.ticks(8)
    assert seen[-1] == ("3", 200)


def decoding(on_error: Any) -> Topology:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=serde.json(), timestamp="at", on_error=on_error)
    stream.map_values(lambda v: 10 // v["n"], name="divide").to("out", value=serde.json())
    return topology


BAD = [
    (b"k", b"{not json", None),
    (b"\xff", b'{"at": 1, "n": 1}', None),
    (b"k", b'{"n": 1}', None),
    (b"k", b'{"at": "x", "n": 1}', None),
    (b"k", b'{"at": -5, "n": 1}', None),
    (b"k", None, None),
    (b"k", b'{"at": 1, "n": 0}', "divide"),
    # Further ahead than a broker takes by default.
    (b"k", b'{"at": %d, "n": 1}' % (START_MS + 7_200_000), "to"),
]


@pytest.mark.parametrize("two_inputs", [False, True])
def test_whatever_fails_goes_to_the_dead_letter_topic_as_it_came(two_inputs: bool) -> None:
    topology = Topology("t")
    topics = ["in", "in2"] if two_inputs else ["in"]
    stream = topology.stream(
        topics, key=TEXT, value=serde.json(), timestamp="at", on_error=dead_letter("rejected"), name="in"
    )
    stream.map_values(lambda v: 10 // v["n"], name="divide").to("out", value=serde.json())
    run = Run(topology, dict.fromkeys(topics, 1), fetch_wait_ms=0, behind_wait_ms=0)
    for key, value, _ in BAD:
        run.broker.append("in", key=key, value=value, headers=[("h", b"\xff"), ("h", None)], timestamp=START_MS - 1)
    run.send((b"k", b'{"at": 7, "n": 5}'))
    run.ticks(20)
    assert run.out() == [(b"k", b"2")]
    records = run.broker.read("rejected")
    assert [(record.key(), record.value()) for record in records] == [(key, value) for key, value, _ in BAD]
    for offset, (record, (_, _, operator)) in enumerate(zip(records, BAD, strict=True)):
        headers = record.headers() or []
        # Its own come first.
        assert headers[:2] == [("h", b"\xff"), ("h", None)]
        facts = {name.removeprefix("streamstate.error."): (data or b"").decode() for name, data in headers[2:]}
        assert {name: facts[name] for name in ("application", "task", "topic", "partition", "offset")} == {
            "application": "app",
            "task": "in_0",
            "topic": "in",
            "partition": "0",
            "offset": str(offset),
        }
        assert facts["error"] in ("JSONDecodeError", "UnicodeDecodeError", "KeyError", "ValueError", "TypeError",
                                  "ZeroDivisionError")  # fmt: skip
        assert facts["message"]
        expected = {None: "in", "divide": "divide", "to": "divide.to"}[operator]
        assert facts["operator"] == expected
        assert record.timestamp()[1] == START_MS - 1
    assert run.worker.status().failed == len(BAD)
    assert run.offset() == len(BAD) + 1


def test_a_dead_letter_is_part_of_the_transaction() -> None:
    run = Run(decoding(dead_letter("rejected")))
    failures = iter([True])
    run.broker.on_call = lambda actor, call, phase: refuse_commit(call, phase, failures)
    run.send((b"k", b"{bad"), (b"k", b'{"at": 7, "n": 5}'))
    run.ticks(12)
    assert run.worker.status().rollbacks == 1
    assert run.out("rejected") == [(b"k", b"{bad")]
    assert run.out() == [(b"k", b"2")]


def refuse_commit(call: str, phase: str, failures: Any) -> None:
    from streamstate.engine.ports import AbortRequired

    if call == "producer.commit" and phase == "before" and next(failures, False):
        raise AbortRequired("injected")


# -- fail --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "parts", "kind"),
    [
        (
            b"k",
            b"{bad",
            ["operator 'in'", "decoding the value", "the json serde cannot decode b'{bad': JSONDecodeError"],
            SerdeError,
        ),
        (b"k", b'{"at": 1, "n": 0}', ["operator 'divide'", "ZeroDivisionError"], ProcessingError),
        (b"\xfe" * 500, b"", ["operator 'in'", "(500 bytes)"], SerdeError),
    ],
)
def test_the_error_says_what_failed_where(key: bytes, value: bytes, parts: list[str], kind: type[Exception]) -> None:
    run = Run(decoding("fail"))
    run.send(b'{"at": 1, "n": 1}', b'{"at": 2, "n": 1}')
    run.ticks()
    run.send((key, value))
    with pytest.raises(kind) as caught:
        run.ticks()
    text = str(caught.value)
    for part in ["topic 'in'", "partition 0", "offset 2", "key ", "task in_0", "Nothing of this record was kept",
                 "on_error=", *parts]:  # fmt: skip
        assert part in text
    assert len(text) < 1_500
    assert caught.value.__cause__ is not None


def test_fail_keeps_nothing_of_the_record_nor_of_its_transaction() -> None:
    run = Run(partial("fail"))
    run.send((b"a", b"1"))
    run.ticks()
    run.send((b"b", b"2"), (b"b", b"bad"))
    with pytest.raises(ProcessingError, match=r"operator 'partial' failed at .*cannot take this"):
        run.ticks()
    run.workers.pop("w").close(commit=False)
    assert run.out() == [(b"a", b"1"), (b"a", b"done")]
    assert run.state("kept") == {b"last": b"1", b"a": b"11"}
    assert run.offset() == 1
    assert run.broker.transactions.open_transactions() == {}


def test_a_value_no_serde_can_encode_is_named() -> None:
    topology = Topology("t")
    topology.stream("in", key=TEXT, value=TEXT).map_values(lambda value: object()).to("out", value=serde.json())
    run = Run(topology)
    run.send(b"a")
    with pytest.raises(SerdeError, match=r"in\.map_values\.to.*the json serde cannot encode this object"):
        run.ticks()


def test_a_damaged_store_entry_is_not_the_records_failure() -> None:
    topology = Topology("t")
    kept = stores.key_value("kept", key=TEXT, value=TEXT)

    class Read(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            self.context.store("kept").get(key)

    topology.stream("in", key=TEXT, value=TEXT, on_error="continue").process(Read, stores=[kept])
    run = Run(topology)
    run.broker.append("app-kept-changelog", key=b"k", value=b"\x02 of a newer version")
    run.send(b"1")
    with pytest.raises(TaskCorrupted, match="store 'kept'"):
        run.ticks(8)


# -- whose policy ------------------------------------------------------------------------------------------------


def test_a_processors_policy_comes_before_its_sources() -> None:
    run = Run(partial("fail", on_error=dead_letter("of-processor")))
    run.send((b"a", b"bad"), (b"a", b"1"))
    run.ticks()
    assert run.out("of-processor") == [(b"a", b"bad")]
    assert run.out() == [(b"a", b"1"), (b"a", b"done")]


def test_a_processor_may_fail_where_its_source_goes_on() -> None:
    run = Run(partial("continue", on_error="fail"))
    run.send((b"\xff", b"undecodable"), (b"a", b"bad"))
    with pytest.raises(ProcessingError, match="offset 1"):
        run.ticks()


def test_what_fails_behind_a_processor_is_not_the_processors_failure() -> None:
    topology = Topology("t")
    kept = stores.key_value("kept", key=TEXT, value=TEXT)
    stream = topology.stream("in", key=TEXT, value=TEXT).process(Partial, stores=[kept], on_error="continue")
    stream.map_values(lambda v: 1 // 0, name="behind").to("out", key=TEXT, value=TEXT)
    run = Run(topology)
    run.send((b"a", b"1"))
    with pytest.raises(ProcessingError, match="operator 'behind'"):
        run.ticks()


def test_the_sources_policy_holds_behind_a_repartition() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, on_error=dead_letter("rejected"))
    again = stream.repartition(name="again")
    again.map_values(lambda v: 10 // int(v)).to("out", value=serde.json())
    run = Run(topology, {"in": 2})
    run.send((b"a", b"0"), (b"b", b"5"))
    run.ticks(8)
    assert run.out("rejected") == [(b"a", b"0")]
    assert run.out() == [(b"b", b"2")]


def test_each_source_has_its_own() -> None:
    topology = Topology("t")
    check: Callable[[str], int] = int
    topology.stream("in", value=TEXT, on_error="continue").map_values(check).to("out", value=NUMBER)
    topology.stream("strict", value=TEXT).map_values(check).to("out", value=NUMBER)
    run = Run(topology, {"in": 1, "strict": 1})
    run.send(b"x", b"1")
    run.ticks()
    run.send(b"x", topic="strict")
    with pytest.raises(ProcessingError, match="topic 'strict'"):
        run.ticks()
    assert run.out() == [(b"k", NUMBER.serialize(1))]


# -- the log -----------------------------------------------------------------------------------------------------


def test_the_log_is_bounded_and_says_how_many_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(decoding("continue"))
    with caplog.at_level(logging.WARNING, logger="streamstate.task"):
        run.send(*[b"{bad"] * 500)
        run.start()
        run.until(lambda: run.worker.status().failed == 500, step_ms=1)
        first = [record.getMessage() for record in caplog.records]
        assert len(first) == 1
        for part in ("topic 'in'", "partition 0", "offset 0", "key b'k'", "operator 'in'", "continue"):
            assert part in first[0]
        run.clock.advance(1_000)
        run.send(b"{bad")
        run.ticks(4)
    assert [r.getMessage() for r in caplog.records][1:] != []
    assert "499 more since the last such line" in caplog.records[-1].getMessage()
    assert run.worker.status().failed == 501
