"""What must be so when a run has come to rest, and at every moment before.

Rule of this module: it asks the broker and the disks, not the workers, for what is true; of a worker it asks only
which tasks it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from streamstate.engine.ports import TopicPartition
from streamstate.engine.task.store_marks import MARK_KEY, mark_fact
from streamstate.engine.task.task import Task
from streamstate.testing.simulation import reference
from streamstate.testing.simulation.expectations import Output, misplaced

if TYPE_CHECKING:
    from streamstate.testing.simulation.run import Simulation

__all__ = ["check", "check_open_transactions", "found_outputs", "unsettled"]

# The producers' transaction.timeout.ms in the run.
TRANSACTION_TIMEOUT_MS: Final = 10_000
MOST_SHOWN: Final = 5


def unsettled(sim: Simulation) -> str | None:
    """What still has to happen before the run is at rest; None when nothing has to."""
    if not sim.broker.available:
        return "the broker is down"
    for name, age_ms in sim.broker.transactions.open_transactions().items():
        return f"transaction {name} has been open for {age_ms} ms"
    wrong = next(_wrong_tasks(sim), None)
    if wrong is not None:
        return wrong
    for at, left in _unread(sim):
        return f"{at.topic}[{at.partition}] has {left} records that are not committed as processed"
    return next(_wrong_global_rows(sim), None)


def check(sim: Simulation) -> Iterator[str]:
    """Everything that is wrong with a run that is at rest."""
    yield from _wrong_transactions(sim)
    yield from _wrong_tasks(sim)
    yield from _wrong_offsets(sim)
    yield from _wrong_outputs(sim)
    yield from _wrong_homes(sim)
    yield from _wrong_state(sim)


def check_open_transactions(sim: Simulation, step_ms: int) -> None:
    """No transaction stays open beyond its time-out.

    Raises:
        Violation: one does.
    """
    if not sim.broker.available:
        return
    sim.broker.expire()
    for name, age_ms in sim.broker.transactions.open_transactions().items():
        assert age_ms < TRANSACTION_TIMEOUT_MS + step_ms, f"transaction {name} has been open for {age_ms} ms"


def found_outputs(sim: Simulation, topic: str) -> list[list[Output]]:
    """Committed records of an output topic, by partition."""
    partitions = len(sim.broker.topic(topic).logs)
    return [
        [Output(record.key(), record.value(), record.timestamp()[1]) for record in sim.broker.read(topic, number)]
        for number in range(partitions)
    ]


def _tasks(sim: Simulation) -> list[Task]:
    return [task for m in sim.members.values() if m.worker is not None for task in m.worker.assignment.tasks.values()]


def _expected_tasks(sim: Simulation) -> list[str]:
    return [f"{part}_{number}" for part, count in sim.app.topics.plan.tasks.items() for number in range(count)]


def _input_partitions(sim: Simulation) -> list[TopicPartition]:
    counts = sim.app.topics.partition_counts
    return [TopicPartition(topic, number) for topic in sorted(counts) for number in range(counts[topic])]


def _unread(sim: Simulation) -> Iterator[tuple[TopicPartition, int]]:
    committed = sim.broker.committed(sim.application_id)
    for at in _input_partitions(sim):
        log = sim.broker.log(at)
        assert log is not None, "an input without a log"
        position = committed.get(at)
        left = len(log.read(log.start if position is None else position.offset, log.end)[0])
        if left or log.last_stable < log.end:
            yield at, left


def _wrong_transactions(sim: Simulation) -> Iterator[str]:
    for name, age_ms in sim.broker.transactions.open_transactions().items():
        yield f"transaction {name} is still open after {age_ms} ms"
    for topic in sim.broker.topics().values():
        for log in topic.logs:
            if log.last_stable < log.end:
                yield f"readers of {topic.name}[{log.partition}] are held up at {log.last_stable}, it ends at {log.end}"


def _wrong_tasks(sim: Simulation) -> Iterator[str]:
    found = sorted((str(task.id), task.phase.value) for task in _tasks(sim))
    wanted = sorted((task, "running") for task in _expected_tasks(sim))
    if found != wanted:
        yield f"the tasks are {found}, expected {wanted}"


def _wrong_offsets(sim: Simulation) -> Iterator[str]:
    for at, left in _unread(sim):
        yield f"{at.topic}[{at.partition}]: {left} records are not committed as processed"
    for at, position in sim.broker.committed(sim.application_id).items():
        log = sim.broker.log(at)
        if log is None or position.offset > log.end:
            yield f"{at.topic}[{at.partition}] is committed up to {position.offset}, which is behind its end"


def _wrong_outputs(sim: Simulation) -> Iterator[str]:
    if sim.plan.workload.expected is None:
        yield from reference.differences(sim)
        return
    for topic, expectation in sim.plan.workload.expected(sim.plan.inputs).items():
        found = found_outputs(sim, topic)
        for number, problem in enumerate(expectation.problems(found)):
            if number == MOST_SHOWN:
                yield f"{topic}: and more"
                break
            yield f"{topic}: {problem}"


def _wrong_homes(sim: Simulation) -> Iterator[str]:
    """What was sent through repartition topics is where a look-up of the key's owner expects it."""
    for topic in sim.app.topics.plan.repartitions.values():
        found = [
            [Output(record.key(), record.value()) for record in sim.broker.history(topic.name, number)]
            for number in range(topic.partitions)
        ]
        for problem in misplaced(found):
            yield f"{topic.name}: {problem}"


