"""Facts of Kafka that the engine must encode, each shown by itself where no other test does so by name."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamstate import Topology, serde
from streamstate.engine.assign.restore import Restorer
from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    NotAuthorized,
    PortError,
    ProducerFatal,
    Refused,
    Retriable,
    TopicPartition,
    Unavailable,
)
from streamstate.kafka.errors import general, transactional
from tests.unit.application_support import GROUP, Run

TEXT = serde.string()
NUMBER = serde.long()


def counting() -> Topology:
    topology = Topology("t")
    grouped = topology.stream("in", key=TEXT, value=TEXT).group_by_key()
    grouped.count(store="counts").to_stream().to("out", value=NUMBER)
    return topology


def counts(run: Run, key: bytes) -> list[int]:
    return [NUMBER.deserialize(value or b"") for k, value in run.out() if k == key]


def calls_of(run: Run) -> list[str]:
    """Every port call from now on, in order."""
    calls: list[str] = []
    run.broker.on_call = lambda actor, call, phase: calls.append(call) if phase == "before" else None
    return calls


# -- 6: what each error means ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (KafkaError(KafkaError._FENCED, fatal=True), Fenced),
        (KafkaError(KafkaError.PRODUCER_FENCED, fatal=True), Fenced),
        (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, txn_requires_abort=True), Fenced),
        (KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True), Fenced),
        (KafkaError(KafkaError.UNKNOWN_MEMBER_ID, txn_requires_abort=True), Fenced),
        (KafkaError(KafkaError._FATAL, fatal=True), ProducerFatal),
        (KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True), ProducerFatal),
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, txn_requires_abort=True), Refused),
        (KafkaError(KafkaError.INVALID_TIMESTAMP, txn_requires_abort=True), Refused),
        (KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, txn_requires_abort=True), AbortRequired),
        (KafkaError(KafkaError._TIMED_OUT, retriable=True), Retriable),
        (KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True), Retriable),
        (KafkaError(KafkaError.CONCURRENT_TRANSACTIONS), Retriable),
        (KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=False), NotAuthorized),
        # What nobody has foreseen must not pass as success, nor be repeated for ever.
        (KafkaError(KafkaError._STATE), AbortRequired),
    ],
    ids=lambda value: value.name() if isinstance(value, KafkaError) else value.__name__,
)
def test_each_error_of_a_transaction_says_what_to_do(error: KafkaError, means: type[PortError]) -> None:
    assert type(transactional(KafkaException(error))) is means


@pytest.mark.parametrize(
    ("code", "means"),
    [
        (KafkaError.UNSTABLE_OFFSET_COMMIT, Retriable),
        (KafkaError._ALL_BROKERS_DOWN, Unavailable),
        (KafkaError.NOT_LEADER_FOR_PARTITION, Unavailable),
        (KafkaError.FENCED_LEADER_EPOCH, Unavailable),
        (KafkaError.FENCED_INSTANCE_ID, Fenced),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, NotAuthorized),
        (KafkaError.INVALID_REQUEST, PortError),
    ],
)
def test_each_error_of_a_question_says_what_to_do(code: int, means: type[PortError]) -> None:
    assert type(general(KafkaException(KafkaError(code)))) is means


# -- 8: revocations --------------------------------------------------------------------------------------------


def test_a_revocation_has_one_deadline_and_gives_the_partitions_up_in_any_case() -> None:
    """The whole group waits. What cannot be committed in time is rolled back; its new owner processes it again."""
    run = Run(counting(), {"in": 2}, revoke_timeout_ms=20_000, commit_interval_ms=3_600_000)
    run.start("a")
    run.ticks(4)
    run.send((b"x", b"1"), (b"y", b"1"), (b"z", b"1"))
    run.ticks(2)
    assert run.out() == []
    began_ms, spent_ms = [0], [0]

    def stuck(actor: str, call: str, phase: str) -> None:
        if actor == "a" and call in ("producer.flush", "producer.send_offsets") and phase == "before":
            began_ms[0] = began_ms[0] or run.clock.monotonic_ms()
            run.clock.advance(1_000)
            spent_ms[0] = run.clock.monotonic_ms() - began_ms[0]
            raise Retriable("no answer")

    run.broker.on_call = stuck
    run.start("b")
    run.until(lambda: len(run.workers["b"].assignment.running()) == 1)
    assert 19_000 <= spent_ms[0] <= 25_000
    run.broker.on_call = None
    run.ticks(3)
    for worker in run.workers.values():
        worker.commit()
    assert sorted(run.out()) == [(key, NUMBER.serialize(1)) for key in (b"x", b"y", b"z")]


# -- 9: restoring ----------------------------------------------------------------------------------------------


def restorable(keys: tuple[int, int] = (40, 40), **settings: Any) -> Run:
    """So many keys in each of two partitions, and no local state."""
    run = Run(counting(), {"in": 2}, **settings)
    for partition, number in enumerate(keys):
        run.send(*[(b"%d-%d" % (partition, key), b"x") for key in range(number)], partition=partition)
    run.until(lambda: len(run.out()) == sum(keys))
    run.workers.pop("w").close()
    run.app.disks.clear()
    return run


def test_a_task_that_restores_holds_up_no_other() -> None:
    run = restorable((400, 1), restore_batch=1)
    run.start()
    run.until(lambda: run.worker.status().tasks == {"in_0": "restoring", "in_1": "running"})
    run.send((b"0-0", b"x"), partition=0)
    run.send((b"1-0", b"x"), partition=1)
    run.until(lambda: counts(run, b"1-0") == [1, 2])
    assert run.worker.status().tasks == {"in_0": "restoring", "in_1": "running"}
    assert counts(run, b"0-0") == [1], "its own input waits"
    run.until(lambda: counts(run, b"0-0") == [1, 2], limit=1_000)


def test_a_rebalance_while_it_restores_keeps_what_was_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    apply = Restorer._apply

    def noted(self: Restorer, restoration: Any, messages: list[Any]) -> None:
        read.append(len(messages))
        apply(self, restoration, messages)

    monkeypatch.setattr(Restorer, "_apply", noted)
    run = restorable(restore_batch=4)
    run.start("a")
    run.until(lambda: sum(read) >= 24)
    run.start("b")  # One of the partitions moves, the other stays.
    run.until(lambda: len([t for w in run.workers.values() for t in w.assignment.running()]) == 2, limit=400)
    stayed = [str(task.id) for task in run.workers["a"].assignment.running()]
    assert len(stayed) == 1
    # Each record once by its owner; what had been read of the one that moved is read again by the other worker.
    assert sum(read) <= 80 + 24
    run.send((b"0-7", b"x"), partition=0)
    run.send((b"1-7", b"x"), partition=1)
    run.until(lambda: len(run.out()) == 82)
    assert counts(run, b"0-7") == counts(run, b"1-7") == [1, 2]


# -- 15: in which order a new owner asks -----------------------------------------------------------------------


def test_a_new_owner_asks_for_offsets_then_for_the_target_then_restores_then_processes() -> None:
    run = restorable()
    calls = calls_of(run)
    run.start()
    run.until(lambda: len(run.worker.assignment.running()) == 2)
    order = ["consumer.committed", "admin.log_ends", "restore.assign", "restore.poll", "consumer.start"]
    firsts = [next(i for i, call in enumerate(calls) if call == wanted or call.endswith(wanted)) for wanted in order]
    assert firsts == sorted(firsts)
    last_poll = max(i for i, call in enumerate(calls) if call == "restore.poll")
    assert last_poll < max(i for i, call in enumerate(calls) if call == "consumer.start")


# -- failures peers shipped ------------------------------------------------------------------------------------


def test_a_fresh_disk_and_no_committed_offset_still_restores_every_record() -> None:
    """Kafka forgets the offsets of a group that was away for a week. The changelog is the state all the same."""
    run = restorable()
    run.broker.group(GROUP).offsets.clear()
    run.start()
    run.until(lambda: len(run.worker.assignment.running()) == 2)
    assert run.worker.status().restore.records == 80
    # Without an offset the input is read from where its source begins: every record again, on top of what was.
    run.until(lambda: len(run.out()) == 160)
    assert counts(run, b"0-7") == counts(run, b"1-7") == [1, 2]


def test_an_empty_changelog_is_restored_at_once_and_no_position_is_negative() -> None:
    run = Run(counting())
    positions: list[int] = []
    add = Restorer.add

    def noted(self: Restorer, restorations: Any) -> None:
        positions.extend(item.start for item in restorations.values())
        add(self, restorations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Restorer, "add", noted)
        run.ticks(3)
        assert run.worker.assignment.running()
        run.send((b"k", b"x"))
        run.ticks(4)
        run.workers.pop("w").close()
        run.app.disks.clear()
        # All but its end is deleted: what is left begins where it ends.
        changelog = TopicPartition(f"{GROUP}-counts-changelog", 0)
        run.broker.delete_records({changelog: 1})
        run.start()
        run.ticks(4)
        assert run.worker.assignment.running()
    assert all(position >= 0 for position in positions)
