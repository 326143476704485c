"""SIGKILL at bad moments: nothing missing, nothing twice, no more restored than must be, no reader held up."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from typing import Any

import pytest

from streamstate.engine.task.store_marks import MARK_KEY
from tests.broker_support import eventually
from tests.integration.support import DEADLINE, Application, Record, check_counts, freeze_mid_transaction

pytestmark = pytest.mark.broker

TASKS = 8
# Far longer than any test waits: what is aborted sooner was aborted by somebody.
LONG_S = 120


def live(records: list[Record]) -> dict[bytes, bytes]:
    """The newest value by key, of what is no mark."""
    newest: dict[bytes, bytes] = {}
    for record in records:
        assert record.key is not None
        if record.key == MARK_KEY:
            continue
        if record.value is None:
            newest.pop(record.key, None)
        else:
            newest[record.key] = record.value
    return newest


def touched(application: Application, counts: str) -> list[str]:
    return [counts, application.internal("word-counts-repartition"), application.internal("word-counts-changelog")]


def test_kill_in_a_transaction_and_replace(application: Application) -> None:
    """Twice over: the replacement takes the dead process' place and nothing shows."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=10), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    settings: dict[str, Any] = {"commit_interval": 0.4, "transaction_timeout": LONG_S}
    feeder.start(400)
    for crash in range(2):
        worker = application.start("word_count", arguments, **settings)
        worker.wait(lambda s: s["commits"] >= 2 and s["processed"] > s["committed"], "uncommitted work")
        reader.until(200 * (crash + 1))
        freeze_mid_transaction(worker, application.cluster, touched(application, counts))
        worker.kill()
        assert application.cluster.open_transactions(touched(application, counts)), "nothing was open at the kill"
    last = application.start("word_count", arguments, **settings)
    feeder.stop()
    reader.until(feeder.words.total())
    last.stop()
    check_counts(reader.drain(), feeder.truth())
    assert not application.cluster.open_transactions(touched(application, counts))


def test_kill_one_of_two_in_a_transaction(application: Application) -> None:
    """The survivor takes over; a replacement joins while records flow."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=11), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    first = application.start("word_count", arguments, commit_interval=0.5)
    second = application.start("word_count", arguments, commit_interval=0.5)
    eventually(lambda: len(first.running) + len(second.running) == TASKS, DEADLINE, "two workers")
    feeder.start(400)
    reader.until(400)
    first.wait(lambda s: s["processed"] > s["committed"], "uncommitted work")
    first.kill()
    third = application.start("word_count", arguments)
    reader.until(len(reader.records) + 800)
    feeder.stop()
    reader.until(feeder.words.total())
    eventually(lambda: len(third.running) + len(second.running) == TASKS, DEADLINE, "two workers again")
    second.stop()
    third.stop()
    check_counts(reader.drain(), feeder.truth())


def test_readers_wait_for_a_restart_only(application: Application, record_property: Any) -> None:
    """A killed process' transaction ends with its restart, long before the transaction's own time-out."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=12), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    settings: dict[str, Any] = {"commit_interval": 1, "transaction_timeout": LONG_S}
    feeder.feed(400)
    first = application.start("word_count", arguments, **settings)
    reader.until(feeder.words.total())
    feeder.start(400)
    held = freeze_mid_transaction(first, application.cluster, touched(application, counts))
    first.kill()
    killed = time.monotonic()
    feeder.stop()
    assert set(application.cluster.open_transactions(touched(application, counts))) >= set(held)

    def free() -> bool:
        stable = {topic: application.cluster.ends(topic, committed=True) for topic in touched(application, counts)}
        return all(stable[topic][partition] > blocked[topic, partition] for topic, partition in held)

    blocked = {
        (topic, partition): application.cluster.ends(topic, committed=True)[partition] for topic, partition in held
    }
    assert not free()
    restarted = time.monotonic()
    second = application.start("word_count", arguments, **settings)
    eventually(free, timedelta(seconds=LONG_S / 2), "the abort of what was left open")
    freed = time.monotonic()
    second.wait_tasks(TASKS)
    running = time.monotonic()
    record_property("blocked_s", round(freed - killed, 2))
    record_property("freed_after_restart_began_s", round(freed - restarted, 2))
    record_property("restart_took_s", round(running - restarted, 2))
    print(
        f"readers blocked {freed - killed:.2f} s, of these {freed - restarted:.2f} s since the restart began; "
        f"tasks ran {running - restarted:.2f} s after it began"
    )
    assert freed <= running + 1, "readers waited for longer than the restart took"
    assert freed - killed < LONG_S / 4, "only the time-out can explain this"
    reader.until(feeder.words.total())
    second.stop()
    check_counts(reader.drain(), feeder.truth())


