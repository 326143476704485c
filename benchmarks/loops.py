"""The hand-written loop of each workload: ``python -m benchmarks.loops JOB``.

Rule of this module: what one would write with the client alone, as fast as one reasonably can, exactly once. State is
in dicts, and what has changed of it is written to a changelog once per commit, within the transaction: without that the
state would not survive the process. There is no restore and no care for rebalances. No framework can be much faster.
"""

from __future__ import annotations

import gc
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.expected import JOIN_WINDOW_MS
from benchmarks.inputs import MINUTE_MS, PARTITIONS
from benchmarks.job import Job, received, say, when_told_to_stop

__all__ = [
    "LOOPS",
    "changelog_topic",
    "collect_rarely",
    "consumer_properties",
    "producer_properties",
    "repartition_topic",
    "wholesale_properties",
]

_BATCH = 1_000
_GRACE_MS = 30_000

Sent = Callable[[str, bytes, bytes, int], None]
# Handles one record: the message and its event time.
Step = Callable[[Any, int], None]
Steps = dict[str, Step]
BeforeCommit = Callable[[], None]


def changelog_topic(application_id: str) -> str:
    """Where the loop writes its state."""
    return f"{application_id}-changelog"


def _nothing() -> None:
    """What a loop without state has to write before a commit."""


def _writing(counts: dict[bytes, int], changed: dict[bytes, int], send: Sent, *topics: str) -> BeforeCommit:
    """Writes the counts that have changed, with their timestamps, to each of these topics."""

    def before_commit() -> None:
        for key, timestamp in changed.items():
            count = b"%d" % counts[key]
            for topic in topics:
                send(topic, count, key, timestamp)
        changed.clear()

    return before_commit


def _mapped(job: Job, send: Sent) -> tuple[Steps, BeforeCommit]:
    output, loads, dumps = job.output, orjson.loads, orjson.dumps

    def step(message: Any, timestamp: int) -> None:
        event = loads(message.value())
        send(output, dumps({"id": event["id"], "twice": event["amount"] * 2}), message.key(), timestamp)

    return {job.inputs["events"]: step}, _nothing


def _counted(job: Job, send: Sent) -> tuple[Steps, BeforeCommit]:
    output, loads, changelog = job.output, orjson.loads, changelog_topic(job.application_id)
    counts: dict[bytes, int] = {}
    changed: dict[bytes, int] = {}

    def step(message: Any, timestamp: int) -> None:
        loads(message.value())
        key = message.key()
        count = counts[key] = counts.get(key, 0) + 1
        changed[key] = timestamp
        send(output, b"%d" % count, key, timestamp)

    return {job.inputs["events"]: step}, _writing(counts, changed, send, changelog)


def _newest(job: Job, send: Sent) -> tuple[Steps, BeforeCommit]:
    output, loads, changelog = job.output, orjson.loads, changelog_topic(job.application_id)
    counts: dict[bytes, int] = {}
    changed: dict[bytes, int] = {}

    def step(message: Any, timestamp: int) -> None:
        loads(message.value())
        key = message.key()
        counts[key] = counts.get(key, 0) + 1
        changed[key] = timestamp

    return {job.inputs["events"]: step}, _writing(counts, changed, send, output, changelog)


def repartition_topic(application_id: str) -> str:
    """Where the loop sends records that belong to another partition."""
    return f"{application_id}-repartition"


def _grouped(job: Job, send: Sent) -> tuple[Steps, BeforeCommit]:
    output, loads, inner = job.output, orjson.loads, repartition_topic(job.application_id)
    changelog = changelog_topic(job.application_id)
    counts: dict[bytes, int] = {}
    changed: dict[bytes, int] = {}

    def spread(message: Any, timestamp: int) -> None:
        value = message.value()
        send(inner, value, loads(value)["group"].encode(), timestamp)

    def count(message: Any, timestamp: int) -> None:
        loads(message.value())
        key = message.key()
        number = counts[key] = counts.get(key, 0) + 1
        changed[key] = timestamp
        send(output, b"%d" % number, key, timestamp)

    return {job.inputs["events"]: spread, inner: count}, _writing(counts, changed, send, changelog)


