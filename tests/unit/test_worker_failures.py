"""What a worker does when a broker refuses, vanishes or goes on without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamstate import BrokerUnavailable, ProcessingError, Processor, TaskCorrupted, Topology, serde, stores
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.ports import GroupMetadata, Retriable, TopicPartition, Unavailable
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryConsumer
from streamstate.testing.memory_broker.producer import MemoryProducer
from tests.unit.application_support import GROUP, START_MS, Run

TEXT = serde.string()
NUMBER = serde.long()
OnCall = Callable[[str, str, str], None]


def long(value: int) -> bytes:
    return NUMBER.serialize(value)


def counting() -> Topology:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=TEXT).group_by_key()
    grouped.count(store="counts").to_stream().to("out", value=NUMBER)
    return topology


def raising(*calls: str, error: type[Exception] = Retriable, only: Callable[[], bool] = lambda: True) -> OnCall:
    def hook(actor: str, call: str, phase: str) -> None:
        if phase == "before" and call in calls and only():
            raise error(f"injected at {call}")

    return hook


# -- records a broker does not take ----------------------------------------------------------------------------


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_refused_record_ends_the_worker_with_an_error_and_no_loop(exactly_once: bool) -> None:
    topology = Topology("t")
    topology.stream("in").map_values(lambda value: value * 1_000).to("out", value=serde.bytes_())
    run = Run(topology, exactly_once=exactly_once)
    run.broker.create_topic("small", 1)
    run.broker.topic("out").config["max.message.bytes"] = "5000"
    run.send(b"a")
    run.ticks()
    run.send(b"much too large")
    with pytest.raises(ProcessingError, match=r"MSG_SIZE_TOO_LARGE.*max\.message\.bytes|max\.message\.bytes"):
        run.ticks(10)
    run.workers.pop("w").close(commit=False)
    assert run.out() == [(b"k", b"a" * 1_000)]
    assert run.offset() == 1
    # Started again it meets the same record: again one error.
    run.start()
    with pytest.raises(ProcessingError):
        run.ticks(10)


def test_a_topic_that_does_not_exist_ends_the_worker() -> None:
    topology = Topology("t")
    topology.stream("in").to(lambda key, value: "nowhere")
    run = Run(topology)
    run.send(b"a")
    with pytest.raises(ProcessingError, match="UNKNOWN_TOPIC"):
        run.ticks(10)


@pytest.mark.parametrize("ahead_ms", [3_599_000, 3_700_000])
def test_a_time_too_far_ahead_fails_its_record_not_its_transaction(ahead_ms: int) -> None:
    topology = Topology("t")
    stream = topology.stream("in", key=TEXT, value=TEXT, timestamp=lambda k, v: int(v), on_error="continue")
    stream.to("out")
    run = Run(topology)
    run.send(b"1", b"%d" % (START_MS + ahead_ms), b"2")
    run.ticks()
    expected = 3 if ahead_ms < 3_600_000 else 2
    assert len(run.out()) == expected
    assert run.worker.status().rollbacks == 0


def test_the_limit_moves_with_time() -> None:
    topology = Topology("t")
    topology.stream("in", value=TEXT, timestamp=lambda k, v: int(v), on_error="continue").to("out")
    run = Run(topology)
    run.ticks()
    run.ticks(1, step_ms=40_000_000)
    run.send(b"%d" % (START_MS + 43_000_000))
    run.ticks()
    assert len(run.out()) == 1


def test_a_topics_limits_that_cannot_be_read_cost_no_record() -> None:
    """A dynamic sink asks for a topic's limits in the middle of a batch."""
    topology = Topology("t")

    class Choose(Processor[str, str, str, str]):
        def process(self, key: str, value: str) -> None:
            self.context.forward(key, value)

    stream = topology.stream("in", key=TEXT, value=TEXT, on_error="continue").process(Choose)
    stream.to(lambda key, value: f"out-{value[0]}", key=TEXT, value=TEXT)
    run = Run(topology, {"in": 1, "out-a": 1, "out-b": 1})
    down = [True]
    run.broker.on_call = raising("admin.config", error=Unavailable, only=lambda: down[0])
    run.ticks()
    run.send(b"a1", b"b1", b"a2")
    run.ticks(6)
    assert run.out("out-a") == []
    down[0] = False
    run.ticks(6)
    assert run.out("out-a") == [(b"k", b"a1"), (b"k", b"a2")]
    assert run.out("out-b") == [(b"k", b"b1")]
    assert run.worker.status().failed == 0


