"""The hand-written restore: ``python -m benchmarks.loop_restore JOB``.

Rule of this module: entries of a plain topic go into RocksDB as fast as the two clients allow, as far as we know:
portions of a thousand in key order, no write-ahead log. Then it answers what is asked, exactly once.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from rocksdict import Rdict, WriteBatch, WriteOptions

from benchmarks.job import Job, received, say, when_told_to_stop
from benchmarks.loops import collect_rarely, consumer_properties, producer_properties, wholesale_properties
from streamstate.rocksdb import Memory

__all__ = ["run"]

_BATCH = 1_000


def _restore(job: Job, ends: dict[int, int]) -> Rdict:
    (topic,) = job.inputs.values()
    database = Rdict(str(job.state / "db"), options=Memory().options())
    unlogged = WriteOptions()
    unlogged.disable_wal = True  # type: ignore[method-assign,assignment]
    reader = Consumer({**wholesale_properties(job), "group.id": f"{job.application_id}-restore"})
    reader.assign([TopicPartition(topic, partition, 0) for partition in ends])
    left = dict(ends)
    total = 0
    say("restore-start")
    while left:
        entries: dict[Any, Any] = {}
        messages: list[Any] = reader.consume(_BATCH, 0.05)
        for message in messages:
            if message.error() is not None:
                raise SystemExit(f"the client: {message.error()}")
            number, offset = message.partition(), message.offset()
            if offset < ends[number]:
                entries[message.key()] = message.value()
                total += 1
            if offset + 1 >= ends[number]:
                left.pop(number, None)
        if entries:
            batch: Any = WriteBatch(raw_mode=True)
            for key in sorted(entries):
                batch[key] = entries[key]
            database.write(batch, unlogged)
    # Begun, not waited for: nobody else does.
    database.flush(False)
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
    job = received()
    collect_rarely()
    run(job, stopped)


if __name__ == "__main__":
    main()
