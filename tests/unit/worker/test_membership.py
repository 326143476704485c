"""A worker that is no member of its group any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import Processor, Topology, stores
from streamstate.engine.ports import GroupMetadata, TopicPartition
from streamstate.testing.memory_broker.consumer import MemoryConsumer
from streamstate.testing.memory_broker.producer import MemoryProducer
from tests.unit.application_support import GROUP, Run
from tests.unit.worker.support import NUMBER, TEXT, counting, long

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
