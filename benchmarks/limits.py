"""What the parts alone can do: ``python -m benchmarks.limits JOB``.

Rule of this module: one client and nothing else, as fast as we know how to.
"""

from __future__ import annotations

import random
import time
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from rocksdict import WriteBatch

from benchmarks.inputs import PARTITIONS
from benchmarks.job import Job, received, say
from benchmarks.loops import producer_properties, wholesale_properties
from streamstate.rocksdb import Memory

__all__ = ["LIMITS"]

_BATCH = 10_000
_ENTRY = 50


def _consume(job: Job) -> tuple[int, float]:
    """Every record of the input, read_committed; nothing is done with it."""
    (topic,) = job.inputs.values()
    consumer = Consumer(wholesale_properties(job))
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    count, began = 0, 0.0
    while count < job.records:
        batch = consumer.consume(_BATCH, 0.05)
        if batch and not began:
            began = time.monotonic()
        count += len(batch)
    seconds = time.monotonic() - began
    consumer.close()
    return count, seconds


def _produce(job: Job) -> tuple[int, float]:
    """Records with a key and a count as value, in transactions of one commit interval."""
    producer = Producer(producer_properties(job))
    producer.init_transactions()
    keys = [b"key-%d" % number for number in range(1_000)]
    produce, output = producer.produce, job.output
    began = time.monotonic()
    sent = 0
    while sent < job.records:
        producer.begin_transaction()
        commit_at = time.monotonic() + job.commit_ms / 1000
        while sent < job.records and time.monotonic() < commit_at:
            for _ in range(min(1_000, job.records - sent)):
                try:
                    produce(output, b"%d" % sent, keys[sent % 1_000])
                except BufferError:
                    producer.flush()
                    produce(output, b"%d" % sent, keys[sent % 1_000])
                sent += 1
            producer.poll(0)
        producer.flush()
        producer.commit_transaction()
    return sent, time.monotonic() - began


def _rocksdb(job: Job) -> tuple[int, float]:
    """Entries of 100 bytes under random keys, in sorted batches, with the engine's options and write-ahead log."""
    from rocksdict import Rdict

    database = Rdict(str(job.state / "db"), options=Memory().options())
    chance = random.Random(1)
    keys = [chance.randbytes(12) for _ in range(job.records)]
    value = chance.randbytes(_ENTRY).hex().encode()
    began = time.monotonic()
    for start in range(0, len(keys), _BATCH):
        batch: Any = WriteBatch(raw_mode=True)
        for key in sorted(keys[start : start + _BATCH]):
            batch[key] = value
        database.write(batch)
    database.flush()
    seconds = time.monotonic() - began
    database.close()
    return len(keys), seconds


LIMITS = {"consume": _consume, "produce": _produce, "rocksdb": _rocksdb}


def main() -> None:
    """Measure one and say it."""
    job = received()
    count, seconds = LIMITS[job.work](job)
    say(f"rate {count} {seconds}")


if __name__ == "__main__":
    main()
