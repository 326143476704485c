"""One run of one contender, of each kind of workload.

Rule of this module: a run either yields figures of verified outputs or raises; nothing that it started or created
is left.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from benchmarks.contenders import LOOP, Contender, environment
from benchmarks.expected import expectation
from benchmarks.figures import throughput
from benchmarks.inputs import KEPT, PARTITIONS, Inputs
from benchmarks.job import Job
from benchmarks.loops import changelog_topic, repartition_topic
from benchmarks.peers.place import PLACE
from benchmarks.process import ContenderFailed, Team
from benchmarks.progress import Observer, internal_topics
from benchmarks.verify import WrongOutput, check, read_outputs
from benchmarks.workloads import Case
from streamstate.engine.ports import NewTopic
from streamstate.kafka import KafkaAdmin

__all__ = ["Bench", "Place", "place", "run_limit", "run_throughput", "start"]

# However busy the machine is; a contender that hangs is given up earlier.
_PATIENCE_S = 120
_SLOWEST_RATE = 500


@dataclass(slots=True)
class Bench:
    """What all runs share.

    Attributes:
        servers: the broker.
        records: of the throughput workloads.
        inputs: topics with input.
        numbers: for names that nobody had before.
        latency_s: seconds of warm-up and seconds measured.
    """

    servers: str
    records: int
    inputs: Inputs
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    latency_s: tuple[float, float] = (30.0, 20.0)

    def name(self, case: Case, contender: Contender) -> str:
        """A new application id; no other one contains it."""
        return f"{self.inputs.prefix}.{next(self.numbers):04d}.{case.workload.name}.{contender.name}"

    def create(self, topic: str) -> None:
        """A topic that nothing is deleted from by time."""
        KafkaAdmin({"bootstrap.servers": self.servers}).create([NewTopic(topic, PARTITIONS, None, KEPT)])

    def delete(self, prefix: str) -> None:
        """Every topic with this application id, or this suite's prefix, in its name."""
        names = internal_topics(AdminClient({"bootstrap.servers": self.servers, "log_level": 0}), prefix)
        KafkaAdmin({"bootstrap.servers": self.servers}).delete(names)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self.delete(self.inputs.prefix)

    def limit_s(self, records: int) -> float:
        """How long a run over this many records may take."""
        return _PATIENCE_S + records / _SLOWEST_RATE


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps its files, and its names."""

    directory: Path
    application_id: str

    @property
    def output(self) -> str:
        """The output topic."""
        return f"{self.application_id}.out"


@contextmanager
def place(bench: Bench, case: Case, contender: Contender) -> Iterator[Place]:
    """A directory and an output topic for a run, deleted afterwards with every internal topic."""
    PLACE.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=PLACE))
    found = Place(directory, bench.name(case, contender))
    try:
        bench.create(found.output)
        if contender.name == LOOP:
            # The others make their own.
            for topic in (repartition_topic(found.application_id), changelog_topic(found.application_id)):
                bench.create(topic)
        yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        bench.delete(found.application_id)


def start(team: Team, bench: Bench, case: Case, contender: Contender, at: Place, **more: Any) -> None:
    """All processes of the contender."""
    command = contender.command(case.workload.work)
    for number in range(contender.processes):
        # Processes of one machine that share a directory must be told apart by it; Quix Streams and the JVM's RocksDB
        # take a directory each.
        state = at.directory / f"state-{number}"
        state.mkdir(exist_ok=True)
        job = Job(
            work=case.workload.work,
            servers=bench.servers,
            application_id=at.application_id,
            output=at.output,
            commit_ms=case.commit_ms,
            state_dir=str(state),
            process=number,
            threads=contender.threads,
            cache_bytes=contender.cache_bytes,
            **more,
        )
        team.start(command, job, at.directory / f"stderr-{number}-{time.monotonic_ns()}", environment())


def run_throughput(bench: Bench, case: Case, contender: Contender) -> dict[str, Any]:
    """How fast a backlog is worked off."""
    workload = case.workload
    records = contender.records(case.records(bench.records))
    topics = bench.inputs.topics(workload.inputs, records)
    expected = expectation(workload.work, records, bench.inputs.begin_ms)
    with (
        place(bench, case, contender) as at,
        closing(Observer(bench.servers, at.application_id, topics, workload.repartitions)) as observer,
        Team() as team,
    ):
        start(team, bench, case, contender, at, inputs=topics)
        samples = observer.follow(team, bench.limit_s(observer.total))
        first = team.said("first")
        cost = team.stop()
        if not first:
            raise ContenderFailed("it never said that it had its first record")
        try:
            outputs = check(read_outputs(bench.servers, at.output, PARTITIONS), expected)
        except WrongOutput as error:
            raise WrongOutput(f"{error}\n{team.quoted()}") from error
        found = throughput(first[0][0], samples, observer.total)
    millions = observer.total / 1_000_000
    return {
        "records": observer.total,
        "outputs": outputs,
        "rate": found.whole,
        "steady_rate": found.steady,
        "cpu_user_s_per_million": cost.user_s / millions,
        "cpu_system_s_per_million": cost.system_s / millions,
        "cpu_s_per_million": (cost.user_s + cost.system_s) / millions,
        "steady_cpu_s_per_million": found.steady_cpu,
        "peak_bytes": cost.peak_bytes,
        "commits": len(samples),
    }


def run_limit(bench: Bench, case: Case, contender: Contender) -> dict[str, Any]:
    """What a part alone can do."""
    workload = case.workload
    topics = bench.inputs.topics(workload.inputs, bench.records)
    with place(bench, case, contender) as at, Team() as team:
        start(team, bench, case, contender, at, inputs=topics, records=bench.records)
        limit_s = bench.limit_s(bench.records)
        team.wait(lambda: bool(team.said("rate")) or not team.members[0].is_alive(), limit_s, workload.title)
        found = team.said("rate")
        cost = team.stop()
        if not found:
            team.check()
        count, seconds = found[0][1].split()
    millions = int(count) / 1_000_000
    return {
        "records": int(count),
        "rate": int(count) / float(seconds),
        "cpu_user_s_per_million": cost.user_s / millions,
        "cpu_system_s_per_million": cost.system_s / millions,
        "cpu_s_per_million": (cost.user_s + cost.system_s) / millions,
        "peak_bytes": cost.peak_bytes,
    }
