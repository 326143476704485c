"""Throughput of a running count, beside a hand-written loop of the same work.

Two workloads, each exactly once, one output per update, one process, one transaction per second:

``keyed``        2,000,000 words, already keyed by word: consume, count per key, produce.
``repartition``  lines of ten words: consume, split, re-key through a repartition topic, count, produce
                 (``topologies/word_count.py``).

The hand-written loop keeps its counts in a dict and has no durable state, no restore and no rebalance handling: it
is what the client alone costs. Each contender runs in a process of its own, alternating, on one broker and the same
input; the outputs of every run are verified to be 1, 2, ... n for each word.

Run it with: python benchmarks/word_count.py [--words 2000000] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from streamstate import Topology, serde
from streamstate.app import Application, Settings
from streamstate.broker import EmbeddedBroker
from streamstate.engine.ports import NewTopic
from streamstate.engine.ports import TopicPartition as Partition
from streamstate.kafka import KafkaAdmin, KafkaRestoreConsumer

PARTITIONS = 4
DISTINCT = 100_000
WORDS_PER_LINE = 10
ENGINE, LOOP = "streamstate", "hand-written loop"


# -- contenders -------------------------------------------------------------------------------------------


def keyed_topology(out: str) -> Topology:
    topology = Topology("bench")
    (
        topology.stream("words", key=serde.string(), value=serde.bytes_())
        .group_by_key()
        .count(store="counts")
        .to_stream()
        .map_values(str)
        .to(out, value=serde.string())
    )
    return topology


def repartition_topology(out: str) -> Topology:
    topology = Topology("bench")
    (
        topology.stream("lines", value=serde.string())
        .flat_map_values(str.split)
        .group_by(lambda key, word: word, key=serde.string(), value=serde.string())
        .count(store="counts")
        .to_stream()
        .map_values(str)
        .to(out, value=serde.string())
    )
    return topology


def run_engine(workload: str, servers: str, name: str, records: int) -> float:
    topology = keyed_topology(name) if workload == "keyed" else repartition_topology(name)
    began: list[float] = []
    ended: list[float] = []

    def watch(status: Any) -> None:
        now = time.monotonic()
        if status.processed and not began:
            began.append(now)
        if status.committed >= records and not ended:
            ended.append(now)
            application.stop()

    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(
            bootstrap_servers=servers,
            application_id=name,
            state_dir=Path(directory),
            commit_interval=timedelta(seconds=1),
        )
        application = Application(topology, settings, watch, timedelta(milliseconds=20))
        application.run()
    return ended[0] - began[0]


def run_loop(workload: str, servers: str, name: str, records: int) -> float:
    """What one would write by hand: no framework can be much faster."""
    source = "words" if workload == "keyed" else "lines"
    inner = f"{name}-repartition"
    topics = [source] if workload == "keyed" else [source, inner]
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": name,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "queued.min.messages": 20_000,
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 50,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "transactional.id": name,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "batch.num.messages": 50_000,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 262_144,
        }
    )
    consumer.subscribe(topics)
    producer.init_transactions()
    produce = producer.produce
    counts: dict[bytes, int] = {}
    began = 0.0
    done = 0
    offsets: dict[tuple[str, int], int] = {}
    while done < records:
        producer.begin_transaction()
        close_at = time.monotonic() + 1.0
        while time.monotonic() < close_at and done < records:
            batch: list[Any] = consumer.consume(2_000, 0) or [m for m in [consumer.poll(0.05)] if m is not None]
            if batch and not began:
                began = time.monotonic()
            for message in batch:
                assert message.error() is None, message.error()
                topic = message.topic()
                timestamp = message.timestamp()[1]
                if workload == "repartition" and topic == source:
                    for word in message.value().decode().split():
                        key = word.encode()
                        produce(inner, key, key, -1, None, None, timestamp)
                else:
                    key = message.key()
                    count = counts[key] = counts.get(key, 0) + 1
                    produce(name, str(count).encode(), key, -1, None, None, timestamp)
                offsets[topic, message.partition()] = message.offset() + 1
                done += 1
            producer.poll(0)
        producer.flush()
        producer.send_offsets_to_transaction(
            [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()],
            consumer.consumer_group_metadata(),
        )
        producer.commit_transaction()
    ended = time.monotonic()
    consumer.close()
    return ended - began


# -- the suite --------------------------------------------------------------------------------------------


def feed(servers: str, words: int) -> None:
    """Skewed words (a few very frequent), the same in both topics."""
    rng = random.Random(7)
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 50, "partitioner": "murmur2_random",
                         "queue.buffering.max.messages": 1_000_000})  # fmt: skip
    line: list[str] = []
    for number in range(words):
        word = f"word-{int(DISTINCT * rng.random() ** 3)}"
        while True:
            try:
                producer.produce("words", b"x" * 40, word.encode())
                break
            except BufferError:
                producer.poll(0.1)
        line.append(word)
        if len(line) == WORDS_PER_LINE:
            producer.produce("lines", " ".join(line).encode(), partition=number // WORDS_PER_LINE % PARTITIONS)
            line.clear()
    producer.flush()


def verify(servers: str, topic: str, words: int) -> None:
    """Every word's outputs are 1, 2, ... n, and there are as many as words."""
    admin = KafkaAdmin({"bootstrap.servers": servers})
    reader = KafkaRestoreConsumer({"bootstrap.servers": servers}, f"verify-{topic}")
    partitions = [Partition(topic, number) for number in range(PARTITIONS)]
    ends = admin.log_ends(partitions)
    reader.assign(dict.fromkeys(partitions, 0))
    counts: dict[bytes | None, int] = {}
    total = 0
    while any(reader.positions()[partition] < ends[partition] for partition in partitions):
        for message in reader.poll(10_000, 100):
            key, value = message.key(), int(message.value() or b"0")
            if value != counts.get(key, 0) + 1:
                raise SystemExit(f"{topic}: {key!r} went from {counts.get(key, 0)} to {value}")
            counts[key] = value
            total += 1
    reader.close()
    if total != words:
        raise SystemExit(f"{topic}: {total} outputs for {words} words")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {"words": arguments.words, "rounds": arguments.rounds, "workloads": {}}
    with EmbeddedBroker(heap_mb=1024) as broker:
        servers = broker.bootstrap_servers
        admin = KafkaAdmin({"bootstrap.servers": servers})
        keep = {"retention.ms": "-1"}
        admin.create([NewTopic("words", PARTITIONS, None, keep), NewTopic("lines", PARTITIONS, None, keep)])
        feed(servers, arguments.words)
        for workload in arguments.workloads:
            records = arguments.words if workload == "keyed" else arguments.words + arguments.words // WORDS_PER_LINE
            rates: dict[str, list[float]] = {ENGINE: [], LOOP: []}
            cpu: dict[str, list[float]] = {ENGINE: [], LOOP: []}
            for number in range(arguments.rounds):
                for contender in (ENGINE, LOOP):
                    name = f"{workload}-{contender.replace(' ', '-')}-{number}"
                    admin.create([NewTopic(name, PARTITIONS, None, keep)])
                    if contender == LOOP:
                        admin.create([NewTopic(f"{name}-repartition", PARTITIONS, None, keep)])
                    seconds, cpu_seconds = in_process(contender, workload, servers, name, records)
                    verify(servers, name, arguments.words)
                    rates[contender].append(arguments.words / seconds)
                    cpu[contender].append(cpu_seconds)
                    print(f"{workload:12} {contender:18} {arguments.words / seconds:10,.0f} words/s", flush=True)
            medians = {contender: statistics.median(found) for contender, found in rates.items()}
            results["workloads"][workload] = {
                "words_per_second": medians,
                "cpu_seconds": {contender: statistics.median(found) for contender, found in cpu.items()},
                "ratio": medians[ENGINE] / medians[LOOP],
            }
    return results


def in_process(contender: str, workload: str, servers: str, name: str, records: int) -> tuple[float, float]:
    command = [sys.executable, __file__, "--contender", contender, workload, servers, name, str(records)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return answer["seconds"], answer["cpu_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workloads", nargs="+", default=["keyed", "repartition"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", nargs=5, metavar="X", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contender, workload, servers, name, records = arguments.contender
        run_one = run_engine if contender == ENGINE else run_loop
        seconds = run_one(workload, servers, name, int(records))
        spent = os.times()
        print(json.dumps({"seconds": seconds, "cpu_seconds": spent.user + spent.system}))
        return
    results = measure(arguments)
    for workload, found in results["workloads"].items():
        rates = found["words_per_second"]
        print(
            f"{workload}: {ENGINE} {rates[ENGINE]:,.0f}, {LOOP} {rates[LOOP]:,.0f} words/s, ratio {found['ratio']:.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
