"""What must not run is refused with the way out; what may is done as told."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from tests.integration.support import Application, check_counts, words_of

pytestmark = pytest.mark.broker


def test_missing_source_topic(application: Application) -> None:
    lines, counts = application.topic("lines"), application.create("counts", 1)
    error = application.start("word_count", {"lines": lines, "counts": counts}).wait_error()
    assert error["type"] == "TopologyError"
    assert lines in error["message"]
    assert f"streamstate topics create {lines} --partitions" in error["message"]


def test_changed_partition_count_under_state(application: Application) -> None:
    lines, counts = application.create("lines", 4), application.create("counts", 1)
    application.cluster.send(lines, [(None, b"a b c")])
    reader = application.reader(counts)
    worker = application.start("word_count", {"lines": lines, "counts": counts})
    reader.until(3)
    worker.stop()
    application.cluster.delete(lines)
    application.create("lines", 6)
    error = application.start("word_count", {"lines": lines, "counts": counts}).wait_error()
    assert error["type"] == "TopologyError"
    message = error["message"]
    for fact in (
        lines,
        "4",
        "6",
        "under existing state",
        f"recreate {lines!r} with 4 partitions",
        "repartition(partitions=4)",
        f"streamstate reset PATH --application-id {application.id}",
    ):
        assert fact in message, message  # fmt: skip
    assert len(reader.drain()) == 3


def test_input_recreated_with_the_same_count(application: Application) -> None:
    """Kafka forgets a group's offsets of a topic that is deleted: the new one is read from its start, and the counts
    go on from the state that is there."""
    lines, counts = application.create("lines", 1), application.create("counts", 1)
    application.cluster.send(lines, [(None, b"a b c")] * 3)
    reader = application.reader(counts)
    worker = application.start("word_count", {"lines": lines, "counts": counts})
    reader.until(9)
    worker.stop()
    application.cluster.delete(lines)
    application.create("lines", 1)
    application.cluster.send(lines, [(None, b"a b")] * 2)
    worker = application.start("word_count", {"lines": lines, "counts": counts})
    reader.until(13)
    worker.stop()
    check_counts(reader.drain(), {"a": 5, "b": 5, "c": 3})


def test_retention_overtakes_a_committed_offset(application: Application) -> None:
    """``fail`` says which records are gone; ``earliest`` goes on from what is left, and counts that exactly once."""
    lines, counts = application.create("lines", 2), application.create("counts", 1)
    feeder, reader = application.feeder(lines, seed=60), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    feeder.feed(200)
    worker = application.start("word_count", arguments)
    reader.until(feeder.words.total())
    worker.stop()
    kept = application.cluster.read(lines)
    feeder.feed(200)
    application.cluster.delete_records(lines, {0: 150, 1: 50})
    after = application.cluster.read(lines)

    error = application.start("word_count", arguments).wait_error()
    assert error["type"] == "OffsetOutOfRange"
    for fact in (lines, "partition 0", "committed offset is 100", "150 to 200", "50 offsets", "--out-of-range"):
        assert fact in error["message"], error["message"]
    assert len(reader.drain()) == words_of(kept).total(), "it processed something all the same"

    unseen = words_of(record for record in after if record.offset >= 100)
    assert unseen.total() < words_of(after).total()
    worker = application.start("word_count", arguments, out_of_range="earliest")
    reader.until(words_of(kept).total() + unseen.total())
    worker.stop()
    check_counts(reader.drain(), words_of(kept) + unseen)


def test_log_starts_behind_zero(application: Application) -> None:
    """Deleted records behind the committed offset are nobody's business, in inputs and repartition topics alike."""
    lines, counts = application.create("lines", 4), application.create("counts", 1)
    feeder, reader = application.feeder(lines, seed=61), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    repartition = application.internal("word-counts-repartition")
    fed = words_of([])
    for round_ in range(3):
        feeder.feed(400)
        workers = [application.start("word_count", arguments) for _ in range(1 + round_ % 2)]
        reader.until(feeder.words.total())
        for worker in workers:
            worker.stop()
        fed = feeder.words
        application.cluster.delete_records(lines, application.cluster.committed(application.id, lines))
        done = application.cluster.committed(application.id, repartition)
        application.cluster.delete_records(repartition, {p: offset for p, offset in done.items() if offset > 0})
        assert min(application.cluster.starts(lines).values()) > 0
    check_counts(reader.drain(), fed)