def _wrong_state(sim: Simulation) -> Iterator[str]:
    yield from _wrong_rows(sim)
    for task in _tasks(sim):
        for store, (topic, partition) in task.changelogs().items():
            replay: dict[bytes | None, bytes] = {}
            for record in sim.broker.read(topic, partition, marks=True):
                value = record.value()
                if value is None:
                    replay.pop(record.key(), None)
                else:
                    replay[record.key()] = value
            mark = replay.pop(MARK_KEY, b"").decode()
            assert task.backend is not None, "a running task without state"
            found = dict(task.backend.scan(store, None, None, False))
            if found != replay:
                yield f"store {store!r} of task {task.id} holds {found}, its changelog says {replay}"
            if not mark and replay:
                yield f"store {store!r} of task {task.id} has entries in its changelog and no mark"
            known = task.backend.facts().get(mark_fact(store), "")
            if known != mark:
                yield f"store {store!r} of task {task.id} has the mark {known!r}, its changelog has {mark!r}"


def _wrong_rows(sim: Simulation) -> Iterator[str]:
    """Tables whose topic is their changelog, and global tables, against all that is in their topics."""
    for task in _tasks(sim):
        for name, log in task.source_logs().items():
            rows: dict[bytes, bytes | None] = {}
            for record in sim.broker.read(log.topic, task.id.partition):
                made = log.rebuild(record.key() or b"", record.value(), record.timestamp()[1])
                if made is not None:
                    rows[made[0]] = made[1]
            assert task.backend is not None, "a running task without state"
            found = dict(task.backend.scan(name, None, None, False))
            if found != {key: stored for key, stored in rows.items() if stored is not None}:
                yield f"store {name!r} of task {task.id} holds {found}, its topic says {rows}"
    yield from _wrong_global_rows(sim)


def _wrong_global_rows(sim: Simulation) -> Iterator[str]:
    for member in sim.members.values():
        state = None if member.worker is None else member.worker.global_state
        for name, store in ({} if state is None else state.stores).items():
            newest = {record.key(): record.value() for record in sim.broker.read(str(store.spec.source))}
            held = {key: store.spec.value.serialize(entry[0]) for key, entry in store.scan(None, None)}
            if held != {key: value for key, value in newest.items() if value is not None}:
                yield f"global table {name!r} of {member.name} holds {held}, its topic says {newest}"