def _means(job: Job, send: Sent) -> tuple[Steps, BeforeCommit]:
    output, loads, dumps = job.output, orjson.loads, orjson.dumps
    changelog = changelog_topic(job.application_id)
    changed: dict[tuple[bytes, int], list[int]] = {}
    # Per partition, because event time advances in each for itself; by start, so that a closed window goes as a whole.
    partitions: list[dict[int, dict[bytes, list[int]]]] = [{} for _ in range(PARTITIONS)]

    def step(message: Any, timestamp: int) -> None:
        start = timestamp - timestamp % MINUTE_MS
        windows = partitions[message.partition()]
        window = windows.get(start)
        if window is None:
            window = windows[start] = {}
            for old in [begin for begin in windows if begin + MINUTE_MS + _GRACE_MS < timestamp]:
                del windows[old]
        key = message.key()
        state = window.get(key)
        if state is None:
            state = window[key] = [0, 0]
        state[0] += loads(message.value())["amount"]
        state[1] += 1
        changed[key, start] = state
        send(output, dumps({"start": start, "mean": state[0] / state[1]}), key, timestamp)

    def before_commit() -> None:
        for (key, start), state in changed.items():
            send(changelog, dumps(state), key + start.to_bytes(8, "big"), start)
        changed.clear()

    return {job.inputs["events"]: step}, before_commit


def _enriched(job: Job, send: Sent) -> tuple[Steps, BeforeCommit]:
    output, loads, dumps = job.output, orjson.loads, orjson.dumps
    table: dict[bytes, Any] = {}

    def row(message: Any, timestamp: int) -> None:
        table[message.key()] = loads(message.value())

    def step(message: Any, timestamp: int) -> None:
        key = message.key()
        found = table.get(key)
        if found is not None:
            event = loads(message.value())
            joined = {"id": event["id"], "amount": event["amount"], "name": found["name"]}
            send(output, dumps(joined), key, timestamp)

    # The table's own topic is its changelog.
    return {job.inputs["table"]: row, job.inputs["events"]: step}, _nothing


def _pairs(job: Job, send: Sent) -> tuple[Steps, BeforeCommit]:
    """Whichever of a pair is read later sends it, so that the order between the topics does not matter."""
    output, loads, dumps = job.output, orjson.loads, orjson.dumps
    changelog = changelog_topic(job.application_id)
    lefts: dict[bytes, list[tuple[int, int]]] = {}
    rights: dict[bytes, list[tuple[int, int]]] = {}
    left_time, right_time = [0] * PARTITIONS, [0] * PARTITIONS

    def side(
        own: dict[bytes, list[tuple[int, int]]],
        other: dict[bytes, list[tuple[int, int]]],
        own_time: list[int],
        other_time: list[int],
        is_left: bool,
    ) -> Step:
        mark = b"l" if is_left else b"r"

        def step(message: Any, timestamp: int) -> None:
            key, number = message.key(), loads(message.value())["id"]
            partition = message.partition()
            own_time[partition] = timestamp
            seen = own.setdefault(key, [])
            passed = other_time[partition] - JOIN_WINDOW_MS
            if seen and seen[0][0] < passed:
                del seen[: bisect_left(seen, (passed, 0))]
            seen.append((timestamp, number))
            send(changelog, b"%d" % number, key + mark + timestamp.to_bytes(8, "big"), timestamp)
            for at, match in reversed(other.get(key, ())):
                if at < timestamp - JOIN_WINDOW_MS:
                    break
                if at <= timestamp + JOIN_WINDOW_MS:
                    pair = {"left": number, "right": match} if is_left else {"left": match, "right": number}
                    send(output, dumps(pair), key, max(at, timestamp))

        return step

    return {
        job.inputs["left"]: side(lefts, rights, left_time, right_time, True),
        job.inputs["right"]: side(rights, lefts, right_time, left_time, False),
    }, _nothing


LOOPS: Mapping[str, Callable[[Job, Sent], tuple[Steps, BeforeCommit]]] = {
    "map": _mapped,
    "count-update": _counted,
    "count-commit": _newest,
    "tumbling-mean": _means,
    "table-join": _enriched,
    "stream-join": _pairs,
    "repartition": _grouped,
}


