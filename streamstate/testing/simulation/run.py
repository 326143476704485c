"""One simulated run: workers on one broker in memory, under one scheduler and one clock.

Rule of this module: everything follows from the plan and the list of faults. There is no thread, no real time and no
chance in here; the same plan and the same faults make the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from streamstate.engine.ports import TopicPartition
from streamstate.engine.task.store_layout import NEWER
from streamstate.engine.worker import Worker
from streamstate.errors import StreamStateError, TopologyError
from streamstate.testing.memory_broker.application import MemoryApplication
from streamstate.testing.memory_broker.background import MemoryBackground
from streamstate.testing.memory_broker.clock import ManualClock
from streamstate.testing.memory_broker.groups import Group
from streamstate.testing.simulation import checker
from streamstate.testing.simulation.disk import DiskFailure, SimulatedDisk
from streamstate.testing.simulation.fault_injector import Crash, Injector
from streamstate.testing.simulation.faults import Fault
from streamstate.testing.simulation.history_broker import HistoryBroker
from streamstate.testing.simulation.plan import SESSION_TIMEOUT_MS, Plan

__all__ = ["Member", "Result", "Simulation", "Violation", "simulate"]

# After a worker ended with an error.
RESTART_MS: Final = 500
# Between two workers that are replaced by a new version.
UPDATE_STEP_MS: Final = 400
# How old the copy is that a crash puts back.
COPY_AGE_MS: Final = 1_500
# Turns in which a run has to come to rest once nothing goes wrong any more, and the time each of them takes: enough
# for sessions and transactions of the dead to end, and for what is left to be processed one record a turn.
SETTLE_TURNS: Final = 1_000
SETTLE_STEP_MS: Final = 100
# How deep time may pass within a call that stands still within a turn that ran while another one stood still.
MOST_NESTED: Final = 3


class Violation(AssertionError):
    """The checker found something."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        problems: what the checker found; empty: nothing.
        fired: the faults that happened, with what they met.
        calls: port calls.
        turns: of the scheduler.
        virtual_ms: time that passed in the run.
        records: committed to output topics.
    """

    seed: int
    workload: str
    problems: tuple[str, ...]
    fired: tuple[tuple[Fault, str], ...]
    calls: int
    turns: int
    virtual_ms: int
    records: int

    @property
    def ok(self) -> bool:
        """True when nothing was found."""
        return not self.problems


class Member:
    """A worker's name, its disk, and the process that runs under it, if one does.

    Attributes:
        worker: the process; None while there is none.
        dead: it crashed, and its last calls are unwinding.
        busy: within one of its calls.
        wanted: it is to run; False once it left in order.
        restart_ms: when one that died is started again.
        outdated_ms: when it is replaced by one of the newest version; None while it is of that.
    """

    def __init__(self, name: str, disk: SimulatedDisk) -> None:
        self.name = name
        self.disk = disk
        self.worker: Worker | None = None
        self.dead = False
        self.busy = False
        self.wanted = True
        self.restart_ms = 0
        self.outdated_ms: int | None = None
        self._leaves = "kept"
        self._down_ms = 0

    @property
    def held(self) -> set[TopicPartition]:
        """Partitions its tasks hold."""
        return set(self.worker.assignment.of_partition) if self.worker is not None else set()

    def dies(self, leaves: str, down_ms: int) -> None:
        """The process ends here; see ``SimulatedDisk.crashed``."""
        self.dead = True
        self._leaves, self._down_ms = leaves, down_ms

    def bury(self, now_ms: int) -> None:
        """Nothing of the process is left but its disk."""
        self.worker = None
        self.dead = False
        self.disk.crashed(self._leaves, now_ms - COPY_AGE_MS)
        self.restart_ms = now_ms + self._down_ms


class Simulation:
    """A run. Made for one call of ``run``.

    Args:
        plan: what happens.
        faults: what goes wrong.
        trace: is told every port call and every fault; None: nobody.
    """

    def __init__(self, plan: Plan, faults: Sequence[Fault], trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.trace = trace
        self.clock = ManualClock()
        self.broker = HistoryBroker(self.clock)
        self.application_id = plan.settings.application_id
        self.external_topics = tuple(dict.fromkeys((*plan.workload.sources, *plan.workload.sinks)))
        for topic in self.external_topics:
            self.broker.create_topic(topic, plan.inputs.partitions, plan.workload.topic_configs.get(topic))
        self.app = MemoryApplication(
            plan.workload.graph,
            self.broker,
            self.clock,
            plan.settings,
            plan.protocol,
            session_timeout_ms=SESSION_TIMEOUT_MS,
        )
        # How long commits go on beside the loop; in half of the runs they end where they begin.
        commits = Random(f"commits of {plan.seed}")
        if commits.random() < 0.5:
            self.app.background = MemoryBackground(lambda: commits.choice((0, 1, 1, 2, 5)))
        internal = self.app.topics.plan.internal
        compacted = [name for name, config in plan.workload.topic_configs.items() if "cleanup.policy" in config]
        self.changelogs = [*(topic.name for topic in internal if topic.kind == "changelog"), *compacted]
        # Later versions of the topology, each with the moment from which workers are started with it.
        self._graph = plan.workload.graph
        moments = Random(f"versions of {plan.seed}")
        self._versions = sorted((moments.randrange(plan.horizon_ms), n) for n in range(len(plan.workload.versions)))
        self.members: dict[str, Member] = {}
        self.calls = 0
        self.turns = 0
        self._injector = Injector(self, faults)
        self.broker.on_call = self._injector.on_call
        self._random = Random(f"schedule of {plan.seed}")
        self._next_input = 0
        self._shifts = list(reversed(plan.shifts))
        self._nested = 0
        self._committed: dict[TopicPartition, int] = {}

    def say(self, text: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace(f"{self.clock.monotonic_ms():6} ms  {'  ' * self._nested}{text}")

    @property
    def group(self) -> Group | None:
        """The consumer group, once there is one."""
        try:
            return self.broker.group(self.application_id)
        except KeyError:
            return None

    # -- the run -------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """All of it."""
        problems: tuple[str, ...]
        try:
            while self.clock.monotonic_ms() < self.plan.horizon_ms:
                self._step(self.plan.step_ms)
            self._settle()
            problems = tuple(checker.check(self))
        except Violation as violation:
            problems = (str(violation),)
        except (AssertionError, RuntimeError, LookupError, TypeError, ValueError, StreamStateError) as error:
            problems = (f"{type(error).__name__}: {error}",)
        records = sum(len(self.broker.read(topic)) for topic in self.plan.workload.sinks)
        return Result(
            self.plan.seed,
            self.plan.workload.name,
            problems,
            tuple(self._injector.fired),
            self.calls,
            self.turns,
            self.clock.monotonic_ms(),
            records,
        )

    def _settle(self) -> None:
        self.say("-- nothing goes wrong from here on")
        self._injector.end()
        while self._shifts or self._next_input < len(self.plan.inputs.records):
            self._step(self.plan.step_ms)
        for name in [name for name, member in self.members.items() if name.startswith("x")]:
            self.leave(name)
        if not any(member.wanted for member in self.members.values()):
            self.start(min(self.members))
        rest = 0
        for _ in range(SETTLE_TURNS):
            self._step(SETTLE_STEP_MS)
            # Once more than a commit interval, for what punctuations and the like have left.
            rest = rest + 1 if checker.unsettled(self) is None else 0
            if rest * SETTLE_STEP_MS > 2 * self.plan.settings.commit_interval_ms:
                return
        raise Violation(f"not at rest after {SETTLE_TURNS} turns without a fault: {checker.unsettled(self)}")

    def _step(self, step_ms: int) -> None:
        """A turn for everyone, or nearly: no two workers are equally fast."""
        self.turns += 1
        self.clock.advance(step_ms)
        now = self.clock.monotonic_ms()
        self._injector.advance(now)
        self._feed(now)
        while self._versions and self._versions[0][0] <= now and self.broker.available:
            self._update()
        while self._shifts and self._shifts[-1].at_ms <= now:
            shift = self._shifts.pop()
            (self.start if shift.starts else self.leave)(shift.worker)
        draw = self._random.getrandbits(16)
        members = list(self.members.values())
        first = draw % len(members) if members else 0
        for number, member in enumerate(members[first:] + members[:first]):
            if not member.busy and draw >> (4 + number % 6 * 2) & 3:
                self._turn(member)
        self._watch_offsets()
        checker.check_open_transactions(self, step_ms)

    def _feed(self, now: int) -> None:
        records, due = self.plan.inputs.records, self.plan.due_ms
        while self._next_input < len(records) and due[self._next_input] <= now:
            topic, partition, key, value, timestamp = records[self._next_input]
            self.broker.append(topic, key=key, value=value, partition=partition, timestamp=timestamp)
            self._next_input += 1

    def pass_time(self, ms: int) -> None:
        """Let time pass within a call: the others go on meanwhile."""
        until = self.clock.monotonic_ms() + ms
        if self._nested < MOST_NESTED:
            self._nested += 1
            try:
                step_ms = max(self.plan.step_ms, ms // 40)
                while self.clock.monotonic_ms() < until:
                    self._step(step_ms)
            finally:
                self._nested -= 1
        elif self.clock.monotonic_ms() < until:
            self.clock.advance(until - self.clock.monotonic_ms())

    # -- workers -------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Let a worker run."""
        member = self.members.get(name)
        if member is None:
            disk = SimulatedDisk(self.clock.monotonic_ms, lambda call, phase: self._injector.on_call(name, call, phase))
            member = self.members[name] = Member(name, disk)
            self.app.disks[name] = disk
        member.wanted = True
        if member.worker is None and not member.busy:
            self._within(member, self._launch)

    def _update(self) -> None:
        """A new version is there: workers that start from now on run it, and those that run leave one by one."""
        self._graph = self.plan.workload.versions[self._versions.pop(0)[1]]
        self.say("-- a new version of the topology")
        self._renew()
        for number, member in enumerate(self.members.values()):
            member.outdated_ms = self.clock.monotonic_ms() + (number + 1) * UPDATE_STEP_MS

    def _renew(self) -> None:
        """What a process looks at before it joins the group: topics, and marks of stores."""
        before, background = self.app, self.app.background
        self.broker.on_call = None
        try:
            self.app = MemoryApplication(
                self._graph,
                self.broker,
                self.clock,
                self.plan.settings,
                self.plan.protocol,
                session_timeout_ms=SESSION_TIMEOUT_MS,
            )
        finally:
            self.broker.on_call = self._injector.on_call
        self.app.disks, self.app.background = before.disks, background

    def _launch(self, member: Member) -> None:
        member.outdated_ms = None
        if self.plan.workload.versions and self.broker.available:
            self._renew()
        self.say(f"-- {member.name} starts")
        member.worker = self.app.worker(member.name)

    def leave(self, name: str) -> None:
        """Let a worker leave in order, as soon as it can be told."""
        self.members[name].wanted = False

    def _turn(self, member: Member) -> None:
        if member.worker is None:
            if member.wanted and self.clock.monotonic_ms() >= member.restart_ms:
                self._within(member, self._launch)
        elif member.outdated_ms is not None and self.clock.monotonic_ms() >= member.outdated_ms:
            self.say(f"-- {member.name} is replaced")
            self._within(member, self._close)
        elif member.wanted:
            self._within(member, lambda member: member.worker.tick() if member.worker else None)
        else:
            self.say(f"-- {member.name} leaves")
            self._within(member, self._close)

    def _close(self, member: Member) -> None:
        worker, member.worker = member.worker, None
        assert worker is not None, "closed twice"
        worker.close()

    def _within(self, member: Member, action: Callable[[Member], None]) -> None:
        """Let a worker do something; it may die of it."""
        member.busy = True
        try:
            action(member)
            # A callback keeps an error back until the poll has returned.
            if member.dead:
                raise Crash(member.name)
        except Crash:
            self.say(f"-- {member.name} is gone")
            member.bury(self.clock.monotonic_ms())
        except Exception as error:  # noqa: BLE001 - judged below
            self._ended(member, error)
        finally:
            member.busy = False

    def _ended(self, member: Member, error: Exception) -> None:
        """As the app does it: everything uncommitted is dropped, and the supervisor starts the worker again."""
        self.say(f"-- {member.name} ends: {error!r}")
        if not _is_documented(error):
            raise Violation(f"worker {member.name} ended: {type(error).__name__}: {error}") from error
        worker, member.worker = member.worker, None
        member.restart_ms = self.clock.monotonic_ms() + RESTART_MS
        if worker is None:
            return
        try:
            worker.close(commit=False)
        except Crash:
            member.bury(self.clock.monotonic_ms())
        except Exception as closing:
            if not _is_documented(closing):
                raise Violation(f"worker {member.name} ended, and closing it failed: {closing!r}") from closing

    # -- what must hold all the time -----------------------------------------------------------------------

    def _watch_offsets(self) -> None:
        group = self.group
        if group is None:
            return
        for partition, position in group.offsets.items():
            before = self._committed.get(partition, 0)
            if position.offset < before:
                raise Violation(
                    f"the committed offset of {partition.topic}[{partition.partition}] went back from {before} to "
                    f"{position.offset}"
                )
            self._committed[partition] = position.offset


def _is_documented(error: BaseException | None) -> bool:
    """Only a disk that fails may end a worker here, and a store that a newer version has changed: brokers come back in
    time, and no record is refused."""
    while error is not None:
        if isinstance(error, DiskFailure) or (isinstance(error, TopologyError) and NEWER in str(error)):
            return True
        error = error.__cause__
    return False


def simulate(plan: Plan, faults: Sequence[Fault], trace: Callable[[str], None] | None = None) -> Result:
    """Run a plan with these faults."""
    return Simulation(plan, faults, trace).run()
