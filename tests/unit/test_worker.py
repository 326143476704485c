"""The worker's own rules: when it commits, how much it takes, what it waits for, and when it gives up."""

from __future__ import annotations

from typing import Any

import pytest

from streamstate import OffsetOutOfRange, Topology, serde
from streamstate.engine.ports import AbortRequired, TopicPartition
from streamstate.testing.memory_broker.consumer import MemoryConsumer
from tests.unit.application_support import GROUP, Run

TEXT = serde.string()
NUMBER = serde.long()


def long(value: int) -> bytes:
    return NUMBER.serialize(value)


def copying(**source: Any) -> Topology:
    topology = Topology("t")
    topology.stream("in", **source).to("out")
    return topology


def counting(topics: Any = "in") -> Topology:
    topology = Topology("t")
    grouped = topology.stream(topics, key=TEXT, value=TEXT).group_by_key()
    grouped.count(store="counts").to_stream().to("out", value=NUMBER)
    return topology


class Polls:
    """Notes how many records each poll asks for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int] = []
        poll = MemoryConsumer.poll

        def noted(consumer: MemoryConsumer, max_records: int, timeout_ms: int) -> Any:
            self.asked.append(max_records)
            return poll(consumer, max_records, timeout_ms)

        monkeypatch.setattr(MemoryConsumer, "poll", noted)


# -- when it commits -------------------------------------------------------------------------------------------


def test_it_commits_after_the_interval_and_not_before() -> None:
    run = Run(copying(), commit_interval_ms=1_000)
    run.ticks(30)
    run.send(b"a")
    run.ticks(3, step_ms=100)
    assert run.out() == []
    run.ticks(10, step_ms=100)
    assert run.out() == [(b"k", b"a")]


def test_nothing_to_commit_opens_no_transaction() -> None:
    run = Run(copying())
    run.ticks(20)
    calls: list[str] = []
    run.broker.on_call = lambda actor, call, phase: calls.append(call)
    run.ticks(20)
    assert not [call for call in calls if call.startswith("producer")]


def test_the_budget_of_uncommitted_state_commits_early() -> None:
    run = Run(counting(), commit_interval_ms=3_600_000, staging_bytes=10_000, max_poll_records=10)
    run.send(*((b"%d" % number, b"x") for number in range(35)))
    run.ticks(8, step_ms=1)
    assert len(run.out()) == 0
    run.send(*((b"%d" % number, b"x") for number in range(35, 70)))
    run.ticks(8, step_ms=1)
    assert len(run.out()) >= 35
    assert run.worker.status().commits >= 1


def test_slow_records_do_not_keep_a_transaction_open(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = Topology("t")
    run: Run
    stream = topology.stream("in").peek(lambda key, value: run.clock.advance(200))
    stream.to("out")
    run = Run(topology, {"in": 4}, commit_interval_ms=100)
    run.ticks(2)
    for number in range(40):
        run.send(b"%d" % number, partition=number % 4)
    longest = 0

    def watch(actor: str, call: str, phase: str) -> None:
        nonlocal longest
        longest = max([longest, *run.broker.transactions.open_transactions().values()])

    run.broker.on_call = watch
    run.until(lambda: len(run.out()) == 40)
    # One partition's share of the first, still large batch; then batches are small.
    assert longest < 10_000
    assert run.worker.status().rollbacks == 0


def test_the_batch_adapts_to_what_records_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = [0]
    topology = Topology("t")
    run: Run
    topology.stream("in").peek(lambda key, value: run.clock.advance(cost[0])).to("out")
    polls = Polls(monkeypatch)
    run = Run(topology, max_poll_records=800, batch_ms=30)
    run.send(*[b"x"] * 5_000)
    run.ticks(12)
    assert polls.asked[-1] == 800
    assert max(polls.asked) == 800
    cost[0] = 10
    run.send(*[b"x"] * 1_000)
    run.ticks(3)
    # As many as take one or two times batch_ms.
    assert 3 <= polls.asked[-1] <= 6
    cost[0] = 500
    run.ticks(2)
    assert polls.asked[-1] == 1
    cost[0] = 0
    run.ticks(12)
    assert polls.asked[-1] > 100


# -- several inputs --------------------------------------------------------------------------------------------


def two_inputs() -> Topology:
    topology = Topology("t")
    topology.stream(["left", "right"], key=TEXT, value=TEXT).to("out")
    return topology


def values(run: Run) -> list[bytes | None]:
    return [value for _, value in run.out()]


@pytest.mark.parametrize("step", [1, 7, 100])
def test_records_of_several_inputs_are_taken_by_event_time(step: int) -> None:
    run = Run(two_inputs(), {"left": 1, "right": 1}, max_poll_records=step, buffer_records=4)
    for time in range(0, 60, 2):
        run.send(b"%d" % time, topic="left", timestamp=time)
    for time in range(1, 61, 3):
        run.send(b"%d" % time, topic="right", timestamp=time)
    run.ticks(3)
    run.until(lambda: len(run.out()) == 50)
    expected = sorted([*range(0, 60, 2), *range(1, 61, 3)])
    assert [int(value or b"") for value in values(run)] == expected


def test_an_older_record_does_not_overtake_its_own_partition() -> None:
    run = Run(two_inputs(), {"left": 1, "right": 1})
    for time in (50, 10, 60):
        run.send(b"l%d" % time, topic="left", timestamp=time)
    for time in (20, 55):
        run.send(b"r%d" % time, topic="right", timestamp=time)
    run.until(lambda: len(run.out()) == 5)
    assert values(run) == [b"r20", b"l50", b"l10", b"r55", b"l60"]


@pytest.mark.parametrize("idle_ms", [0, 700])
def test_an_empty_input_is_waited_for_as_long_as_said(idle_ms: int) -> None:
    run = Run(two_inputs(), {"left": 1, "right": 1}, max_task_idle_ms=idle_ms, fetch_wait_ms=300)
    run.ticks(4)
    run.send(b"l", topic="left", timestamp=5)
    waited = 0
    while not run.out() and waited < 5_000:
        run.ticks(1, step_ms=50)
        waited += 50
    # The commit interval comes on top.
    assert idle_ms <= waited <= idle_ms + 250


def test_an_input_that_comes_late_within_the_wait_is_taken_in_order() -> None:
    run = Run(two_inputs(), {"left": 1, "right": 1}, max_task_idle_ms=1_000)
    run.ticks(4)
    run.send(b"l", topic="left", timestamp=5)
    run.ticks(4)
    run.send(b"r", topic="right", timestamp=3)
    run.until(lambda: len(run.out()) == 2)
    assert values(run) == [b"r", b"l"]


def test_buffers_are_bounded() -> None:
    run = Run(two_inputs(), {"left": 1, "right": 1}, buffer_records=20, max_poll_records=10, max_task_idle_ms=60_000)
    run.send(*[b"l"] * 500, topic="left", timestamp=5)
    run.ticks(30)
    inputs = [input_ for task in run.worker.assignment.tasks.values() for input_ in task.inputs.values()]
    assert 20 <= max(len(input_.buffer) for input_ in inputs) < 20 + 10
    run.send(b"r", topic="right", timestamp=9)
    run.until(lambda: len(run.out()) >= 500, step_ms=1_000)


def test_a_rollback_of_several_inputs_repeats_nothing_and_loses_nothing() -> None:
    run = Run(
        two_inputs(), {"left": 1, "right": 1}, fetch_wait_ms=0, behind_wait_ms=0, max_poll_records=7, buffer_records=5
    )
    failures = iter(range(3))

    def refuse(actor: str, call: str, phase: str) -> None:
        if call == "producer.commit" and phase == "before" and next(failures, None) is not None:
            raise AbortRequired("injected")

    run.broker.on_call = refuse
    for time in range(40):
        run.send(b"%d" % time, topic=("left", "right")[time % 2], timestamp=time)
    run.until(lambda: len(run.out()) >= 40)
    run.ticks(10)
    assert sorted(int(value or b"") for value in values(run)) == list(range(40))


class Apart:
    """An assignor that ignores which partitions a task needs together."""

    def __init__(self) -> None:
        self.homes = {"left": 0, "right": 1}

    def __call__(self, subscriptions: Any, counts: Any, held: Any) -> dict[str, set[TopicPartition]]:
        members = list(subscriptions)
        assigned: dict[str, set[TopicPartition]] = {member: set() for member in members}
        for topic, home in self.homes.items():
            assigned[members[home % len(members)]].add(TopicPartition(topic, 0))
        return assigned


def test_a_task_waits_until_it_holds_all_its_inputs() -> None:
    run = Run(two_inputs(), {"left": 1, "right": 1}, fetch_wait_ms=0, behind_wait_ms=0)
    apart = Apart()
    run.broker.assignors["cooperative"] = apart
    run.start("a")
    run.start("b")
    run.send(b"l", topic="left")
    run.send(b"r", topic="right")
    run.ticks(20)
    assert run.out() == []
    assert {phase for worker in run.workers.values() for phase in worker.status().tasks.values()} == {"created"}
    apart.homes["right"] = 0
    run.broker.group(GROUP).rebalance()
    run.ticks(20)
    assert sorted(values(run), key=str) == [b"l", b"r"]
    # It loses one of the two again, and stops.
    apart.homes["left"] = 1
    run.broker.group(GROUP).rebalance()
    run.ticks(20)
    run.send(b"l2", topic="left")
    run.send(b"r2", topic="right")
    run.ticks(20)
    assert len(run.out()) == 2
    apart.homes["right"] = 1
    run.broker.group(GROUP).rebalance()
    run.ticks(20)
    assert sorted(values(run), key=str) == [b"l", b"l2", b"r", b"r2"]


# -- cleaning --------------------------------------------------------------------------------------------------


def test_repartition_topics_are_purged_behind_what_is_committed() -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT).repartition(name="again")
    stream.group_by_key().count(store="counts").to_stream().to("out", value=NUMBER)
    run = Run(topology, purge_interval_ms=1_000)
    again = TopicPartition("app-again-repartition", 0)
    run.send(*[b"x"] * 10)
    run.ticks(12)
    log = run.broker.log(again)
    assert log is not None
    assert log.start == 0
    run.send(b"y")
    run.ticks(40)
    run.send(b"z")
    run.ticks(10)
    assert log.start > 10
    assert log.start <= run.broker.committed(GROUP)[again].offset
    # Only those: neither inputs, nor changelogs, nor outputs.
    for topic in ("in", "app-counts-changelog", "out"):
        other = run.broker.log(TopicPartition(topic, 0))
        assert other is not None
        assert other.start == 0
    run.restart(close=False)
    run.send(b"z")
    run.ticks(10)
    assert run.out()[-1] == (b"k", long(13))


# -- offsets that are not there ----------------------------------------------------------------------------------


def test_without_a_committed_offset_it_starts_where_the_source_says() -> None:
    for reset, expected in (("earliest", [b"old", b"new"]), ("latest", [b"new"])):
        run = Run(copying(reset=reset))
        run.send(b"old")
        run.ticks()
        run.send(b"new")
        run.ticks()
        assert values(run) == expected
    run = Run(copying(reset="error"))
    run.send(b"old")
    with pytest.raises(OffsetOutOfRange, match=r"topic 'in', partition 0.*reset='error'"):
        run.ticks()


def test_latest_holds_over_a_restart_without_any_record() -> None:
    run = Run(copying(reset="latest"))
    run.send(b"old")
    run.ticks()
    run.workers.pop("w").close()
    run.send(b"while nobody ran")
    run.start()
    run.ticks()
    assert values(run) == [b"while nobody ran"]


def test_latest_skips_nothing_when_the_first_transaction_fails() -> None:
    run = Run(copying(reset="latest"), commit_interval_ms=200)
    failures = iter([True])

    def refuse(actor: str, call: str, phase: str) -> None:
        if call == "producer.commit" and phase == "before" and next(failures, False):
            raise AbortRequired("injected")

    run.send(b"old")
    run.ticks(2)
    run.broker.on_call = refuse
    run.send(b"a", b"b")
    run.ticks(12)
    assert run.worker.status().rollbacks == 1
    assert values(run) == [b"a", b"b"]


def overtaken(policy: str) -> Run:
    """Retention has deleted records that were not processed."""
    run = Run(copying(), out_of_range=policy)
    run.send(b"1", b"2")
    run.ticks()
    run.workers.pop("w").close()
    run.send(b"3", b"4", b"5", b"6")
    run.broker.delete_records({TopicPartition("in", 0): 4})
    return run


def recreated(policy: str) -> Run:
    """The committed offset lies behind the end of another topic of the same name."""
    run = overtaken(policy)
    offset = run.broker.committed(GROUP)[TopicPartition("in", 0)]
    run.broker.delete_topic("in")
    run.broker.create_topic("in", 1)
    run.send(b"5")
    run.broker.group(GROUP).offsets[TopicPartition("in", 0)] = offset
    return run


@pytest.mark.parametrize("arrange", [overtaken, recreated])
def test_an_offset_outside_the_log_is_an_error(arrange: Any) -> None:
    run = arrange("fail")
    run.start()
    with pytest.raises(OffsetOutOfRange, match=r"topic 'in', partition 0: the committed offset is 2.*--out-of-range"):
        run.ticks()


@pytest.mark.parametrize("arrange", [overtaken, recreated])
@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_or_it_goes_on_from_where_it_was_told(arrange: Any, policy: str, caplog: pytest.LogCaptureFixture) -> None:
    run = arrange(policy)
    run.start()
    run.ticks()
    run.send(b"7")
    run.ticks()
    left = {overtaken: [b"5", b"6"], recreated: [b"5"]}[arrange]
    assert values(run) == [b"1", b"2", *(left if policy == "earliest" else []), b"7"]
    assert f"going on from the {policy} record" in caplog.text


@pytest.mark.parametrize("policy", ["fail", "earliest"])
def test_retention_that_overtakes_a_running_task(policy: str) -> None:
    run = Run(copying(), out_of_range=policy, max_poll_records=1, commit_interval_ms=1_000)
    run.send(*[b"%d" % number for number in range(10)])
    run.ticks(3)
    run.broker.delete_records({TopicPartition("in", 0): 8})
    if policy == "fail":
        with pytest.raises(OffsetOutOfRange, match="retention has deleted"):
            run.ticks(5)
        # What was processed before is committed.
        assert values(run)
        return
    run.ticks(40)
    assert values(run)[-2:] == [b"8", b"9"]
    assert len(values(run)) == len(set(values(run)))
