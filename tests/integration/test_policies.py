"""Records that fail: nothing of them is left behind, whatever the policy."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.support import Application, Record, check_counts, words_of

pytestmark = pytest.mark.broker

BAD = b"one two fail! three"
# Not UTF-8: fails before it reaches an operator.
BROKEN = b"one \xff\xfe two"
HEADERS = [("trace", b"\x00\x01"), ("empty", None), ("trace", b"again")]


def feed(application: Application, lines: str, bad: bytes, *, headers: Any = None) -> None:
    """Good lines around bad ones; the first bad one is at offset 3 of partition 1."""
    for partition in (0, 1):
        send(application, lines, partition, [b"one two three"] * 3)
    application.cluster.send(lines, [(b"k\xff", bad)], partition=1, headers=headers, timestamp=1_400_000_000_000)
    for partition in (0, 1):
        send(application, lines, partition, [b"three one"] * 3)
    application.cluster.send(lines, [(None, bad)], partition=0)
    send(application, lines, 0, [b"two"])


def send(application: Application, lines: str, partition: int, values: list[bytes]) -> None:
    application.cluster.send(lines, [(None, value) for value in values], partition=partition)


def by_partition(application: Application, lines: str, counts: list[Record], bad: bytes) -> None:
    """Each task counts its own partition: as many outputs per word and count as the good lines say."""
    good = [record for record in application.cluster.read(lines) if record.value != bad]
    expected: list[tuple[str, int]] = []
    for partition in (0, 1):
        words = words_of(record for record in good if record.partition == partition)
        expected += [(word, count) for word, n in words.items() for count in range(1, n + 1)]
    assert all(record.key is not None and record.value is not None for record in counts)
    seen = [((record.key or b"").decode(), int(record.value or b"0")) for record in counts]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(("bad", "operator"), [(BAD, "tally"), (BROKEN, "lines")], ids=["processor", "decoding"])
def test_fail_names_the_record(application: Application, bad: bytes, operator: str) -> None:
    lines, counts = application.create("lines", 2), application.create("counts", 2)
    feed(application, lines, bad)
    application.cluster.send(lines, [(b"k\xff", bad)], partition=0)
    worker = application.start("tallied", {"lines": lines, "counts": counts})
    error = worker.wait_error()
    assert error["type"] == ("ProcessingError" if bad is BAD else "SerdeError")
    message = error["message"]
    for fact in (repr(lines), operator, "on_error='continue'"):
        assert fact in message, message
    # Whichever of its partitions comes first.
    at = [("partition 1", "offset 3", repr(b"k\xff")), ("partition 0", "offset 6", "None")]
    assert any(all(fact in message for fact in facts) for facts in at), message
    # The same record stops the next attempt too; it is neither skipped nor half kept.
    again = application.start("tallied", {"lines": lines, "counts": counts}).wait_error()
    assert again["type"] == error["type"]
    seen = [((r.key or b"").decode(), int(r.value or b"0")) for r in application.cluster.read(counts)]
    assert len(seen) == len(set(seen)) or len({count for _, count in seen}) <= 6
    assert not application.cluster.open_transactions([counts])


@pytest.mark.parametrize("on", ["source", "processor"])
def test_continue_leaves_nothing_of_the_record(application: Application, on: str) -> None:
    lines, counts = application.create("lines", 2), application.create("counts", 2)
    feed(application, lines, BAD)
    worker = application.start("tallied", {"lines": lines, "counts": counts, "action": "continue", "on": on})
    reader = application.reader(counts)
    reader.until(9 + 9 + 6 + 6 + 1)
    assert worker.stop()["failed"] == 2
    by_partition(application, lines, reader.drain(), BAD)
    # The store is what the outputs say, also after a full restore.
    send(application, lines, 1, [b"two"])
    worker = application.start(
        "tallied", {"lines": lines, "counts": counts, "action": "continue", "on": on}, state="empty"
    )
    reader.until(32)
    worker.stop()
    by_partition(application, lines, reader.drain(), BAD)


@pytest.mark.parametrize(("bad", "operator"), [(BAD, "tally"), (BROKEN, "lines")], ids=["processor", "decoding"])
def test_dead_letter_keeps_the_record(application: Application, bad: bytes, operator: str) -> None:
    lines, counts, dead = application.create("lines", 2), application.create("counts", 2), application.topic("dead")
    feed(application, lines, bad, headers=HEADERS)
    arguments = {"lines": lines, "counts": counts, "action": "dead_letter", "dead": dead}
    # One transaction holds all: until it ends, committed readers see neither outputs nor dead letters.
    worker = application.start("tallied", arguments, commit_interval=60, transaction_timeout=120)
    worker.wait(lambda s: s["failed"] == 2 and s["processed"] == 15, "both bad records")
    loose = application.reader(dead, isolation="read_uncommitted")
    assert len(loose.until(2)) == 2
    stable = application.cluster.ends(dead, committed=True)
    assert set(stable.values()) == {0}, "dead letters are visible before their transaction is committed"
    assert set(application.cluster.ends(counts, committed=True).values()) == {0}
    worker.stop()
    by_partition(application, lines, application.cluster.read(counts), bad)

    letters = {letter.key: letter for letter in application.cluster.read(dead)}
    assert len(letters) == 2
    keyed, plain = letters[b"k\xff"], letters[None]
    assert keyed.value == plain.value == bad
    assert keyed.timestamp == 1_400_000_000_000
    assert keyed.headers[: len(HEADERS)] == HEADERS
    facts = {name.removeprefix("streamstate.error."): value for name, value in keyed.headers[len(HEADERS) :]}
    assert facts["topic"] == lines.encode()
    assert (facts["partition"], facts["offset"]) == (b"1", b"3")
    assert facts["application"] == application.id.encode()
    assert operator in (facts["operator"] or b"").decode()
    assert facts["error"] == (b"RuntimeError" if bad is BAD else b"UnicodeDecodeError")
    assert facts["message"]
    assert dict(plain.headers)["streamstate.error.offset"] == b"6"


def test_dead_letters_are_written_once_over_a_kill(application: Application) -> None:
    """A process dies with a dead letter in its open transaction: its replacement writes it again, and only once."""
    lines, counts, dead = application.create("lines", 2), application.create("counts", 2), application.topic("dead")
    feed(application, lines, BAD)
    arguments = {"lines": lines, "counts": counts, "action": "dead_letter", "dead": dead}
    first = application.start("tallied", arguments, commit_interval=30, transaction_timeout=120)
    first.wait(lambda s: s["failed"] == 2 and s["processed"] == 15, "both bad records")
    assert first.status["committed"] == 0
    first.kill()
    second = application.start("tallied", arguments)
    reader = application.reader(counts)
    reader.until(31)
    second.stop()
    by_partition(application, lines, reader.drain(), BAD)
    assert len(application.cluster.read(dead)) == 2


@pytest.mark.parametrize("action", ["fail", "continue", "dead_letter"])
def test_an_event_time_far_ahead_meets_the_policy(application: Application, action: str) -> None:
    """Two hours ahead: the output topic would refuse it, and with it the whole transaction, for ever."""
    lines, counts = application.create("lines", 2), application.create("counts", 2)
    dead = application.topic("dead") if action == "dead_letter" else None
    now = time.time_ns() // 1_000_000
    ahead = b"%d a b" % (now + 2 * 3_600_000)
    for line in (b"%d a b" % now, ahead, b"%d a c" % now):
        application.cluster.send(lines, [(None, line)], partition=0)
    arguments = {"lines": lines, "counts": counts, "action": action, "dead": dead}
    worker = application.start("timed_word_count", arguments)
    reader = application.reader(counts)
    if action == "fail":
        error = worker.wait_error()
        assert error["type"] == "ProcessingError"
        assert "message.timestamp.after.max.ms" in error["message"]
        assert counts in error["message"]
        return
    reader.until(4)
    status = worker.stop()
    assert status["rollbacks"] == 0
    # Its two words fail one by one, behind the repartition topic, where their time meets the output topic.
    assert status["failed"] == 2
    check_counts(reader.drain(), {"a": 2, "b": 1, "c": 1})
    if dead is not None:
        assert sorted(letter.value or b"" for letter in application.cluster.read(dead)) == [b"a", b"b"]


@pytest.mark.parametrize("action", ["fail", "continue", "dead_letter"])
def test_a_value_larger_than_its_topic_takes_meets_the_policy(application: Application, action: str) -> None:
    """Between small records that together are larger than a batch that the topic takes: they all pass."""
    lines = application.create("lines", 1)
    out = application.create("out", 1, {"max.message.bytes": "20000"})
    dead = application.topic("dead") if action == "dead_letter" else None
    small = [(None, b"%0100d" % number) for number in range(1_000)]
    application.cluster.send(lines, small[:500])
    if action != "fail":
        application.cluster.send(lines, [(b"k", b"x" * 30_000)])
    application.cluster.send(lines, small[500:])
    arguments = {"lines": lines, "out": out, "action": action, "dead": dead}
    worker = application.start("upper", arguments, commit_interval=1)
    application.reader(out).until(1_000)
    status = worker.stop()
    assert [record.value for record in application.cluster.read(out)] == [value for _, value in small]
    assert (status["failed"], status["rollbacks"]) == (0 if action == "fail" else 1, 0)
    if dead is not None:
        [letter] = application.cluster.read(dead)
        assert (letter.key, letter.value) == (b"k", b"x" * 30_000)
        assert "max.message.bytes" in dict(letter.headers)["streamstate.error.message"].decode()  # type: ignore[union-attr]
