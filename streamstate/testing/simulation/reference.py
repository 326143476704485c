"""What a topology makes of the same input when nothing goes wrong.

Rule of this module: each sub-topology is held to what one worker without faults makes of the very records that were
in its input topics. So it does not matter how records of different tasks meshed in a repartition topic, and
nothing else is left free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from streamstate.engine.worker import Worker
from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.process.spec import Process
from streamstate.operators.table.spec import ToStream
from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.simulation.expectations import Interleaved, NewestOf, Output, by_key
from streamstate.testing.simulation.history_broker import HistoryBroker

if TYPE_CHECKING:
    from streamstate.testing.simulation.run import Simulation

__all__ = ["differences"]

MOST_TURNS = 2_000
STEP_MS = 20


class _Reference:
    """One sub-topology, one worker, no faults."""

    def __init__(self, sim: Simulation, part: SubTopology) -> None:
        self._sim = sim
        self._part = part
        self.clock = ManualClock()
        self.broker = HistoryBroker(self.clock)
        for topic in sim.external_topics:
            self.broker.create_topic(topic, sim.plan.inputs.partitions, sim.plan.workload.topic_configs.get(topic))
        settings = replace(
            sim.plan.settings, purge_interval_ms=1 << 40, commit_interval_ms=STEP_MS, restore_batch=1_000
        )
        app = MemoryApplication(sim.plan.workload.graph, self.broker, self.clock, settings)
        app.topics = replace(app.topics, graph=replace(app.topics.graph, subtopologies=(part,)))
        prefix = sim.application_id
        self.topics = [*part.source_topics, *(f"{prefix}-{name}" for name in part.repartition_sources)]
        self.counts = app.topics.partition_counts
        self.worker: Worker = app.worker("reference")

    def run(self, partition: int) -> None:
        """Let the task of this partition process what the task of the run was given."""
        records = [
            record
            for topic in self.topics
            if partition < self.counts[topic]
            for record in self._sim.broker.history(topic, partition)
        ]
        for record in records:
            self.broker.append(
                record.topic(),
                key=record.key(),
                value=record.value(),
                partition=partition,
                timestamp=record.timestamp()[1],
                headers=record.headers(),
            )
        for _ in range(MOST_TURNS):
            self.clock.advance(STEP_MS)
            self.worker.tick()
            if self._done(partition):
                break
        self.clock.advance(STEP_MS)
        self.worker.tick()

    def _done(self, partition: int) -> bool:
        for task in self.worker.assignment.tasks.values():
            for at, input_ in task.inputs.items():
                log = self.broker.log(at)
                if at.partition == partition and log is not None and (input_.committed or 0) < log.end:
                    return False
        return bool(self.worker.assignment.running())


def differences(sim: Simulation) -> Iterator[str]:
    """Where the run differs from one without faults."""
    graph = sim.app.topics.graph
    written: dict[str, list[list[list[Output]]]] = {}
    free: set[str] = set()
    newest: set[str] = set()
    for part in graph.subtopologies:
        reference = _Reference(sim, part)
        outputs = [topic for topic in _written(sim) if topic not in reference.topics]
        for partition in range(sim.app.topics.plan.tasks[part.name]):
            before = {topic: [log.end for log in reference.broker.topic(topic).logs] for topic in outputs}
            reference.run(partition)
            for topic in outputs:
                logs = written.setdefault(topic, [[] for _ in before[topic]])
                for number, end in enumerate(before[topic]):
                    records = [r for r in reference.broker.read(topic, number) if r.offset() >= end]
                    if records:
                        logs[number].append([Output(r.key(), r.value(), r.timestamp()[1]) for r in records])
                        if _order_is_free(sim, part):
                            free.add(topic)
                        if _waits_for_commits(graph, part):
                            newest.add(topic)
            if not _order_is_free(sim, part):
                yield from _wrong_stores(sim, reference, part, partition)
    for topic, sequences in written.items():
        if topic in sim.plan.workload.sources:
            for number, meshed in enumerate(sequences):
                meshed.append([Output(*record[2:]) for record in sim.plan.inputs.of(topic, number)])
        found = [
            [Output(r.key(), r.value(), r.timestamp()[1]) for r in sim.broker.history(topic, number)]
            for number in range(len(sequences))
        ]
        if topic in free:
            continue
        if topic in newest:
            merged = by_key([[record for log in logs for record in log] for logs in sequences])
            lasts = NewestOf({key: records[-1:] for key, records in merged.items()})
            ends = [[records[-1] for records in by_key([log]).values()] for log in found]
            problems = lasts.problems(ends)
        else:
            problems = Interleaved(sequences).problems(found)
        for problem in problems:
            yield f"{topic}: {problem}"


def _written(sim: Simulation) -> list[str]:
    """Topics that tasks write, changelogs left out."""
    repartitions = [topic.name for topic in sim.app.topics.plan.repartitions.values()]
    return [*sim.plan.workload.sinks, *repartitions]


def _order_is_free(sim: Simulation, part: SubTopology) -> bool:
    """It reads several topics, and not all of their records were there from the start."""
    return part.needs_copartitioning and (bool(part.repartition_sources) or not sim.plan.workload.at_once)


def _waits_for_commits(graph: Graph, part: SubTopology) -> bool:
    specs = [graph.nodes[name].spec for name in part.nodes]
    return any(isinstance(spec, ToStream) and spec.emit == "commit" for spec in specs)


def _wrong_stores(sim: Simulation, reference: _Reference, part: SubTopology, partition: int) -> Iterator[str]:
    graph = sim.app.topics.graph
    if _waits_for_commits(graph, part) and any(isinstance(graph.nodes[name].spec, Process) for name in part.nodes):
        return  # A processor behind it may keep what it was sent.
    theirs = {task.id: task for task in reference.worker.assignment.tasks.values()}
    for member in sim.members.values():
        if member.worker is None:
            continue
        for task in member.worker.assignment.tasks.values():
            if task.id.subtopology != part.name or task.id.partition != partition:
                continue
            for store in part.stores:
                wanted, found = theirs[task.id].backend, task.backend
                assert wanted is not None, "the reference has no state"
                assert found is not None, "a running task without state"
                held, right = (dict(backend.scan(store, None, None, False)) for backend in (found, wanted))
                if held != right:
                    yield f"store {store!r} of task {task.id} holds {held}, without faults it holds {right}"
