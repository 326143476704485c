"""Two topics that feed one stateful sub-topology: equal partitions meet in one task, in time order."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from confluent_kafka import Producer

from tests.broker_support import eventually
from tests.integration.support import (
    DEADLINE,
    VOCABULARY,
    Application,
    Feeder,
    Record,
    check_counts,
)

pytestmark = pytest.mark.broker

PARTITIONS = 4


class KeyFeeder(Feeder):
    """One word per record, as its key, where the default partitioner of the clients puts it."""

    def _write(self, lines: int) -> None:
        for _ in range(lines):
            word = next(self._source).split()[0]
            self._producer.produce(
                self.topic, b"x", word.encode(), partition=VOCABULARY.index(word) % PARTITIONS,
                on_delivery=self._delivered,
            )  # fmt: skip
            self.lines += 1
            self.words[word] += 1
        self._producer.poll(0)


def keys_of(records: list[Record]) -> Counter[str]:
    return Counter(record.key.decode() for record in records if record.key is not None)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_merge_then_count_with_a_rebalance(application: Application, protocol: str) -> None:
    left, right = application.create("left", PARTITIONS), application.create("right", PARTITIONS)
    counts = application.create("counts", 3)
    feeders = [KeyFeeder(application.cluster, topic, seed) for topic, seed in ((left, 30), (right, 31))]
    reader = application.reader(counts)
    arguments = {"left": left, "right": right, "counts": counts}

    def total() -> int:
        return sum(feeder.words.total() for feeder in feeders)

    def shared(count: int) -> bool:
        held = [worker.running for worker in application.workers if worker.process.poll() is None]
        return len(held) == count and all(held) and sum(map(len, held)) == PARTITIONS

    for feeder in feeders:
        feeder.start(300)
    first = application.start("merged_count", arguments, group_protocol=protocol)
    first.wait_tasks(PARTITIONS)
    reader.until(reader.poll() + 300)
    second = application.start("merged_count", arguments, group_protocol=protocol)
    eventually(lambda: shared(2), DEADLINE, "two processes sharing the tasks")
    assert first.running.isdisjoint(second.running)
    reader.until(reader.poll() + 300)
    first.kill()
    second.wait_tasks(PARTITIONS)
    third = application.start("merged_count", arguments, group_protocol=protocol)
    eventually(lambda: shared(2), DEADLINE, "two processes sharing the tasks again")
    reader.until(reader.poll() + 300)
    for feeder in feeders:
        feeder.stop()
    reader.until(total())
    second.stop()
    third.stop()
    truth = keys_of(application.cluster.read(left)) + keys_of(application.cluster.read(right))
    assert truth == feeders[0].words + feeders[1].words
    check_counts(reader.drain(), truth)


def test_records_of_two_topics_come_in_time_order(application: Application) -> None:
    """All is there before the start: the merge is in the order of event times, runs of one side included."""
    left, right = application.create("left", 1), application.create("right", 1)
    counts, order = application.create("counts", 1), application.create("order", 1)
    chance = random.Random(32)
    # Long runs of one side empty the other side's buffer again and again.
    base, side = 1_400_000_000_000, left
    times: dict[str, list[int]] = {left: [], right: []}
    for step in range(6_000):
        if chance.random() < 0.01:
            side = right if side == left else left
        times[side].append(base + step)
    producer = Producer({"bootstrap.servers": application.cluster.bootstrap_servers, "enable.idempotence": True})
    for topic, stamps in times.items():
        for stamp in stamps:
            producer.produce(topic, b"x", b"word", timestamp=stamp)
    assert producer.flush(30) == 0
    worker = application.start(
        "merged_count",
        {"left": left, "right": right, "counts": counts, "order": order, "slow": 0.0003},
        max_task_idle=0.5,
    )
    reader = application.reader(order)
    reader.until(6_000)
    worker.stop()
    seen = [record.timestamp for record in reader.drain()]
    assert len(seen) == 6_000
    late = [(i, a, b) for i, (a, b) in enumerate(pairwise(seen)) if b < a]
    assert not late, f"{len(late)} of 6000 records came after a later one, the first: {late[:3]}"