# -- brokers that do not answer --------------------------------------------------------------------------------


def test_it_outlives_an_outage_below_the_limit_and_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(counting(), broker_timeout_ms=600_000)
    run.send(b"1")
    run.ticks()
    run.broker.stop()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run.ticks(100, step_ms=3_000)
    lines = [record for record in caplog.records if "still trying" in record.getMessage()]
    assert 3 <= len(lines) <= 7
    run.broker.restart()
    run.send(b"2")
    run.ticks(20, step_ms=500)
    assert run.out() == [(b"k", long(1)), (b"k", long(2))]
    # Another outage has the whole limit again.
    run.broker.stop()
    run.ticks(100, step_ms=3_000)


def test_it_gives_up_after_the_limit_and_nothing_is_lost() -> None:
    run = Run(counting(), broker_timeout_ms=60_000)
    run.send(b"1")
    run.ticks()
    run.send(b"2")
    run.ticks(1)
    run.broker.stop()
    with pytest.raises(BrokerUnavailable, match=r"no broker has answered for 6\d s .*--broker-timeout"):
        run.ticks(100, step_ms=3_000)
    run.workers.pop("w").close(commit=False)
    run.broker.restart()
    run.clock.advance(60_000)
    run.start()
    run.ticks(10)
    assert run.out() == [(b"k", long(1)), (b"k", long(2))]


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize(
    "calls",
    [
        ("producer.flush", "producer.commit", "producer.send_offsets", "consumer.commit"),
        ("producer.flush", "consumer.committed"),
        ("producer.flush", "producer.commit", "producer.abort", "producer.init", "consumer.committed"),
    ],
    ids=lambda calls: calls[-1],
)
def test_commits_that_never_succeed_count_as_an_outage(calls: tuple[str, ...], exactly_once: bool) -> None:
    """The client answers polls from what it has: only commits and questions tell that nobody is there."""
    run = Run(counting(), broker_timeout_ms=120_000, commit_timeout_ms=10_000, exactly_once=exactly_once)
    run.send(b"1")
    run.ticks()
    hook = raising(*calls)

    def slow(actor: str, call: str, phase: str) -> None:
        try:
            hook(actor, call, phase)
        except Retriable:
            run.clock.advance(1_000)
            raise

    run.broker.on_call = slow
    run.send(b"2")
    with pytest.raises(BrokerUnavailable):
        run.ticks(400, step_ms=1_000)


def test_failures_with_nothing_to_do_between_them_are_not_an_outage() -> None:
    clock = ManualClock()
    patience = OutageMonitor(clock, limit_ms=600_000)
    # The partitions went elsewhere after each: nothing was committed in between, and nothing had to be.
    for _ in range(5):
        patience.rollback("fenced")
        clock.advance(900_000)
        patience.answered()
    for _ in range(10):
        patience.rollback("timed out")
        clock.advance(60_000)
    with pytest.raises(BrokerUnavailable, match="no transaction has succeeded for 600 s"):
        patience.rollback("timed out")


# -- membership ------------------------------------------------------------------------------------------------


class Ticking(Processor[Any, Any, Any, Any]):
    """Works without records."""

    def init(self, context: Any) -> None:
        super().init(context)
        context.schedule(timedelta(seconds=1), "wall_clock", self.tick)

    def tick(self, time_ms: int) -> None:
        self.context.store("ticks").put("at", time_ms)
        self.context.forward("at", time_ms)

    def process(self, key: Any, value: Any) -> None:
        self.context.forward("in", 0)


def ticking() -> Topology:
    topology = Topology("t")
    ticks = stores.key_value("ticks", key=TEXT, value=NUMBER)
    topology.stream("in").process(Ticking, stores=[ticks]).to("out", key=TEXT, value=NUMBER)
    return topology