def test_restore_reads_what_the_last_commit_added(application: Application) -> None:
    """Killed between Kafka's commit and the stores': on the same directory exactly that commit is replayed, after a
    clean stop nothing, on an empty directory everything."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=13), application.reader(counts)
    changelog = application.internal("word-counts-changelog")
    arguments = {"lines": lines, "counts": counts}
    armed = application.directory / "armed"
    feeder.feed(800)

    first = application.start("word_count", arguments, hooks={"die_before_apply": str(armed)})
    reader.until(feeder.words.total())
    assert first.status["restored"] == 0
    armed.touch()
    feeder.feed(100)
    assert first.process.wait(30) == -signal.SIGKILL
    eventually(lambda: first.of_kind("dying"), DEADLINE, "its last words")
    unapplied = first.of_kind("dying")[0]["changelog_records"]
    assert unapplied > 0

    second = application.start("word_count", arguments)
    second.wait_tasks(TASKS)
    assert second.status["restored"] == unapplied
    reader.until(feeder.words.total())
    second.stop()

    third = application.start("word_count", arguments)
    third.wait_tasks(TASKS)
    assert third.stop()["restored"] == 0, "after a clean stop there is nothing to restore"

    present = application.cluster.read(changelog)
    assert len(live(present)) == len(feeder.words)
    fourth = application.start("word_count", arguments, state="another-machine")
    fourth.wait_tasks(TASKS)
    entries = sum(record.key != MARK_KEY for record in present)
    assert fourth.status["restored"] == entries, "an empty directory takes the whole changelog"
    feeder.feed(100)
    reader.until(feeder.words.total())
    fourth.stop()
    check_counts(reader.drain(), feeder.truth())


def test_restore_after_a_kill_in_a_transaction(application: Application) -> None:
    """The open transaction's changelog records are neither kept in the store nor restored."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=14), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    feeder.feed(400)
    first = application.start("word_count", arguments, commit_interval=1, transaction_timeout=LONG_S)
    reader.until(feeder.words.total())
    feeder.start(400)
    freeze_mid_transaction(first, application.cluster, touched(application, counts))
    first.kill()
    feeder.stop()
    second = application.start("word_count", arguments)
    second.wait_tasks(TASKS)
    # With a transaction open, every commit before it had reached the stores.
    assert second.status["restored"] == 0
    reader.until(feeder.words.total())
    second.stop()
    check_counts(reader.drain(), feeder.truth())
    # What the stores hold is what the changelog says: an empty directory ends up with the same counts.
    newest = live(application.cluster.read(application.internal("word-counts-changelog")))
    assert len(newest) == len(feeder.words)


def test_kill_while_restoring(application: Application) -> None:
    """Of what was restored before the kill, what is not in files yet is restored again, and the rest follows."""
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=15), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    feeder.feed(2000)
    first = application.start("word_count", arguments)
    reader.until(feeder.words.total())
    first.stop()
    present = len(application.cluster.read(application.internal("word-counts-changelog")))
    # Each poll brings at most a few records, so that the kill finds the restore unfinished.
    second = application.start("word_count", arguments, state="fresh", hooks={"restore_stops_at": present // 2})
    eventually(lambda: second.of_kind("restoring"), DEADLINE, "half of the restore")
    second.kill()
    restored = second.of_kind("restoring")[0]["records"]
    third = application.start("word_count", arguments, state="fresh")
    third.wait_tasks(TASKS)
    assert present - restored <= third.status["restored"] <= present
    feeder.feed(200)
    reader.until(feeder.words.total())
    third.stop()
    check_counts(reader.drain(), feeder.truth())


def test_at_least_once_loses_nothing(application: Application) -> None:
    lines, counts = application.create("lines", 4), application.create("counts", 3)
    feeder, reader = application.feeder(lines, seed=16), application.reader(counts)
    arguments = {"lines": lines, "counts": counts}
    settings: dict[str, Any] = {"processing_guarantee": "at_least_once", "commit_interval": 0.4}
    feeder.start(400)
    first = application.start("word_count", arguments, **settings)
    first.wait(lambda s: s["commits"] >= 2 and s["processed"] > s["committed"], "uncommitted work")
    reader.until(400)
    first.kill()
    second = application.start("word_count", arguments, **settings)
    reader.until(1200)
    feeder.stop()

    def all_processed() -> bool:
        return application.cluster.committed(application.id, lines) == application.cluster.ends(lines)

    eventually(all_processed, DEADLINE, "every line to be committed as processed")

    def all_counted() -> bool:
        # The number of outputs says nothing: what was counted twice makes up for what is still on its way.
        newest = {record.key.decode(): int(record.value) for record in reader.drain() if record.key and record.value}
        return all(newest.get(word, 0) >= number for word, number in feeder.words.items())

    eventually(all_counted, DEADLINE, "every word to be counted")
    second.stop()
    check_counts(reader.drain(), feeder.truth(), extras=True)
