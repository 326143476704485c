"""The in-memory broker by itself: what the ports cannot show, and the levers that only a test has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    GroupMetadata,
    GroupTaken,
    OutOfRange,
    Output,
    Position,
    ProducerFatal,
    Refused,
    Retriable,
    TopicPartition,
    Unavailable,
)
from streamstate.testing.memory_broker.adapters import MemoryAdmin
from streamstate.testing.memory_broker.assignors import Assignor, range_assignor, sticky_assignor
from streamstate.testing.memory_broker.broker import MemoryBroker, RecordRefused
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.consumer import MemoryConsumer, MemoryRestoreConsumer
from streamstate.testing.memory_broker.log import PartitionLog
from streamstate.testing.memory_broker.producer import MemoryProducer

AT = TopicPartition("topic", 0)
DAY_MS = 24 * 60 * 60 * 1000


class Listener:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[str, list[int]]] = []

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("assigned", [p.partition for p in partitions]))

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("revoked", [p.partition for p in partitions]))

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("lost", [p.partition for p in partitions]))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock)
    made.create_topic("topic")
    return made


def output(value: bytes | None = b"v", *, topic: str = "topic", key: bytes | None = b"k") -> Output:
    return topic, value, key, -1, None, None, None


def producer_of(broker: MemoryBroker, transactional_id: str = "tx", **options: int) -> MemoryProducer:
    producer = MemoryProducer(broker, transactional_id, **options)
    producer.init(100)
    return producer


def member_of(broker: MemoryBroker, client_id: str = "a", **options: object) -> tuple[MemoryConsumer, Listener]:
    consumer = MemoryConsumer(broker, "group", client_id=client_id, **options)  # type: ignore[arg-type]
    listener = Listener()
    consumer.subscribe(["topic"], listener)
    return consumer, listener


# The log

CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("plain"), st.integers(0, 3)),
        st.tuples(st.just("write"), st.integers(0, 2)),
        st.tuples(st.just("commit"), st.integers(0, 2)),
        st.tuples(st.just("abort"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(CALLS, st.integers(1, 5), st.booleans(), st.booleans(), st.booleans())
def test_log_shows_exactly_what_is_committed(
    calls: list[tuple[str, int]], batch: int, compacted: bool, markers: bool, trailing: bool
) -> None:
    log = PartitionLog("topic", 0)
    open_: dict[int, list[int]] = {}
    committed: set[int] = set()
    keys: dict[int, bytes] = {}
    for call, number in calls:
        if call == "plain":
            offset = log.append(b"%d" % number, b"v", 0, 1, None)
            committed.add(offset)
            keys[offset] = b"%d" % number
        elif call == "write":
            offset = log.append(b"%d" % number, b"v", 0, 1, None, producer_id=number)
            open_.setdefault(number, []).append(offset)
            keys[offset] = b"%d" % number
        else:
            done = open_.pop(number, [])
            committed.update(done if call == "commit" else ())
            log.end_transaction(number, call == "commit", 0)
    stable = min((offsets[0] for offsets in open_.values()), default=log.end)
    assert log.last_stable == stable
    expected = sorted(offset for offset in committed if offset < stable)
    if compacted:
        log.compact(markers=markers, trailing_marker=trailing)
        newest = {keys[offset]: offset for offset in expected}
        expected = sorted(newest.values())
    position, seen = 0, []
    while position < stable:
        records, behind = log.read(position, batch)
        assert behind > position, "every read gets on"
        seen += [record.offset() for record in records]
        position = behind
    assert seen == expected
    assert position == stable


def test_compaction_keeps_the_newest_and_what_is_open(broker: MemoryBroker) -> None:
    for value in (b"1", b"2", None):
        broker.append("topic", key=b"a", value=value)
    broker.append("topic", key=b"b", value=b"3")
    producer = producer_of(broker)
    producer.begin()
    producer.send([output(b"open", key=b"b")])
    producer.flush(100)
    broker.append("topic", key=b"b", value=b"behind")
    broker.compact("topic")
    assert [record.offset() for record in broker.read("topic", committed=False)] == [2, 3, 4, 5]
    broker.compact("topic", tombstones=False)
    assert [record.offset() for record in broker.read("topic", committed=False)] == [3, 4, 5]
    producer.abort(100)
    broker.compact("topic", markers=False, trailing_marker=False)
    assert [record.offset() for record in broker.read("topic", committed=False)] == [5]
    log = broker.log(AT)
    assert log is not None
    assert (log.start, log.end, log.last_stable) == (0, 7, 7)


def test_reading_gets_past_a_compacted_tail(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    broker.compact("topic", trailing_marker=False)
    consumer = MemoryRestoreConsumer(broker)
    consumer.assign({AT: 0})
    assert len(consumer.poll(10, 0)) == 1
    assert consumer.positions() == MemoryAdmin(broker).log_ends([AT]) == {AT: 2}


def test_retention_goes_by_record_timestamps(broker: MemoryBroker, clock: ManualClock) -> None:
    now = clock.now_ms()
    for age_days in (400, 30, 1, 30):
        broker.append("topic", key=b"k", value=b"%d" % age_days, timestamp=now - age_days * DAY_MS)
    broker.retain()
    assert [record.value() for record in broker.read("topic")] == [b"1", b"30"]
    clock.advance(8 * DAY_MS)
    broker.retain("topic")
    assert broker.read("topic") == []
    assert MemoryAdmin(broker).log_starts([AT]) == {AT: 4}


def test_retention_spares_compacted_topics_and_open_transactions(broker: MemoryBroker) -> None:
    broker.create_topic("changelog", 1, {"cleanup.policy": "compact"})
    broker.append("changelog", key=b"k", value=b"v", timestamp=1)
    producer = producer_of(broker)
    producer.begin()
    producer.send([("topic", b"v", b"k", 0, None, 1, None)])
    producer.flush(100)
    broker.retain()
    assert len(broker.read("changelog")) == 1
    assert len(broker.read("topic", committed=False)) == 1


@pytest.mark.parametrize(
    ("reason", "topic", "fields"),
    [
        ("INVALID_TIMESTAMP", "topic", {"timestamp": 1_700_000_000_000 + 3_600_001}),
        ("INVALID_TIMESTAMP", "topic", {"timestamp": -1}),
        ("MSG_SIZE_TOO_LARGE", "topic", {"value": b"x" * 1_048_588}),
        ("INVALID_RECORD", "compacted", {"key": None}),
        ("UNKNOWN_TOPIC_OR_PART", "missing", {}),
        ("UNKNOWN_TOPIC_OR_PART", "topic", {"partition": 3}),
    ],
)
def test_refused_records(broker: MemoryBroker, reason: str, topic: str, fields: dict[str, object]) -> None:
    broker.create_topic("compacted", 1, {"cleanup.policy": "compact"})
    record: dict[str, object] = {"key": b"k", "value": b"v", **fields}
    with pytest.raises(RecordRefused) as caught:
        broker.append(topic, **record)  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert broker.read("topic") == []


def test_a_refused_record_takes_its_batch_with_it(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.create_topic("other")
    heard: list[str] = []

    def named(name: str, topic: str, timestamp: int | None) -> Output:
        return topic, b"v", b"k", 0, lambda error, _: heard.append(f"{name} {error is None}"), timestamp, None

    producer = producer_of(broker)
    producer.begin()
    ahead = clock.now_ms() + 2 * 3_600_000
    producer.send([named("good", "topic", None), named("bad", "topic", ahead), named("apart", "other", None)])
    for call in (lambda: producer.flush(100), lambda: producer.send([output()]), lambda: producer.commit(100)):
        with pytest.raises(AbortRequired, match="INVALID_TIMESTAMP"):
            call()
    assert heard == ["good False", "bad False", "apart True"]
    producer.abort(100)
    assert broker.read("other") == broker.read("topic") == []


def test_after_a_refused_batch_one_more_transaction_fails(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.create_topic("other")
    producer = producer_of(broker)
    producer.begin()
    producer.send([("topic", b"v", b"k", 0, None, clock.now_ms() + 2 * 3_600_000, None)])
    with pytest.raises(Refused, match="INVALID_TIMESTAMP"):
        producer.commit(100)
    producer.abort(100)
    producer.begin()
    producer.send([output(topic="other")])
    producer.commit(100)
    for expected in (True, False):
        producer.begin()
        producer.send([output()])
        if expected:
            with pytest.raises(AbortRequired, match="OUT_OF_ORDER_SEQUENCE_NUMBER"):
                producer.commit(100)
            producer.abort(100)
        else:
            producer.commit(100)
    assert (len(broker.read("topic")), len(broker.read("other"))) == (1, 1)


def test_a_deleted_topic_takes_records_and_offsets_with_it(broker: MemoryBroker) -> None:
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    consumer.commit({AT: Position(3)})
    before = broker.topic("topic").topic_id
    broker.delete_topic("topic")
    broker.create_topic("topic")
    assert broker.topic("topic").topic_id != before
    assert consumer.committed([AT], 0) == {AT: None}
    consumer.poll(1, 0)
    consumer.start({AT: 1})
    with pytest.raises(OutOfRange):
        consumer.poll(1, 0)


def test_records_without_key_go_round(broker: MemoryBroker) -> None:
    broker.create_topic("wide", 3)
    assert [broker.append("wide", value=b"v")[0].partition for _ in range(4)] == [0, 1, 2, 0]


# Transactions


def test_a_decided_commit_is_invisible_until_its_markers_are_written(broker: MemoryBroker) -> None:
    broker.create_topic("second")
    broker.transactions.marker_delay_ms = None
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    producer = producer_of(broker)
    producer.begin()
    producer.send([output(), output(topic="second")])
    producer.flush(100)
    producer.send_offsets({AT: Position(1)}, consumer.group_metadata(), 100)
    producer.commit(100)
    assert broker.read("topic") == []
    assert MemoryAdmin(broker).log_ends([AT]) == {AT: 1}, "the end does not know of the marker yet"
    assert broker.transactions.open_transactions() == {}
    with pytest.raises(Retriable, match="not resolved"):
        consumer.committed([AT], 0)
    assert broker.transactions.write_markers(1) == 1
    assert (len(broker.read("topic")), len(broker.read("second"))) == (1, 0)
    assert broker.transactions.write_markers() == 2
    assert len(broker.read("second")) == 1
    assert consumer.committed([AT], 0) == {AT: Position(1)}


def test_markers_may_take_time(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.transactions.marker_delay_ms = 50
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    clock.advance(49)
    broker.expire()
    assert broker.read("topic") == []
    clock.advance(1)
    broker.expire()
    assert len(broker.read("topic")) == 1


def test_the_next_transaction_waits_for_the_markers_of_the_last(broker: MemoryBroker) -> None:
    broker.transactions.marker_delay_ms = None
    producer = producer_of(broker)
    for _ in range(2):
        producer.begin()
        producer.send([output()])
        producer.commit(100)
    assert [record.offset() for record in broker.read("topic")] == [0]
    producer_of(broker)
    assert [record.offset() for record in broker.read("topic")] == [0, 2], "so does the next producer"


def test_an_old_transaction_is_aborted_and_its_producer_fenced(broker: MemoryBroker, clock: ManualClock) -> None:
    producer = producer_of(broker, transaction_timeout_ms=1_000)
    producer.begin()
    producer.send([output()])
    producer.flush(100)
    clock.advance(999)
    broker.expire()
    assert broker.transactions.open_transactions() == {"tx": 999}
    clock.advance(1)
    broker.expire()
    assert broker.transactions.open_transactions() == {}
    assert [entry.marker for entry in broker.topic("topic").logs[0].entries()] == ["", "abort"]
    for call in (lambda: producer.commit(100), lambda: producer.abort(100), lambda: producer.init(100)):
        with pytest.raises(Fenced):
            call()


def test_offsets_need_a_present_member(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    nobody = GroupMetadata(-1, "", "group")
    producer.send_offsets({AT: Position(1)}, nobody, 100)
    producer.commit(100)
    assert broker.committed("group") == {AT: Position(1)}, "taken while the group has no members"
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    producer.begin()
    for metadata in (nobody, GroupMetadata(1, "stranger", "group"), GroupMetadata(0, "a-000001", "group")):
        with pytest.raises(Fenced):
            producer.send_offsets({AT: Position(2)}, metadata, 100)
        with pytest.raises(AbortRequired):
            producer.commit(100)
        producer.abort(100)
        producer.begin()
    producer.send_offsets({AT: Position(3)}, consumer.group_metadata(), 100)
    producer.commit(100)
    assert broker.committed("group") == {AT: Position(3)}


def test_calls_out_of_turn_are_bugs(broker: MemoryBroker) -> None:
    producer = MemoryProducer(broker, "tx")
    for call in (producer.begin, lambda: producer.commit(1), lambda: producer.abort(1)):
        with pytest.raises(RuntimeError, match="called while new"):
            call()
    producer.init(1)
    with pytest.raises(RuntimeError, match="called while ready"):
        producer.send([output()])


def test_closing_leaves_the_transaction_open(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.flush(100)
    producer.close()
    assert list(broker.transactions.open_transactions()) == ["tx"]


# Faults


class Injector:
    """Raises an error once, at one call and phase."""

    def __init__(self, call: str, phase: str, error: BaseException) -> None:
        self.call, self.phase, self.error = call, phase, error
        self.seen: list[tuple[str, str, str]] = []
        self.fired = False

    def __call__(self, actor: str, call: str, phase: str) -> None:
        self.seen.append((actor, call, phase))
        if (call, phase) == (self.call, self.phase) and not self.fired:
            self.fired = True
            raise self.error


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("call", ["init", "flush", "send_offsets", "commit"])
def test_a_call_with_a_lost_answer_can_be_repeated(broker: MemoryBroker, call: str, phase: str) -> None:
    broker.on_call = Injector(f"producer.{call}", phase, Retriable("lost"))
    producer = MemoryProducer(broker, "tx", client_id="p")

    def insist(action: str, *arguments: object) -> None:
        try:
            getattr(producer, action)(*arguments, 100)
        except Retriable:
            getattr(producer, action)(*arguments, 100)

    insist("init")
    producer.begin()
    producer.send([output()])
    insist("flush")
    insist("send_offsets", {AT: Position(1)}, GroupMetadata(-1, "", "group"))
    insist("commit")
    assert broker.on_call.fired
    assert [record.offset() for record in broker.read("topic")] == [0]
    assert broker.committed("group") == {AT: Position(1)}
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    assert len(broker.read("topic")) == 2


@pytest.mark.parametrize("phase", ["before", "after"])
def test_an_abort_with_a_lost_answer_can_be_repeated(broker: MemoryBroker, phase: str) -> None:
    broker.on_call = Injector("producer.abort", phase, Retriable("lost"))
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    producer.flush(100)
    with pytest.raises(Retriable):
        producer.abort(100)
    producer.abort(100)
    producer.begin()
    producer.send([output()])
    producer.commit(100)
    assert [record.offset() for record in broker.read("topic")] == [2]


def test_an_unknown_commit_cannot_be_aborted(broker: MemoryBroker) -> None:
    broker.on_call = Injector("producer.commit", "after", Retriable("lost"))
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    with pytest.raises(Retriable):
        producer.commit(100)
    with pytest.raises(RuntimeError, match="called while committing"):
        producer.abort(100)
    assert len(broker.read("topic")) == 1


@pytest.mark.parametrize("error", [Fenced("injected"), ProducerFatal("injected")])
def test_a_fatal_error_stays(broker: MemoryBroker, error: Exception) -> None:
    producer = producer_of(broker)
    producer.begin()
    broker.on_call = Injector("producer.flush", "before", error)
    with pytest.raises(type(error)):
        producer.flush(100)
    for call in (lambda: producer.flush(1), lambda: producer.commit(1), lambda: producer.abort(1)):
        with pytest.raises(type(error), match="injected"):
            call()


def test_an_abortable_error_stays_until_the_abort(broker: MemoryBroker) -> None:
    producer = producer_of(broker)
    producer.begin()
    broker.on_call = Injector("producer.send", "after", AbortRequired("injected"))
    with pytest.raises(AbortRequired):
        producer.send([output()])
    with pytest.raises(AbortRequired, match="injected"):
        producer.commit(100)
    producer.abort(100)
    producer.begin()
    producer.commit(100)
    assert broker.read("topic") == []


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_poll_with_a_lost_answer_gives_the_same_again(broker: MemoryBroker, phase: str) -> None:
    broker.pipe("topic", [(b"k", b"1"), (b"k", b"2")])
    consumer = MemoryRestoreConsumer(broker)
    consumer.assign({AT: 0})
    broker.on_call = Injector("restore.poll", phase, Retriable("lost"))
    with pytest.raises(Retriable):
        consumer.poll(10, 0)
    assert [record.value() for record in consumer.poll(10, 0)] == [b"1", b"2"]


def test_every_port_call_passes_the_hook(broker: MemoryBroker) -> None:
    injector = Injector("never", "before", Retriable("never"))
    broker.on_call = injector
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    consumer.start({AT: 0})
    consumer.pause([AT])
    consumer.resume([AT])
    consumer.committed([AT], 0)
    consumer.group_metadata()
    consumer.commit({AT: Position(0)})
    consumer.lag({AT: 0})
    consumer.close()
    restore = MemoryRestoreConsumer(broker, client_id="r")
    restore.assign({AT: 0})
    restore.poll(1, 0)
    restore.positions()
    restore.close()
    admin = MemoryAdmin(broker)
    admin.topics([])
    admin.create([])
    admin.delete([])
    admin.config([])
    admin.log_ends([])
    admin.log_starts([])
    admin.delete_records({})
    admin.close()
    calls = [(actor, call) for actor, call, phase in injector.seen if phase == "before"]
    assert calls == [(actor, call) for actor, call, phase in injector.seen if phase == "after"]
    consumer_calls = ["subscribe", "poll", "start", "pause", "resume", "committed", "group_metadata", "commit"]
    assert calls == [
        *(("a", f"consumer.{call}") for call in (*consumer_calls, "lag", "close")),
        *(("r", f"restore.{call}") for call in ("assign", "poll", "positions", "close")),
        *(
            ("admin", f"admin.{call}")
            for call in (
                *("topics", "create", "delete", "config"),
                *("log_ends", "log_starts", "delete_records", "close"),
            )
        ),
    ]


def test_a_broker_that_is_down(broker: MemoryBroker, clock: ManualClock) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    producer = producer_of(broker)
    producer.begin()
    producer.send([output()])
    broker.stop()
    started = clock.monotonic_ms()
    for call in (
        lambda: consumer.poll(1, 100),
        lambda: consumer.committed([AT], 100),
        lambda: producer.flush(100),
        lambda: producer.commit(100),
    ):
        with pytest.raises(Unavailable):
            call()
    assert clock.monotonic_ms() == started + 400, "giving up takes the time it is given"
    with pytest.raises(Unavailable):
        MemoryAdmin(broker).topics(["topic"])
    clock.advance(DAY_MS)
    broker.restart()
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0])], "its session starts anew"
    producer.commit(100)
    assert len(broker.read("topic")) == 1


def test_waiting_can_let_others_work(broker: MemoryBroker) -> None:
    consumer, _ = member_of(broker)
    consumer.poll(1, 0)
    consumer.start({AT: 0})
    waited: list[int] = []

    def work(ms: int) -> None:
        waited.append(ms)
        broker.append("topic", key=b"k", value=b"v")

    broker.on_wait = work
    assert len(consumer.poll(10, 250)) == 1
    assert waited == [250]


# Groups


def test_an_expelled_member_hears_of_it_in_its_next_poll(broker: MemoryBroker) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    member_id = consumer.group_metadata().member_id
    broker.expel("a")
    assert listener.events == [("assigned", [0])]
    assert consumer.group_metadata().member_id == member_id
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0]), ("lost", [0]), ("assigned", [0])]
    assert consumer.group_metadata().member_id != member_id


def test_a_lost_member_may_be_told_that_it_gives_up(broker: MemoryBroker) -> None:
    broker.lost_as_revoked = True
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    refused: list[type[Exception]] = []

    class Committing(Listener):
        def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
            super().on_revoked(partitions)
            try:
                consumer.commit({AT: Position(1)})
            except Fenced as error:
                refused.append(type(error))

    listener = Committing()
    consumer.subscribe(["topic"], listener)
    broker.expel("a")
    consumer.poll(1, 0)
    assert listener.events == [("revoked", [0]), ("assigned", [0])]
    assert refused == [Fenced]
    assert broker.committed("group") == {}


def test_an_older_epoch_does_for_what_is_still_held(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 2)
    first, _ = member_of(broker, "a", protocol="broker")
    first.poll(1, 0)
    old = first.group_metadata()
    second, _ = member_of(broker, "b", protocol="broker")
    for _ in range(3):
        second.poll(1, 0)
        first.poll(1, 0)
    assert first.group_metadata().generation > old.generation
    producer = producer_of(broker)
    producer.begin()
    producer.send_offsets({AT: Position(1)}, old, 100)
    producer.commit(100)
    producer.begin()
    with pytest.raises(Fenced, match="stale"):
        producer.send_offsets({TopicPartition("topic", 1): Position(1)}, old, 100)


def test_closing_after_the_session_ended_loses(broker: MemoryBroker, clock: ManualClock) -> None:
    consumer, listener = member_of(broker, session_timeout_ms=1_000)
    consumer.poll(1, 0)
    clock.advance(1_001)
    consumer.close()
    assert listener.events == [("assigned", [0]), ("lost", [0])]
    with pytest.raises(RuntimeError, match="closed"):
        consumer.poll(1, 0)


def test_a_poll_within_the_session_keeps_the_member(broker: MemoryBroker, clock: ManualClock) -> None:
    consumer, listener = member_of(broker, session_timeout_ms=1_000)
    for _ in range(5):
        consumer.poll(1, 0)
        clock.advance(1_000)
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0])]


def test_cooperative_moves_in_two_rebalances(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 2)
    first, first_hears = member_of(broker, "a")
    first.poll(1, 0)
    second, second_hears = member_of(broker, "b")
    second.poll(1, 0)
    assert first_hears.events == [("assigned", [0, 1])]
    first.poll(1, 0)
    assert first_hears.events[1:] == [("revoked", [1]), ("assigned", [])]
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [])], "nothing before the holder rejoined"
    first.poll(1, 0)
    second.poll(1, 0)
    assert second_hears.events == [("assigned", []), ("assigned", [1])]
    assert broker.group("group").generation == 3


def test_eager_stops_everything_first(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 2)
    first, first_hears = member_of(broker, "a", protocol="eager")
    first.poll(1, 0)
    second, second_hears = member_of(broker, "b", protocol="eager")
    second.poll(1, 0)
    first.poll(1, 0)
    assert first_hears.events == [("assigned", [0, 1]), ("revoked", [0, 1]), ("assigned", [0])]
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [1])]


def test_the_broker_moves_what_was_let_go(broker: MemoryBroker) -> None:
    broker.add_partitions("topic", 3)
    first, first_hears = member_of(broker, "a", protocol="broker")
    first.poll(1, 0)
    epoch = first.group_metadata().generation
    second, second_hears = member_of(broker, "b", protocol="broker")
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [])]
    assert first.group_metadata().generation == epoch, "its own epoch stays until it has let go"
    first.poll(1, 0)
    assert first_hears.events == [("assigned", [0, 1, 2]), ("revoked", [2])]
    second.poll(1, 0)
    assert second_hears.events == [("assigned", []), ("assigned", [2])]
    first.poll(1, 0)
    assert first.group_metadata().generation == second.group_metadata().generation == epoch + 1


def test_another_protocol_has_to_wait(broker: MemoryBroker) -> None:
    consumer, _ = member_of(broker, protocol="eager")
    consumer.poll(1, 0)
    other, _ = member_of(broker, "b", protocol="broker")
    with pytest.raises(GroupTaken, match="uses the protocol 'eager'"):
        other.poll(1, 0)
    consumer.close()
    other.poll(1, 0)


def test_the_successor_of_a_static_member_fences_it(broker: MemoryBroker) -> None:
    first, first_hears = member_of(broker, "a", instance_id="one")
    first.poll(1, 0)
    second, second_hears = member_of(broker, "b", instance_id="one")
    second.poll(1, 0)
    assert second_hears.events == [("assigned", [0])]
    with pytest.raises(Fenced, match="instance id"):
        first.poll(1, 0)
    assert first_hears.events == [("assigned", [0]), ("lost", [0])]
    assert broker.group("group").generation == 1


def test_topics_that_change_are_noticed(broker: MemoryBroker) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    broker.add_partitions("topic", 3)
    consumer.poll(1, 0)
    broker.delete_topic("topic")
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0]), ("assigned", [1, 2]), ("revoked", [0, 1, 2]), ("assigned", [])]


def test_a_rebalance_for_no_reason(broker: MemoryBroker) -> None:
    consumer, listener = member_of(broker)
    consumer.poll(1, 0)
    broker.group("group").rebalance()
    consumer.poll(1, 0)
    assert listener.events == [("assigned", [0]), ("assigned", [])]


# Assignors

ASSIGNORS = pytest.mark.parametrize("assignor", [range_assignor, sticky_assignor])
HELD = st.dictionaries(
    st.sampled_from("abcdef"),
    st.sets(st.builds(TopicPartition, st.sampled_from(["s", "t", "gone"]), st.integers(0, 11)), max_size=12),
)


@ASSIGNORS
@given(members=st.sets(st.sampled_from("abcde"), min_size=1), count=st.integers(1, 9), held=HELD)
def test_assignments_are_complete_balanced_and_keep_partitions_together(
    assignor: Assignor, members: set[str], count: int, held: dict[str, set[TopicPartition]]
) -> None:
    subscriptions = dict.fromkeys(sorted(members), ("s", "t"))
    taken: set[TopicPartition] = set()
    disjoint: dict[str, list[TopicPartition]] = {}
    for member in sorted(held):
        disjoint[member] = sorted(held[member] - taken)
        taken |= held[member]
    assignment = assignor(subscriptions, {"s": count, "t": count}, disjoint)
    given_ = [partition for partitions in assignment.values() for partition in partitions]
    assert sorted(given_) == [TopicPartition(topic, number) for topic in "st" for number in range(count)]
    for partitions in assignment.values():
        assert {p.partition for p in partitions if p.topic == "s"} == {
            p.partition for p in partitions if p.topic == "t"
        }
    sizes = [len(partitions) for partitions in assignment.values()]
    assert max(sizes) - min(sizes) <= 2, "one number, of both topics"
    assert assignor(subscriptions, {"s": count, "t": count}, disjoint) == assignment


@given(st.integers(1, 5), st.integers(1, 12))
def test_sticky_changes_nothing_without_need(members: int, count: int) -> None:
    subscriptions = {f"m{number}": ("t",) for number in range(members)}
    first = sticky_assignor(subscriptions, {"t": count}, {})
    assert sticky_assignor(subscriptions, {"t": count}, first) == first
    more = {**subscriptions, "z": ("t",)}
    grown = sticky_assignor(more, {"t": count}, first)
    for member, partitions in first.items():
        assert grown[member] <= partitions, "who was there gives, and gets nothing new"


def test_only_subscribers_get_a_topic() -> None:
    for assignor in (range_assignor, sticky_assignor):
        assignment = assignor({"a": ("s", "t"), "b": ("t",)}, {"s": 2, "t": 2}, {})
        assert {p.topic for p in assignment["b"]} == {"t"}
        assert sum(len(partitions) for partitions in assignment.values()) == 4


# The clock


def test_clock() -> None:
    clock = ManualClock(100)
    clock.advance(5)
    clock.set_wall(50)
    assert (clock.now_ms(), clock.monotonic_ms()) == (50, 5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
