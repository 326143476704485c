"""Event times of 2013, headers, punctuation, results per commit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker_support import eventually
from tests.integration.support import DEADLINE, Application, check_counts

pytestmark = pytest.mark.broker

HOUR_MS = 3_600_000
Y2013 = 1_357_000_000_000
# On the hour, as stream-time schedules are.
START = Y2013 - Y2013 % HOUR_MS


def test_emit_at_commit_ends_with_the_same_counts(application: Application) -> None:
    """Fewer outputs, rising per word, the last one right; a kill in between repeats and loses none."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=50), application.reader(counts)
    arguments = {"lines": lines, "counts": counts, "emit": "commit"}
    first = application.start("word_count", arguments, commit_interval=0.3)
    feeder.start(400)
    reader.until(200)
    first.kill()
    second = application.start("word_count", arguments, commit_interval=0.3)
    reader.until(400)
    feeder.stop()

    def newest() -> dict[str, int]:
        reader.poll()
        return {(r.key or b"").decode(): int(r.value or b"0") for r in reader.records}

    eventually(lambda: newest() == dict(feeder.words), DEADLINE, "the final counts")
    second.stop()
    seen: dict[bytes | None, int] = {}
    for record in reader.drain():
        assert int(record.value or b"0") > seen.get(record.key, 0), "a count was repeated or went back"
        seen[record.key] = int(record.value or b"0")
    assert newest() == dict(feeder.truth())
    assert len(reader.records) < feeder.words.total()


def test_history_survives_everywhere(application: Application) -> None:
    """Lines of 2013, and one of 1970: through the repartition topic, the changelog and a restore from nothing.

    Topics by time retention would delete every one of these records at once."""
    lines = application.create("lines", 2, {"retention.ms": "-1"})
    counts = application.create("counts", 2, {"retention.ms": "-1"})
    reader = application.reader(counts)
    arguments = {"lines": lines, "counts": counts}

    def send(number: int, *texts: str) -> None:
        for text in texts:
            application.cluster.send(lines, [(None, f"{Y2013 + number * HOUR_MS} {text}".encode())], partition=0)

    send(0, "a b c")
    send(5, "a b")
    send(2, "a")
    application.cluster.send(lines, [(None, b"0 d")], partition=1)
    first = application.start("timed_word_count", arguments)
    reader.until(7)
    first.stop()
    # The newest time of those that made each result, as in Kafka Streams.
    times = {(r.key, r.value): r.timestamp for r in reader.drain()}
    assert times[b"a", b"1"] == Y2013
    assert times[b"a", b"2"] == times[b"a", b"3"] == Y2013 + 5 * HOUR_MS
    assert times[b"d", b"1"] <= 1, "the client cannot say 0, which means now to it"

    for kind in ("repartition", "changelog"):
        topic = application.internal(f"timed-{kind}")
        assert set(application.cluster.starts(topic).values()) == {0}, "something was deleted"
        assert application.cluster.read(topic)
    second = application.start("timed_word_count", arguments, state="empty")
    send(1, "a b c")
    reader.until(10)
    assert second.stop()["restored"] == 4
    times = {(r.key, r.value): r.timestamp for r in reader.drain()}
    # The event time of before came back with the value.
    assert times[b"a", b"4"] == Y2013 + 5 * HOUR_MS
    assert times[b"c", b"2"] == Y2013 + HOUR_MS
    check_counts(reader.records, {"a": 4, "b": 3, "c": 2, "d": 1})


def test_headers_stay_with_their_records(application: Application) -> None:
    """Through a stateless topology, and through a repartition topic and an aggregation."""
    headers: list[tuple[str, bytes | None]] = [("a", b"1"), ("a", b"2"), ("none", None), ("bytes", bytes(range(256)))]
    lines, out, counts = (application.create(name, 2) for name in ("lines", "out", "counts"))
    application.cluster.send(lines, [(b"k", b"hello")], headers=headers, timestamp=Y2013)
    application.cluster.send(lines, [(b"k", b"world")])
    worker = application.start("upper", {"lines": lines, "out": out})
    reader = application.reader(out)
    reader.until(2)
    worker.stop()
    found = {r.value: r for r in reader.drain()}
    assert found[b"HELLO"].headers == headers
    assert found[b"HELLO"].timestamp == Y2013
    assert found[b"HELLO"].key == b"k"
    assert found[b"WORLD"].headers == []

    counter = Application(application.cluster, f"{application.id}-counted", application.directory)
    try:
        worker = counter.start("word_count", {"lines": lines, "counts": counts})
        counted = counter.reader(counts)
        counted.until(2)
        worker.stop()
        found = {r.key: r for r in counted.drain()}
        assert found[b"hello"].headers == headers
        assert found[b"hello"].timestamp == Y2013
        assert found[b"world"].headers == []
    finally:
        counter.close()


def test_punctuation_and_a_store(application: Application) -> None:
    """Stream time drives one schedule, the clock the other, over a kill; a range shows the store in order."""
    readings, out = application.create("readings", 1), application.create("out", 1)
    reader = application.reader(out)
    arguments: dict[str, Any] = {"readings": readings, "out": out}

    def send(hour: float, key: bytes, value: bytes) -> None:
        application.cluster.send(readings, [(key, value)], timestamp=START + int(hour * HOUR_MS))

    def stream() -> list[tuple[int, str]]:
        reader.poll()
        found = [(r.timestamp, (r.value or b"").decode()) for r in reader.records if r.key == b"stream"]
        # The clock's own counter is not of interest here.
        return [(time, ",".join(e for e in text.split(" ")[1].split(",") if "~" not in e)) for time, text in found]

    def walls() -> list[int]:
        reader.poll()
        return [int(r.value or b"0") for r in reader.records if r.key == b"wall"]

    first = application.start("punctuated", arguments)
    send(0.1, b"b", b"1")
    eventually(lambda: len(stream()) == 1, DEADLINE, "the first record's punctuation")
    send(0.2, b"a", b"2")
    send(3.5, b"a", b"3")
    send(3.6, b"c", b"4")
    eventually(lambda: len(stream()) == 2, DEADLINE, "one punctuation for the hours that were missed")
    eventually(lambda: len(walls()) >= 3, DEADLINE, "three ticks without any record")
    first.kill()
    second = application.start("punctuated", arguments)
    second.wait_tasks(1)
    # Stream time came back with the committed offset: this hour has had its punctuation.
    send(3.7, b"b", b"5")
    send(4.5, b"d", b"6")
    eventually(lambda: len(stream()) == 3, DEADLINE, "the next hour's punctuation")
    before = len(walls())
    eventually(lambda: len(walls()) >= before + 2, DEADLINE, "ticks of the second process")
    second.stop()
    reader.drain()
    assert [text for _, text in stream()] == ["b=1", "a=3,b=1", "a=3,b=5,c=4,d=6"]
    # Every tick is counted once: the store and the output went together.
    assert walls() == list(range(1, len(walls()) + 1))
