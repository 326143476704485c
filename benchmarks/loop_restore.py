"""The hand-written restore: ``python -m benchmarks.loop_restore JOB``.

Rule of this module: entries of a plain topic go into RocksDB as fast as the two clients allow: vector memtable, no
write-ahead log, one flush in the end. Then it answers what is asked, exactly once.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from rocksdict import MemtableFactory, Options, Rdict, WriteBatch, WriteOptions

from benchmarks.job import Job, received, say, when_told_to_stop
from benchmarks.loops import consumer_properties, producer_properties, wholesale_properties

__all__ = ["open_for_bulk", "run"]

_BATCH = 10_000
_MEMTABLE_BYTES = 64 << 20


def open_for_bulk(path: str) -> tuple[Rdict, WriteOptions]:
    """A database that takes writes fast and reads badly, and how to write to it."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_allow_concurrent_memtable_write(False)
    options.set_memtable_factory(MemtableFactory.vector())
    options.set_write_buffer_size(_MEMTABLE_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_max_background_jobs(2)
    unlogged = WriteOptions()
    unlogged.disable_wal = True  # type: ignore[method-assign,assignment]
    return Rdict(path, options=options), unlogged


def _restore(job: Job, ends: dict[int, int]) -> Rdict:
    (topic,) = job.inputs.values()
    database, unlogged = open_for_bulk(str(job.state / "db"))
    reader = Consumer({**wholesale_properties(job), "group.id": f"{job.application_id}-restore"})
    reader.assign([TopicPartition(topic, partition, 0) for partition in ends])
    left = dict(ends)
    total = 0
    say("restore-start")
    while left:
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        messages: list[Any] = reader.consume(_BATCH, 0.05)
        for message in messages:
            if message.error() is not None:
                raise SystemExit(f"the client: {message.error()}")
            number, offset = message.partition(), message.offset()
            if offset < ends[number]:
                put(message.key(), message.value())
                total += 1
            if offset + 1 >= ends[number]:
                left.pop(number, None)
        if not batch.is_empty():
            database.write(batch, unlogged)
    database.flush()
    say(f"restored {total}")
    reader.close()
    return database


def run(job: Job, stopped: threading.Event) -> None:
    """Restore, then answer until it is stopped."""
    ends = {int(partition): end for partition, end in json.loads(job.options["ends"]).items() if end}
    database = _restore(job, ends)
    (topic,) = job.inputs.values()
    consumer, producer = Consumer(consumer_properties(job)), Producer(producer_properties(job))
    partitions = [TopicPartition(topic, partition) for partition in ends]
    for found in (committed := consumer.committed(partitions)):
        found.offset = max(found.offset, ends[found.partition])
    producer.init_transactions()

    def assigned(_: Consumer, given: list[TopicPartition]) -> None:
        consumer.assign(committed)

    consumer.subscribe([topic], on_assign=assigned)
    while not stopped.is_set():
        messages = consumer.consume(1_000, 0.05)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            key: Any = message.key()
            producer.produce(job.output, database[key], key)
        producer.flush()
        producer.send_offsets_to_transaction(consumer.position(partitions), consumer.consumer_group_metadata())
        producer.commit_transaction()
    consumer.close()
    database.close()


def main() -> None:
    """Run until told to stop."""
    stopped = threading.Event()
    when_told_to_stop(stopped.set)
    run(received(), stopped)


if __name__ == "__main__":
    main()