def test_no_committed_offset_and_a_log_that_starts_late(application: Application) -> None:
    lines, counts = application.create("lines", 2), application.create("counts", 1)
    feeder, reader = application.feeder(lines, seed=62), application.reader(counts)
    feeder.feed(200)
    application.cluster.delete_records(lines, {0: 60, 1: 100})
    worker = application.start("word_count", {"lines": lines, "counts": counts})
    left = words_of(application.cluster.read(lines))
    reader.until(left.total())
    worker.stop()
    check_counts(reader.drain(), left)


def test_changelog_deleted_under_state(application: Application) -> None:
    lines, counts = application.create("lines", 2), application.create("counts", 1)
    feeder, reader = application.feeder(lines, seed=63), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    feeder.feed(50)
    worker = application.start("word_count", arguments)
    reader.until(feeder.words.total())
    worker.stop()
    application.cluster.delete(application.internal("word-counts-changelog"))
    error = application.start("word_count", arguments).wait_error()
    assert error["type"] == "TaskCorrupted"
    assert "streamstate reset" in error["message"]
    # Nor does it count from zero where nothing local is left to notice: the committed offsets tell.
    error = application.start("word_count", arguments, state="fresh").wait_error()
    assert error["type"] == "TaskCorrupted"
    assert f"{application.internal('word-counts-changelog')!r}, was deleted" in error["message"]
    assert "streamstate reset" in error["message"]
    assert len(reader.drain()) == feeder.words.total()


def test_commit_interval_beyond_the_transaction_timeout(application: Application) -> None:
    """The broker would abort every transaction before it commits."""
    lines, counts = application.create("lines", 1), application.create("counts", 1)
    error = application.start(
        "word_count", {"lines": lines, "counts": counts}, commit_interval=30, transaction_timeout=10
    ).wait_error()
    assert error["type"] == "ConfigError"
    assert "transaction" in error["message"]
    assert "commit" in error["message"]


def test_a_record_too_large_for_its_topic(application: Application) -> None:
    """Refused by the broker: it says so instead of trying for ever, and nothing of the transaction is kept."""
    lines = application.create("lines", 1)
    out = application.create("out", 1, {"max.message.bytes": "20000"})
    producer = Producer({"bootstrap.servers": application.cluster.bootstrap_servers})
    text = str(time.time_ns()).encode()
    producer.produce(lines, b"small")
    producer.produce(lines, b"".join(b"%d" % i for i in range(20_000)) + text)
    assert producer.flush(30) == 0
    error = application.start("upper", {"lines": lines, "out": out}).wait_error()
    assert error["type"] == "ProcessingError"
    assert "max.message.bytes" in error["message"]
    assert out in error["message"]
    assert application.cluster.read(out) == []


def test_partitions_added_while_it_runs(application: Application) -> None:
    """Keys go to other partitions from that moment on: it ends, and says how to go on."""
    lines, counts = application.create("lines", 2), application.create("counts", 1)
    application.cluster.send(lines, [(None, b"a b c")])
    worker = application.start(
        "word_count", {"lines": lines, "counts": counts}, kafka={"topic.metadata.refresh.interval.ms": 1_000}
    )
    reader = application.reader(counts)
    reader.until(3)
    application.cluster.admin.create_partitions([NewPartitions(lines, 3)])[lines].result(30)
    error = worker.wait_error()
    assert error["type"] == "TopologyError"
    assert "went from 2 to 3 under existing state" in error["message"]
    assert "streamstate reset" in error["message"]
    assert len(reader.drain()) == 3


def test_input_recreated_while_it_runs(application: Application) -> None:
    """As when it was stopped: the new topic is read from its start, and the counts go on from the state there is."""
    lines, counts = application.create("lines", 1), application.create("counts", 1)
    application.cluster.send(lines, [(None, b"a b c")] * 3)
    reader = application.reader(counts)
    worker = application.start(
        "word_count", {"lines": lines, "counts": counts}, kafka={"topic.metadata.refresh.interval.ms": 1_000}
    )
    reader.until(9)
    application.cluster.delete(lines)
    application.create("lines", 1)
    application.cluster.send(lines, [(None, b"a b")] * 2)
    reader.until(13)
    worker.stop()
    check_counts(reader.drain(), {"a": 5, "b": 5, "c": 3})
