"""Faults at port calls: when each of them falls, and what it does.

Rule of this module: what a fault does to the broker, to the clock or to a worker happens within the hook of a port
call, at one moment between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    PortError,
    Position,
    ProducerFatal,
    Retriable,
    TopicPartition,
    Unavailable,
)
from streamstate.testing.simulation.disk import DiskFailure
from streamstate.testing.simulation.faults import ANY, Fault

if TYPE_CHECKING:
    from streamstate.testing.simulation.run import Member, Simulation

__all__ = ["Crash", "Injector"]

GROUP_CALLS: Final = frozenset({"consumer.poll", "consumer.committed", "producer.send_offsets"})
TRANSACTION_CALLS: Final = frozenset({"producer.init", "producer.send_offsets", "producer.commit", "producer.abort"})
METADATA_CALLS: Final = frozenset(
    {"admin.topics", "admin.config", "admin.log_ends", "admin.log_starts", "admin.delete_records", "restore.poll"}
)
DISK_WRITES: Final = frozenset({"disk.apply", "disk.restore"})
# What one call costs while an error repeats; a caller that repeats until its deadline gets there.
REPEAT_MS: Final = 100


class Crash(BaseException):
    """The process is gone. Nothing in it may handle this."""


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int


@dataclass(slots=True)
class _RepeatedError:
    """Calls that fail for some time, or so many times."""

    fault: Fault
    calls: frozenset[str]
    phase: str
    error: Callable[[str], Exception]
    actor: str
    until_ms: int
    times: int
    cost_ms: int


class Injector:
    """Lets the faults of one run happen.

    Args:
        simulation: the run.
        faults: to let happen.

    Attributes:
        fired: those that happened, with what they met, in order.
    """

    def __init__(self, simulation: Simulation, faults: Sequence[Fault]) -> None:
        self._sim = simulation
        self._waiting = sorted(faults, key=lambda fault: -fault.at_ms)
        self._armed: dict[tuple[str, str], list[_Armed]] = {}
        self._repeated: list[_RepeatedError] = []
        self._timers: list[tuple[int, Callable[[], None]]] = []
        self._offsets_first = False
        self.fired: list[tuple[Fault, str]] = []

    # -- when ----------------------------------------------------------------------------------------------

    def on_call(self, actor: str, call: str, phase: str) -> None:
        """The hook around every port call and every write to a disk.

        Raises:
            Crash: the worker is dead, or dies here.
            PortError: an injected one.
            DiskFailure: the disk does not take this.
        """
        sim = self._sim
        sim.calls += 1
        member = sim.members[actor]
        if member.dead:
            raise Crash(actor)
        if sim.trace is not None and phase == "before":
            sim.say(f"{actor}  {call}")
        now = sim.clock.monotonic_ms()
        self.advance(now)
        if self._offsets_first:
            self._settle_offsets()
        if self._repeated:
            self._suffer(actor, call, phase, now)
        armed = self._armed.get((call, phase))
        if armed is not None:
            for item in list(armed):
                item.left -= 1
                if item.left == 0:
                    armed.remove(item)
                    self._fire(item.fault, member, call)

    def advance(self, now: int) -> None:
        """Do what is due."""
        while self._waiting and self._waiting[-1].at_ms <= now:
            fault = self._waiting.pop()
            self._armed.setdefault((fault.call, fault.phase), []).append(_Armed(fault, fault.nth))
        if self._timers:
            due = [timer for timer in self._timers if timer[0] <= now]
            if due:
                self._timers = [timer for timer in self._timers if timer[0] > now]
                for _, action in sorted(due, key=lambda timer: timer[0]):
                    action()

    def end(self) -> None:
        """No more faults, and those that last are over."""
        self._waiting.clear()
        self._armed.clear()
        self._repeated.clear()
        timers, self._timers = self._timers, []
        for _, action in sorted(timers, key=lambda timer: timer[0]):
            action()

    def _later(self, ms: int, action: Callable[[], None]) -> None:
        self._timers.append((self._sim.clock.monotonic_ms() + ms, action))

    def _suffer(self, actor: str, call: str, phase: str, now: int) -> None:
        for repeated in list(self._repeated):
            if now >= repeated.until_ms or repeated.times == 0:
                self._repeated.remove(repeated)
            elif call in repeated.calls and phase == repeated.phase and repeated.actor in (ANY, actor):
                repeated.times -= 1
                self._sim.clock.advance(repeated.cost_ms)
                if self._sim.trace is not None:
                    self._sim.say(f"  !! {repeated.fault.kind} #{repeated.fault.number} goes on")
                raise repeated.error(f"injected: {repeated.fault.kind}")

    def _settle_offsets(self) -> None:
        """The group's markers at once, those of the logs later: offsets are then ahead of a changelog's readers."""
        self._sim.broker.transactions.write_markers(groups_only=True)

    # -- what ----------------------------------------------------------------------------------------------

    def _fire(self, fault: Fault, member: Member, call: str) -> None:
        self.fired.append((fault, f"{member.name} {call} at {self._sim.clock.monotonic_ms()} ms"))
        if self._sim.trace is not None:
            self._sim.say(f"  !! {fault}, of {member.name}")
        self._ACTIONS[fault.kind](self, fault, member, call)

    def _crash(self, fault: Fault, member: Member, call: str) -> None:
        member.dies(fault.detail, fault.duration_ms)
        raise Crash(member.name)

    def _stand_still(self, fault: Fault, member: Member, call: str) -> None:
        self._sim.pass_time(fault.duration_ms)

    def _empty(self, fault: Fault, member: Member, call: str) -> None:
        self._sim.broker.empty_fetches = int(fault.detail.split()[0])

    def _timeout(self, fault: Fault, member: Member, call: str) -> None:
        times = int(fault.detail.split()[0])
        self._sim.clock.advance(fault.duration_ms)
        if times > 1:
            until = self._sim.clock.monotonic_ms() + 60_000
            repeated = _RepeatedError(
                fault, frozenset({call}), fault.phase, Retriable, member.name, until, times - 1, fault.duration_ms
            )
            self._repeated.append(repeated)
        raise Retriable("injected: the answer is lost")

    def _error(self, fault: Fault, member: Member, call: str) -> None:
        errors: dict[str, type[PortError]] = {"abortable": AbortRequired, "fenced": Fenced, "fatal": ProducerFatal}
        if fault.kind in errors:
            raise errors[fault.kind]("injected")
        raise (Unavailable if call.endswith(".poll") or call.startswith("admin.") else Retriable)("injected")

    def _callback(self, fault: Fault, member: Member, call: str) -> None:
        """The client repeats itself: what is held is assigned once more, or what is not held is taken away."""
        worker, held = member.worker, member.held
        if worker is None:
            return
        others = [
            TopicPartition(topic, number)
            for topic in worker.assignment.topics
            for number in range(self._sim.plan.inputs.partitions)
            if (topic, number) not in held
        ]
        if fault.detail == "assigned":
            worker.rebalances.on_assigned(sorted(held))
        elif others and fault.detail == "revoked":
            worker.rebalances.on_revoked(others)
        elif others:
            worker.rebalances.on_lost(others)

    def _expel(self, fault: Fault, member: Member, call: str) -> None:
        if fault.kind == "lost-as-revoked":
            self._sim.broker.lost_as_revoked = True
            self._later(10_000, self._tell_lost)
        self._sim.broker.expel(member.name)

    def _tell_lost(self) -> None:
        self._sim.broker.lost_as_revoked = False

    def _rebalance(self, fault: Fault, member: Member, call: str) -> None:
        group = self._sim.group
        if group is not None:
            group.rebalance()

    def _join(self, fault: Fault, member: Member, call: str) -> None:
        name = f"x{fault.number}"
        self._sim.start(name)
        self._later(fault.duration_ms + 500, lambda: self._sim.leave(name))

    def _broker(self, fault: Fault, member: Member, call: str) -> None:
        self._sim.broker.stop()
        self._later(fault.duration_ms, self._sim.broker.restart)

    def _coordinator(self, fault: Fault, member: Member, call: str) -> None:
        calls = GROUP_CALLS if fault.detail == "group" else TRANSACTION_CALLS
        self._spell(fault, calls, Unavailable if fault.detail == "group" else Retriable)

    def _metadata(self, fault: Fault, member: Member, call: str) -> None:
        self._spell(fault, METADATA_CALLS, Unavailable)

    def _spell(
        self, fault: Fault, calls: Iterable[str], error: Callable[[str], Exception], actor: str = ANY, cost: int = 100
    ) -> None:
        until = self._sim.clock.monotonic_ms() + fault.duration_ms
        self._repeated.append(_RepeatedError(fault, frozenset(calls), "before", error, actor, until, -1, cost))

    def _clock(self, fault: Fault, member: Member, call: str) -> None:
        hours = int(fault.detail.split()[0])
        self._sim.clock.set_wall(self._sim.clock.now_ms() + hours * 3_600_000)

    def _disk_error(self, fault: Fault, member: Member, call: str) -> None:
        raise DiskFailure(5, "injected: input/output error")

    def _disk_full(self, fault: Fault, member: Member, call: str) -> None:
        self._spell(fault, DISK_WRITES, lambda text: DiskFailure(28, text), member.name, 0)

    def _late_markers(self, fault: Fault, member: Member, call: str) -> None:
        which, delay = fault.detail.split(", ")
        self._sim.broker.transactions.marker_delay_ms = int(delay.split()[0])
        self._offsets_first = which != "all"
        self._later(fault.duration_ms, self._prompt_markers)

    def _prompt_markers(self) -> None:
        self._sim.broker.transactions.marker_delay_ms = 0
        self._sim.broker.transactions.write_markers()
        self._offsets_first = False

    def _compaction(self, fault: Fault, member: Member, call: str) -> None:
        markers = not fault.detail.startswith("markers")
        trailing = not fault.detail.endswith("included")
        committed = self._sim.broker.committed(self._sim.application_id)
        for topic in self._sim.changelogs:
            if "compact" not in self._sim.broker.topic(topic).config["cleanup.policy"]:
                continue
            self._sim.broker.compact(topic, markers=markers, trailing_marker=trailing)
            if fault.detail != "then cut off":
                continue
            for log in self._sim.broker.topic(topic).logs:
                first = next((entry.offset() for entry in log.entries()), log.last_stable)
                # A topic that is read as an input too may lose nothing that is not processed yet.
                position = committed.get(TopicPartition(topic, log.partition), Position(0))
                most = position.offset if topic in self._sim.external_topics else log.last_stable
                log.delete_before(min(first, most, log.last_stable))

    def _purge(self, fault: Fault, member: Member, call: str) -> None:
        committed = self._sim.broker.committed(self._sim.application_id)
        # A table's topic that is its changelog is never done with.
        before = {at: position.offset for at, position in committed.items() if at.topic not in self._sim.changelogs}
        self._sim.broker.delete_records(before)

    _ACTIONS: Final[dict[str, Callable[[Injector, Fault, Member, str], None]]] = {
        "crash": _crash,
        "pause": _stand_still,
        "slow": _stand_still,
        "timeout": _timeout,
        "empty": _empty,
        "retriable": _error,
        "abortable": _error,
        "fenced": _error,
        "fatal": _error,
        "callback": _callback,
        "expel": _expel,
        "lost-as-revoked": _expel,
        "rebalance": _rebalance,
        "join": _join,
        "broker": _broker,
        "coordinator": _coordinator,
        "metadata": _metadata,
        "clock": _clock,
        "disk-error": _disk_error,
        "disk-full": _disk_full,
        "late-markers": _late_markers,
        "compaction": _compaction,
        "purge": _purge,
    }