def test_offsets_are_never_sent_by_a_client_that_is_not_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker takes offsets with the metadata of nobody without looking."""
    run = Run(counting())
    run.send(b"1")
    run.ticks()
    sent: list[GroupMetadata] = []
    send_offsets = MemoryProducer.send_offsets

    def noted(self: MemoryProducer, offsets: Any, metadata: GroupMetadata, timeout_ms: int) -> None:
        sent.append(metadata)
        send_offsets(self, offsets, metadata, timeout_ms)

    monkeypatch.setattr(MemoryProducer, "send_offsets", noted)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryConsumer, "group_metadata", lambda self: GroupMetadata(-1, "", GROUP))
        run.send(b"2")
        run.ticks(6)
    run.send(b"3")
    run.ticks(6)
    assert sent
    assert all(metadata.is_member for metadata in sent)
    assert run.out() == [(b"k", long(number)) for number in (1, 2, 3)]


@pytest.mark.parametrize("last", ["producer.begin", "producer.send_offsets", "producer.flush", "producer.commit"])
def test_what_a_punctuation_wrote_is_not_committed_by_a_dropped_member(last: str) -> None:
    """No record was read, so no offset moved; what was written must be fenced all the same."""
    run = Run(ticking())
    run.send(b"x")
    run.ticks(4)
    run.ticks(18, step_ms=50)
    before = list(run.out())
    fired: list[str] = []

    def drop(actor: str, call: str, phase: str) -> None:
        if call == last and phase == "before" and not fired:
            fired.append(call)
            run.broker.expel("w")

    run.broker.on_call = drop
    run.until(lambda: bool(fired))
    run.broker.on_call = None
    if last in ("producer.begin", "producer.send_offsets"):
        # Behind the offsets the group has agreed already, and a new owner waits for the transaction's end.
        assert run.out() == before
    run.ticks(40)
    stored = [key for key, _ in run.out() if key == b"at"]
    assert len(stored) >= 1


def test_an_assignment_that_is_told_twice() -> None:
    run = Run(counting())
    run.send(b"1")
    run.ticks()
    run.worker.rebalances.on_assigned([TopicPartition("in", 0)])
    run.send(b"2")
    run.ticks(8)
    assert run.out() == [(b"k", long(1)), (b"k", long(2))]


@pytest.mark.parametrize(
    "stopped_at", ["admin.log_starts", "consumer.committed", "admin.log_ends", "admin.topics", "consumer.start"]
)
def test_a_process_stopped_while_it_starts_a_task_takes_no_purge_for_lost_records(stopped_at: str) -> None:
    """It was stopped for longer than its session between two questions, and its successor has processed and purged
    since. Found by ``streamstate simulate --topology topologies/word_count.py --seed 145``."""
    topology = Topology("t")
    words = topology.stream("in", key=TEXT, value=TEXT).group_by(lambda key, word: word, key=TEXT)
    words.count(store="counts").to_stream().to("out")
    run = Run(topology, purge_interval_ms=100)
    run.send(*[b"a"] * 5)
    run.ticks(20)
    stopped = run.workers.pop("w")
    run.start("other")
    starts: list[int] = []

    def stop(actor: str, call: str, phase: str) -> None:
        if not starts and (actor, call, phase) == ("w", stopped_at, "before"):
            starts.append(0)
            run.clock.advance(60_000)
            run.send(*[b"a"] * 5)
            run.ticks(20)
            log = run.broker.log(TopicPartition(f"{GROUP}-counts-repartition", 0))
            assert log is not None
            starts.append(log.start)

    stopped.assignment.reset()
    run.broker.on_call = stop
    for _ in range(10):
        stopped.tick()
    assert starts[1] > 6, "nothing was purged meanwhile"


@pytest.mark.parametrize("lost_as_revoked", [False, True])
def test_a_member_dropped_before_its_first_record_commits_where_it_begins(lost_as_revoked: bool) -> None:
    """The client says revoked in place of lost and comes back under another member id, and no record comes that
    would tell under which membership it is read. Found by ``streamstate simulate --seed 3605``."""
    run = Run(counting(), commit_interval_ms=100)
    run.broker.lost_as_revoked = lost_as_revoked
    run.ticks(1)
    assert [task.phase.value for task in run.worker.assignment.tasks.values()] == ["running"]
    assert run.offset() is None
    run.broker.expel("w")
    run.ticks(20)
    assert run.offset() == 0
    assert run.worker.status().rollbacks == 1


@pytest.mark.parametrize("lost_as_revoked", [False, True])
def test_a_silent_member_drops_its_work_and_joins_again(lost_as_revoked: bool) -> None:
    run = Run(counting(), {"in": 2}, commit_interval_ms=200)
    run.broker.lost_as_revoked = lost_as_revoked
    run.start("a")
    run.start("b")
    run.ticks(10)
    a = run.workers.pop("a")
    run.send((b"x", b"1"), (b"y", b"1"), (b"z", b"1"))
    run.clock.advance(10)
    a.tick()
    run.ticks(20, step_ms=5_000)
    run.workers["a"] = a
    run.ticks(20)
    run.send((b"x", b"2"), (b"y", b"2"), (b"z", b"2"))
    run.ticks(20)
    for key in (b"x", b"y", b"z"):
        assert [value for k, value in run.out() if k == key] == [long(1), long(2)]
    assert a.status().rollbacks >= 1


# -- changelogs --------------------------------------------------------------------------------------------------


def test_a_changelog_made_anew_under_existing_state_is_refused() -> None:
    run = Run(counting())
    run.send(b"1", b"2", b"3")
    run.ticks()
    run.workers.pop("w").close()
    run.broker.delete_topic("app-counts-changelog")
    run.broker.create_topic("app-counts-changelog", 1, {"cleanup.policy": "compact"})
    run.start()
    with pytest.raises(TaskCorrupted, match=r"store 'counts'.*'app-counts-changelog', partition 0.*streamstate reset"):
        run.ticks()


def test_a_position_below_the_changelogs_start_rebuilds_the_store() -> None:
    run = Run(counting())
    run.send((b"gone", b"1"), (b"a", b"1"))
    run.ticks()
    run.workers.pop("w").close()
    # Of what follows, local state knows nothing; deletions among it are gone from the log.
    run.broker.append("app-counts-changelog", key=b"gone", value=None)
    _, end = run.broker.append("app-counts-changelog", key=b"a", value=b"\x01" + bytes(8) + long(5))
    run.broker.delete_records({TopicPartition("app-counts-changelog", 0): end})
    run.start()
    run.send((b"gone", b"2"), (b"a", b"2"))
    run.ticks(10)
    assert run.out()[2:] == [(b"gone", long(1)), (b"a", long(6))]


def test_a_changelog_truncated_while_it_is_read_is_read_again_from_its_start() -> None:
    run = Run(counting(), restore_batch=2)
    run.send(*((b"%d" % number, b"x") for number in range(20)))
    run.ticks()
    run.workers.pop("w").close()
    run.app.disks.clear()
    run.start()
    run.ticks(3)
    assert run.worker.status().restore.remaining > 0
    run.broker.delete_records({TopicPartition("app-counts-changelog", 0): 15})
    run.ticks(20)
    run.send((b"19", b"x"))
    run.ticks()
    assert run.out()[-1] == (b"19", long(2))


def test_restoring_reads_only_what_is_missing_and_past_a_trailing_gap() -> None:
    run = Run(counting())
    run.send(*((b"%d" % number, b"x") for number in range(20)))
    run.ticks()
    run.broker.compact("app-counts-changelog", markers=False, trailing_marker=False)
    restarted = run.restart()
    run.ticks()
    assert restarted.status().restore.records == 0
    run.app.disks.clear()
    again = run.restart()
    run.ticks(10)
    assert again.status().restore.records == 20
    run.send((b"7", b"x"))
    run.ticks()
    assert run.out()[-1] == (b"7", long(2))


# -- offsets behind the state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [1, None])
def test_offsets_behind_what_local_state_reflects_are_refused(found: int | None) -> None:
    """Set back, expired, or lost by a broker: the records would be counted twice."""
    run = Run(counting())
    run.send(b"a", b"b", b"c")
    run.until(lambda: run.offset() == 3)
    run.workers.pop("w").close()
    offsets = run.broker.group(GROUP).offsets
    partition = TopicPartition("in", 0)
    before = offsets.pop(partition)
    if found is not None:
        offsets[partition] = before._replace(offset=found)
    run.start()
    with pytest.raises(TaskCorrupted, match=r"topic 'in', partition 0.*up to 3.*counted twice.*streamstate reset"):
        run.ticks(20)
    run.workers.pop("w").close(commit=False)
    # Put right again, it goes on where it was.
    offsets[partition] = before
    run.start()
    run.send(b"d")
    run.until(lambda: run.offset() == 4)
    assert run.out() == [(b"k", long(number)) for number in (1, 2, 3, 4)]


def test_an_input_that_was_created_again_is_read_from_its_beginning() -> None:
    run = Run(counting())
    run.send(b"a", b"b", b"c")
    run.until(lambda: run.offset() == 3)
    run.workers.pop("w").close()
    run.broker.delete_topic("in")
    run.broker.create_topic("in", 1)
    run.start()
    for value in (b"d", b"e"):
        run.send(value)
        run.ticks(10)
    run.workers.pop("w").close()
    run.start()
    run.send(b"f")
    run.until(lambda: run.offset() == 3)
    assert [value for _, value in run.out()] == [long(number) for number in range(1, 7)]
