"""Restore: a process with an empty disk takes over a state that is only in the changelog.

Rule of this module: the contender itself wrote the changelog, in its own format, before any clock ran; that it was
restored is shown by asking for entries afterwards.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from confluent_kafka import Producer

from benchmarks.contenders import LOOP, Contender
from benchmarks.inputs import PARTITIONS
from benchmarks.process import Cost, Team
from benchmarks.progress import Observer
from benchmarks.runs import Bench, Place, place, start
from benchmarks.verify import Expectation, check, read_outputs
from benchmarks.workloads import Case
from streamstate.engine.ports import TopicPartition
from streamstate.kafka import KafkaAdmin

__all__ = ["ENTRY_BYTES", "Restores", "Watch", "entry", "entry_key"]

ENTRY_BYTES = 100
# Told of the processes that restore.
Watch = Callable[[Team], None]

_ASKED = 1_000
_ASKED_FOR = b"?"


def entry_key(number: int) -> bytes:
    """The key of this entry."""
    return b"entry-%d" % number


def entry(number: int) -> bytes:
    """Its value: 100 bytes that do not repeat."""
    return hashlib.blake2b(b"%d" % number, digest_size=ENTRY_BYTES // 2).hexdigest().encode()


def _fill(bench: Bench, topic: str, count: int) -> None:
    bench.create(topic)
    producer = _producer(bench.servers)
    for number in range(count):
        _produce(producer, topic, entry_key(number), entry(number))
    producer.flush()


def _producer(servers: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 50,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "log_level": 2,
        }
    )


def _produce(producer: Producer, topic: str, key: bytes, value: bytes) -> None:
    while True:
        try:
            producer.produce(topic, value, key)
            return
        except BufferError:
            producer.poll(0.1)


@dataclass(slots=True)
class _Written:
    """A contender's changelog."""

    at: Place
    topic: str
    ends: dict[int, int]
    rounds: int = 0


class Restores:
    """The changelogs of all contenders: each is written once, and restored in every round.

    Args:
        bench: where.
        entries: of each.
    """

    def __init__(self, bench: Bench, entries: int) -> None:
        self._bench = bench
        self._entries = entries
        self._written: dict[tuple[str, str], _Written] = {}
        self._places = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._places.close()

    def run(self, case: Case, contender: Contender, watch: Watch = lambda _: None) -> dict[str, Any]:
        """Restore once, into an empty directory.

        Args:
            watch: called when the processes that restore are started.
        """
        known = self._written.get((case.name, contender.name))
        if known is None:
            known = self._written[case.name, contender.name] = self._write(case, contender)
        for directory in known.at.directory.glob("state-*"):
            shutil.rmtree(directory)
        asked = random.Random(known.rounds).sample(range(self._entries), min(_ASKED, self._entries))
        known.rounds += 1
        try:
            return _restored(self._bench, case, contender, known, asked, watch)
        except BaseException:
            # What it was asked for may wait in its input: the next round has a changelog of its own.
            del self._written[case.name, contender.name]
            raise

    def _write(self, case: Case, contender: Contender) -> _Written:
        bench = self._bench
        at = self._places.enter_context(place(bench, case, contender))
        topic = f"{at.application_id}.in"
        _fill(bench, topic, self._entries)
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        admin = KafkaAdmin({"bootstrap.servers": bench.servers})
        ends = {partition.partition: end for partition, end in admin.log_ends(partitions).items()}
        if contender.name != LOOP:
            with Team() as team:
                _work_off(bench, case, contender, _Written(at, topic, ends), team, {})
        return _Written(at, topic, ends)


def _work_off(
    bench: Bench,
    case: Case,
    contender: Contender,
    written: _Written,
    team: Team,
    options: dict[str, str],
    watch: Watch = lambda _: None,
) -> Cost:
    inputs = {"events": written.topic}
    observer = Observer(bench.servers, written.at.application_id, inputs)
    try:
        start(team, bench, case, contender, written.at, inputs=inputs, options=options)
        watch(team)
        observer.follow(team, bench.limit_s(observer.total))
    finally:
        observer.close()
    return team.stop()


def _restored(
    bench: Bench, case: Case, contender: Contender, written: _Written, asked: list[int], watch: Watch
) -> dict[str, Any]:
    at, topic, ends = written.at, written.topic, written.ends
    entries = sum(ends.values())
    outputs = [TopicPartition(at.output, number) for number in range(PARTITIONS)]
    before = KafkaAdmin({"bootstrap.servers": bench.servers}).log_ends(outputs)
    producer = _producer(bench.servers)
    for number in asked:
        _produce(producer, topic, entry_key(number), _ASKED_FOR)
    producer.flush()
    options = {"ends": json.dumps(ends)} if contender.name == LOOP else {}
    with Team() as team:
        cost = _work_off(bench, case, contender, written, team, options, watch)
        began = team.said("restore-start")
        restored = team.said("restored")
        launched = min(member.started for member in team.members)
    # The restored entry, not the value that it was asked with.
    values = {entry_key(number): [entry(number)] for number in asked}
    check(read_outputs(bench.servers, at.output, PARTITIONS, before), Expectation("sequence", values, bytes))
    total = sum(int(count) for _, count in restored)
    if total < entries:
        raise ValueError(f"{total:,} of {entries:,} entries were restored")
    if not began:
        raise ValueError("it never said that it began to restore")
    seconds = restored[-1][0] - began[0][0]
    millions = entries / 1_000_000
    return {
        "records": entries,
        "outputs": len(asked),
        "restore_rate": entries / seconds,
        "from_start_s": restored[-1][0] - launched,
        "cpu_user_s_per_million": cost.user_s / millions,
        "cpu_system_s_per_million": cost.system_s / millions,
        "cpu_s_per_million": (cost.user_s + cost.system_s) / millions,
        "peak_bytes": cost.peak_bytes,
    }
