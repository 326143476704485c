"""A word count by two workers with rebalances in the middle, one fault at one port call, and a checker.

Rule of this module: everything is decided by the ``Fault``; the same fault gives the same run. To see one again::

    python -m tests.simulation.scenario KIND PROTOCOL CALL PHASE [DISK [MARKERS [GUARANTEE [COMMITS [STORE]]]]]
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Literal, cast

from streamstate import Topology, serde, windows
from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    PortError,
    ProducerFatal,
    Retriable,
    TopicPartition,
    Unavailable,
)
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.worker import Worker
from streamstate.errors import StreamStateError
from streamstate.partitioning import partition_for
from streamstate.testing.memory_broker.application import Disk, MemoryApplication
from streamstate.testing.memory_broker.background import MemoryBackground
from streamstate.testing.memory_broker.broker import MemoryBroker
from streamstate.testing.memory_broker.clock import ManualClock

Protocol = Literal["eager", "cooperative", "broker"]
PROTOCOLS: tuple[Protocol, ...] = ("eager", "cooperative", "broker")

APPLICATION = "word-count"
PARTITIONS = 2
STEP_MS = 50
COMMIT_TIMEOUT_MS = 1_000
LATE_MARKER_MS = 400
PAUSE_MS = 60_000
# Enough for a transaction (10 s) to end after the script did, and behind a crash for a session (45 s).
SETTLE_STEPS = [STEP_MS] * 4
QUIET_STEPS = [STEP_MS] * 2 + [5_000] * 3 + [LATE_MARKER_MS] * 6
DEAD_STEPS = [5_000] * 7

# What the script does, one letter a step: A, B start a worker; a closes worker A; l adds lines; t is a step in which
# every worker has one turn.
SCRIPT = "Al" + "ttt" + "Bl" + "tttt" + "l" + "ttt" + "a" + "l" + "tt"
LINES = [["to be or", "not to be"], ["be quick", "or be dead"], ["to or", "not"], ["be", "dead quick or not"]]

# Calls that change something at the broker: failing behind them differs from failing before the next one.
CHANGING = {"producer.init", "producer.begin", "producer.send", "producer.flush", "producer.send_offsets",
            "producer.commit", "producer.abort", "consumer.poll", "consumer.close", "consumer.committed",
            "restore.poll", "admin.delete_records"}  # fmt: skip

# What the ports say a call may raise, before it took effect and behind it.
ERRORS: dict[str, dict[str, tuple[type[PortError], ...]]] = {
    "consumer.poll": {"before": (Unavailable,), "after": (Unavailable,)},
    "consumer.commit": {"before": (Retriable, Fenced), "after": (Retriable,)},
    "consumer.start": {"before": (Retriable,), "after": (Retriable,)},
    "consumer.committed": {"before": (Retriable,), "after": (Retriable,)},
    "consumer.group_metadata": {"before": (Retriable,), "after": ()},
    "producer.init": {"before": (Retriable, Fenced, ProducerFatal), "after": (Retriable, ProducerFatal)},
    "producer.begin": {"before": (Fenced, ProducerFatal), "after": ()},
    "producer.send": {
        "before": (AbortRequired, Fenced, ProducerFatal),
        "after": (AbortRequired, Fenced, ProducerFatal),
    },
    "producer.flush": {"before": (Retriable, AbortRequired), "after": (Retriable, AbortRequired)},
    "producer.send_offsets": {
        "before": (Retriable, AbortRequired, Fenced, ProducerFatal),
        "after": (Retriable, AbortRequired, Fenced, ProducerFatal),
    },
    # AbortRequired and Fenced say that it did not take place.
    "producer.commit": {
        "before": (Retriable, AbortRequired, Fenced, ProducerFatal),
        "after": (Retriable, ProducerFatal),
    },
    "producer.abort": {"before": (Retriable, Fenced, ProducerFatal), "after": (Retriable, Fenced, ProducerFatal)},
    "admin.config": {"before": (Unavailable,), "after": (Unavailable,)},
    "admin.topics": {"before": (Unavailable,), "after": (Unavailable,)},
    "admin.log_ends": {"before": (Unavailable,), "after": (Unavailable,)},
    "admin.log_starts": {"before": (Unavailable,), "after": (Unavailable,)},
    "admin.delete_records": {"before": (Unavailable,), "after": (Unavailable,)},
    "restore.poll": {"before": (Unavailable,), "after": (Unavailable,)},
}
TIMED = ("producer.flush", "producer.send_offsets", "producer.commit")
KINDS = {error.__name__: error for error in (AbortRequired, Fenced, ProducerFatal, Retriable, Unavailable)}


class Crash(BaseException):
    """The process is gone. Nothing in it may handle this."""


class Violation(AssertionError):
    """The checker found something."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: ``crash``; ``expel``: the group drops the worker, which will hear of it; ``pause``: everything
            stands still for a minute; ``timeout``: the call raises Retriable as its time runs out; the name of a
            port's exception; or ``none``.
        protocol: of the group.
        call: number of the port call, from 1, over all workers.
        phase: ``before`` or ``after`` the call took effect.
        disk: what a crash leaves of the state directory: ``kept``, ``lost``, or ``older``, a copy of some time ago.
        markers: when transaction markers are written: ``prompt``, or ``late``: those of partitions some steps after
            the decision, while the group's offsets are settled at once.
        guarantee: ``exactly_once`` or ``at_least_once``.
        commits: ``prompt``: they end where they begin; ``late``: some turns later, while the worker goes on.
        store: what counts are kept in: ``plain``, or ``sessions`` that never end, of which each word has one, moved
            with every record.
    """

    kind: str
    protocol: Protocol
    call: int = 0
    phase: str = "before"
    disk: str = "kept"
    markers: str = "prompt"
    guarantee: str = "exactly_once"
    commits: str = "prompt"
    store: str = "plain"

    def __str__(self) -> str:
        where = f"{self.kind} {self.protocol} {self.call} {self.phase}"
        return f"{where} {self.disk} {self.markers} {self.guarantee} {self.commits} {self.store}"


def topology(store: str) -> Topology:
    """The word count of ``topologies/word_count.py``, with text for values."""
    made = Topology(APPLICATION)
    words = made.stream("lines", value=serde.string()).flat_map_values(str.split)
    grouped = words.group_by(
        lambda key, word: word, key=serde.string(), value=serde.string(), name=f"{APPLICATION}-counts"
    )
    if store == "plain":
        counts = grouped.count(store="counts").to_stream().map_values(str)
    else:
        sessions = grouped.windowed_by(windows.session(timedelta(days=1_000))).count(store="counts").to_stream()
        grown = sessions.filter(lambda windowed, count: count is not None)
        counts = grown.map(lambda windowed, count: (windowed.key, str(count)))
    counts.to("word-counts", key=serde.string(), value=serde.string())
    return made


GRAPHS = {store: topology(store).build() for store in ("plain", "sessions")}
TRUTH = Counter(word for part in LINES for line in part for word in line.split())


class Scenario:
    """One run.

    Attributes:
        calls: every port call of a worker so far, as (actor, call).
        eventful: how many of them until there was nothing left to do.
        fired: what the fault met, or None.
    """

    def __init__(self, fault: Fault, trace: Callable[[str], None] | None = None) -> None:
        self.fault = fault
        self.calls: list[tuple[str, str]] = []
        self.eventful = 0
        self.fired: str | None = None
        self.clock = ManualClock()
        self.broker = MemoryBroker(self.clock)
        self.broker.create_topic("lines", PARTITIONS)
        self.broker.create_topic("word-counts", PARTITIONS)
        self.exactly_once = fault.guarantee == "exactly_once"
        settings = WorkerSettings(
            APPLICATION, self.exactly_once, commit_timeout_ms=COMMIT_TIMEOUT_MS, purge_interval_ms=300
        )
        self.graph = GRAPHS[fault.store]
        self.app = MemoryApplication(self.graph, self.broker, self.clock, settings, fault.protocol)
        if fault.commits == "late":
            self.app.background = MemoryBackground(lambda: 2)
        self.workers: dict[str, Worker] = {}
        self.dead: set[str] = set()
        self._closed: set[str] = set()
        self._copies: dict[str, list[Disk]] = {}
        self._lines = iter(LINES)
        self._trace = trace
        self._armed = True
        self._under_way: list[int] = []
        self.broker.on_call = self._on_call
        if fault.markers == "late":
            self.broker.transactions.marker_delay_ms = LATE_MARKER_MS

    # -- the fault -----------------------------------------------------------------------------------------

    def _on_call(self, actor: str, call: str, phase: str) -> None:
        if actor in self.dead:
            raise Crash(actor)
        if self.fault.markers == "late":
            self._settle_offsets()
        if phase == "before":
            self.calls.append((actor, call))
            self._under_way.append(len(self.calls))
            number = len(self.calls)
            if self._trace is not None:
                self._trace(f"{number:4} {actor} {call}")
        else:
            # Calls nest (a poll contains the commit of a revocation), and one that raised has no second phase.
            number = self._under_way.pop()
            while self.calls[number - 1] != (actor, call):
                number = self._under_way.pop()
        if self._armed and number == self.fault.call and phase == self.fault.phase:
            self._armed = False
            self._fire(actor, call, phase)

    def _settle_offsets(self) -> None:
        coordinator = self.broker.transactions
        for marker in coordinator.waiting_markers():
            if isinstance(marker.target, str):
                coordinator._markers.remove(marker)
                coordinator._write(marker)

    def _fire(self, actor: str, call: str, phase: str) -> None:
        kind = self.fault.kind
        if kind == "none":
            return
        self.fired = f"{actor} {call} ({phase})"
        if self._trace is not None:
            self._trace(f"     {kind} here, {phase} the call")
        if kind == "crash":
            self.dead.add(actor)
            raise Crash(actor)
        if kind == "expel":
            self.broker.expel(actor)
            return
        if kind == "pause":
            self.clock.advance(PAUSE_MS)
            return
        if kind == "timeout":
            self.clock.advance(COMMIT_TIMEOUT_MS)
            raise Retriable("injected: the time ran out")
        raise KINDS[kind]("injected")

    # -- the script ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it.

        Raises:
            Violation: what was found.
        """
        for step in SCRIPT:
            if self.fault.disk == "older":
                for name, disk in self.app.disks.items():
                    self._copies.setdefault(name, []).append(copy.deepcopy(disk))
            if step == "l":
                self._add_lines()
            elif step == "t":
                self._turn(STEP_MS)
            elif step.isupper():
                self._start(step)
            else:
                self._end(step.upper())
        for step_ms in SETTLE_STEPS:
            self._turn(step_ms)
        # Faults fall on these calls; behind them there is time for every session and transaction to end.
        self.eventful = len(self.calls)
        if self.fault.kind == "crash":
            for step_ms in DEAD_STEPS:
                self._turn(step_ms)
        for step_ms in QUIET_STEPS:
            self._turn(step_ms)
        self.check()

    def _add_lines(self) -> None:
        for number, line in enumerate(next(self._lines)):
            self.broker.append("lines", value=line.encode(), partition=number % PARTITIONS)

    def _start(self, name: str) -> None:
        try:
            self.workers[name] = self.app.worker(name)
        except Crash:
            self._bury(name)

    def _end(self, name: str) -> None:
        self._closed.add(name)
        worker = self.workers.pop(name, None)
        if worker is not None:
            try:
                worker.close()
            except Crash:
                self._bury(name)
            except StreamStateError as error:
                raise Violation(f"closing worker {name} failed: {error!r}") from error

    def _turn(self, step_ms: int) -> None:
        self.clock.advance(step_ms)
        for name in sorted(self.dead - self._closed):
            self.dead.discard(name)
            if self.fault.disk == "kept":
                # Otherwise the group waits for the dead member's session to end.
                self.broker.expel(name)
            self._start(name)
        for name, worker in sorted(self.workers.items()):
            try:
                worker.tick()
            except Crash:
                self._bury(name)
            except (StreamStateError, PortError) as error:
                raise Violation(f"worker {name} ended: {error!r}") from error

    def _bury(self, name: str) -> None:
        self.workers.pop(name, None)
        if self.fault.disk == "lost":
            self.app.disks[name] = Disk()
        elif self.fault.disk == "older":
            copies = self._copies.get(name, [])
            self.app.disks[name] = copies[max(0, len(copies) - 4)] if copies else Disk()
        self.app.disks[name].killed()

    # -- the checker ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Outputs, offsets, state and transactions.

        Raises:
            Violation: one of them is wrong.
        """
        problems = [*self._wrong_outputs(), *self._unread(), *self._wrong_state()]
        problems += [f"transaction {name} is still open" for name in self.broker.transactions.open_transactions()]
        if problems:
            raise Violation("\n".join(problems))

    def _wrong_outputs(self) -> Iterator[str]:
        for word, count in TRUTH.items():
            home = partition_for(word.encode(), PARTITIONS)
            for partition in range(PARTITIONS):
                found = [v for k, v in self.broker.pairs("word-counts", partition) if k == word.encode()]
                expected = [b"%d" % n for n in range(1, count + 1)] if partition == home else []
                missing = len(found) < len(expected) or (found and not expected)
                if missing or (self.exactly_once and found != expected):
                    yield f"word-counts[{partition}] has {word!r}: {found}, expected {expected}"

    def _unread(self) -> Iterator[str]:
        committed = self.broker.committed(APPLICATION)
        for topic in ("lines", f"{APPLICATION}-counts-repartition"):
            for partition in range(PARTITIONS):
                at = committed.get(TopicPartition(topic, partition))
                offset = 0 if at is None else at.offset
                left = [record for record in self.broker.read(topic, partition) if record.offset() >= offset]
                if left:
                    yield f"{topic}[{partition}] is committed up to {offset}, and has {left}"

    def _wrong_state(self) -> Iterator[str]:
        tasks = [task for worker in self.workers.values() for task in worker.assignment.tasks.values()]
        if sorted(str(task.id) for task in tasks) != sorted(
            f"{part.name}_{n}" for part in self.graph.subtopologies for n in range(PARTITIONS)
        ):
            yield f"tasks are {[(str(task.id), task.phase.value) for task in tasks]}"
        for task in tasks:
            if task.phase.value != "running":
                yield f"task {task.id} is {task.phase.value}"
            for store, (topic, partition) in task.changelogs().items():
                replay: dict[Any, Any] = {}
                for record in self.broker.read(topic, partition):
                    replay[record.key()] = record.value()
                replay = {key: value for key, value in replay.items() if value is not None}
                assert task.backend is not None, "a task without state"
                found = dict(task.backend.scan(store, None, None, False))
                if found != replay:
                    yield f"store {store} of task {task.id} holds {found}, its changelog says {replay}"


def simulate(fault: Fault, trace: Callable[[str], None] | None = None) -> Scenario:
    """Run with this fault.

    Raises:
        Violation: with the fault and how to see it again.
    """
    scenario = Scenario(fault, trace)
    try:
        scenario.run()
    except (AssertionError, RuntimeError, LookupError, TypeError, ValueError, PortError) as error:
        raise Violation(
            f"{fault.kind} at port call {fault.call}, {scenario.fired or 'not reached'}, protocol {fault.protocol}, "
            f"disk {fault.disk}, markers {fault.markers}, {fault.guarantee}, commits {fault.commits}, "
            f"store {fault.store}:\n"
            f"{type(error).__name__}: {error}\nsee it again: python -m tests.simulation.scenario {fault}"
        ) from error
    return scenario


@cache
def calls_of(
    protocol: Protocol,
    markers: str = "prompt",
    guarantee: str = "exactly_once",
    commits: str = "prompt",
    store: str = "plain",
) -> tuple[str, ...]:
    """The port calls of the run without a fault, in order, up to where nothing is left to do."""
    scenario = simulate(Fault("none", protocol, markers=markers, guarantee=guarantee, commits=commits, store=store))
    return tuple(call for _, call in scenario.calls[: scenario.eventful])


def main(arguments: list[str]) -> None:
    """Replay one fault and print every call."""
    kind, protocol, call, phase, *rest = arguments
    simulate(Fault(kind, cast(Protocol, protocol), int(call), phase, *rest), print)
    print("no violation")


if __name__ == "__main__":
    main(sys.argv[1:])