def consumer_properties(job: Job) -> dict[str, Any]:
    """Those of the engine's own client, so that the loop differs in nothing but what it does not do."""
    return {
        "bootstrap.servers": job.servers,
        "group.id": job.application_id,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "queued.min.messages": 5_000,
        "fetch.message.max.bytes": 262_144,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 50,
        "enable.auto.offset.store": False,
        "queued.max.messages.kbytes": 65_536,
        "fetch.error.backoff.ms": 50,
        "retry.backoff.ms": 50,
    }


def wholesale_properties(job: Job) -> dict[str, Any]:
    """Those of the engine's client for replays, for reading much and doing little with it."""
    return {**consumer_properties(job), "queued.min.messages": 20_000, "fetch.message.max.bytes": 1 << 20}


def producer_properties(job: Job) -> dict[str, Any]:
    """As above."""
    return {
        "bootstrap.servers": job.servers,
        "transactional.id": f"{job.application_id}-{job.process}",
        "partitioner": "murmur2_random",
        "linger.ms": 20,
        "batch.size": 1_000_000,
        "batch.num.messages": 50_000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
        "sticky.partitioning.linger.ms": 0,
        "retry.backoff.ms": 10,
        "retry.backoff.max.ms": 50,
    }


def collect_rarely() -> None:
    """The collector as the engine has it: most of what lives here stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(30_000, 70, 100)


def subscribe(consumer: Consumer, job: Job, topics: list[str]) -> list[TopicPartition]:
    """Join the group; with a table among the inputs its stream waits for it.

    Returns:
        Partitions that are paused until the table has been read, filled when they are assigned.
    """
    waiting: list[TopicPartition] = []

    def assigned(_: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        if "table" in job.inputs:
            waiting.extend(partition for partition in partitions if partition.topic == job.inputs["events"])
            consumer.pause(waiting)

    consumer.subscribe(topics, on_assign=assigned)
    return waiting


def _is_read(consumer: Consumer, topic: str) -> bool:
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    for found in consumer.position(partitions):
        end = consumer.get_watermark_offsets(TopicPartition(topic, found.partition), timeout=10)
        if end is None or found.offset < end[1]:
            return False
    return True


def run(job: Job, stopped: threading.Event) -> None:
    """Until it is stopped: read, compute, send, and commit at the interval."""
    # The join does not wait for the stream that is behind. Fetched in small portions the two drift apart, and each
    # record is held against all that came meanwhile: 14,000 records a second instead of 80,000.
    reading = wholesale_properties if job.work == "stream-join" else consumer_properties
    consumer, producer = Consumer(reading(job)), Producer(producer_properties(job))
    produce = producer.produce

    def send(topic: str, value: bytes, key: bytes, timestamp: int) -> None:
        try:
            produce(topic, value, key, -1, None, None, timestamp)
        except BufferError:
            producer.flush()
            produce(topic, value, key, -1, None, None, timestamp)

    steps, before_commit = LOOPS[job.work](job, send)
    waiting = subscribe(consumer, job, list(steps))
    producer.init_transactions()
    interval_s = job.commit_ms / 1000
    offsets: dict[tuple[str, int], int] = {}
    begun = False
    producer.begin_transaction()
    commit_at = time.monotonic() + interval_s
    while not stopped.is_set():
        batch: list[Any] = consumer.consume(_BATCH, 0) or [m for m in [consumer.poll(0.005)] if m is not None]
        if batch and not begun:
            begun = True
            say("first")
        for message in batch:
            if message.error() is not None:
                raise SystemExit(f"the client: {message.error()}")
            topic = message.topic()
            steps[topic](message, message.timestamp()[1])
            offsets[topic, message.partition()] = message.offset() + 1
        producer.poll(0)
        if waiting and not batch and _is_read(consumer, job.inputs["table"]):
            consumer.resume(waiting)
            waiting.clear()
        if offsets and time.monotonic() >= commit_at:
            before_commit()
            producer.flush()
            positions = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
            producer.commit_transaction()
            offsets.clear()
            producer.begin_transaction()
            commit_at = time.monotonic() + interval_s
    producer.abort_transaction()
    consumer.close()


def main() -> None:
    """Run until told to stop."""
    stopped = threading.Event()
    when_told_to_stop(stopped.set)
    job = received()
    collect_rarely()
    run(job, stopped)


if __name__ == "__main__":
    main()
