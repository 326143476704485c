"""One application under a schedule of faults, from the first record to the verdict.

Rule of this module: what comes next is decided by what the broker and the processes say; and each expectation that is
not met is a violation, written down and never waited away.

The kinds of faults:

- ``kill``: SIGKILL; a new process takes the place at once, on the same state directory.
- ``kill_late``: SIGKILL; the others take the tasks over before a new process comes.
- ``stop``: SIGSTOP until the others have taken the tasks over, then SIGCONT: a zombie.
- ``broker``: SIGKILL of the broker, then a restart on the same data and port.
- ``scale_out``, ``scale_in``: one process more; one process told to end, which must end in order.
- ``wipe``: SIGKILL, the process' state directory deleted with its process id, and a new process in the place.
- ``start_in_restore``: the same, and when its state is being restored, one process more. What restores is held with
  SIGSTOP until the newcomer has asked to join, so that the group changes in the middle of the restore.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from streamstate.broker import EmbeddedBroker
from tests.chaos.checker import Checked, Digest, Output, Truth, check
from tests.chaos.feeder import LEAST_RATE, Feeder
from tests.chaos.observer import Blocked, Watch, committed_between, read_all, transactions
from tests.chaos.outcome import Outcome, PhaseReport, Plan, Restore
from tests.chaos.processes import ChaosWorker, Fleet, copied, position
from tests.chaos.schedule import FIRST_PROCESSES, Episode, Fault, counted
from tests.chaos.topology import STORE, topics
from tests.integration.support import Cluster

__all__ = ["Phase"]

POLL_S = 0.02
RECOVERY_S = 90.0
DRAIN_S = 90.0
# Seen with Kafka 4.3.1: when leadership of the group's partition changes back and forth while it is being loaded, as at
# a restart on a busy machine, the completion of the first load activates the second one early, and members loaded
# after that have no session timer. The group then waits for them until its rebalance time-out, which is this one.
MAX_POLL_INTERVAL_S = 30.0
# Shorter than the session: what is held while it restores stays a member.
HOLD_S = 2.5


@dataclass(slots=True)
class _Scene:
    """What an episode has left to do and to look at."""

    outcome: Outcome
    began: float
    finish: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    blocked: list[tuple[str, Blocked]] = field(default_factory=list)
    positions: dict[tuple[Path, str], int] = field(default_factory=dict)
    restored_before: dict[int, int] = field(default_factory=dict)
    struck: list[ChaosWorker] = field(default_factory=list)


class Phase:
    """See the module.

    Args:
        plan: what is to be done.
        broker: started.
        directory: for state and logs.
        say: told what happens.
    """

    def __init__(self, plan: Plan, broker: EmbeddedBroker, directory: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._broker = broker
        self._directory = directory
        self._scratch = directory / "scratch"
        self._scratch.mkdir(parents=True)
        self._say = say
        self.cluster = Cluster(broker.bootstrap_servers)
        self.input, self.output = topics(plan.guarantee)
        for topic in (self.input, self.output):
            self.cluster.create(topic, plan.partitions)
        options = [
            "--set", f"consumer.session.timeout.ms={int(plan.session_s * 1000)}",
            "--set", f"consumer.max.poll.interval.ms={int(MAX_POLL_INTERVAL_S * 1000)}",
            "--transaction-timeout", f"{int(plan.transaction_s * 1000)}ms",
        ]  # fmt: skip
        self.fleet = Fleet(plan.guarantee, broker.bootstrap_servers, directory, options)
        self.feeder = Feeder(self.cluster, self.input, plan.seed, plan.users, plan.records)
        self.watch: Watch | None = None
        self.done: dict[str, int] = counted(())
        self.doing = "starting"
        self.violations: list[str] = []
        self._began = time.monotonic()
        self._kinds = {
            "kill": self._kill,
            "kill_late": self._kill_late,
            "stop": self._stop,
            "broker": self._kill_broker,
            "scale_out": self._scale_out,
            "scale_in": self._scale_in,
            "wipe": self._wipe,
            "start_in_restore": self._start_in_restore,
        }

    # -- from beginning to end -----------------------------------------------------------------------------

    def run(self) -> PhaseReport:
        """All of it; ``close`` must be called afterwards, whatever happened."""
        plan = self.plan
        for _ in range(FIRST_PROCESSES):
            self.fleet.start()
        self.watch = Watch(self.cluster, self.output)
        self.feeder.start(plan.records / plan.seconds)
        self._began = time.monotonic()
        if not self._await(lambda: self._settled(self._began), RECOVERY_S):
            raise TimeoutError(f"the first processes do not work: {self.fleet.problems}\n{self._logs()}")
        outcomes = []
        for number, episode in enumerate(plan.episodes):
            self._pace(len(plan.episodes) - number)
            outcomes.append(self._episode(episode))
            self._rest(number + 1)
        self.doing = "feeding the rest"
        self.feeder.finish()
        self._drain()
        seconds = time.monotonic() - self._began
        self.doing = "stopping the processes"
        self.fleet.stop()
        self.violations += self.fleet.problems
        self.violations += [w.problem for w in self.fleet.workers if w.problem is not None and not w.replaced]
        checked = self._verdict()
        committed, aborted = transactions(self.cluster, self.fleet.application_id)
        for kind, count in counted(plan.episodes).items():
            if self.done[kind] != count:
                self.violations.append(f"{count} faults of kind {kind} were planned, {self.done[kind]} were done")
        return PhaseReport(
            plan.guarantee, self.feeder.fed, plan.partitions, plan.seed, dict(self.done), outcomes, checked, committed,
            aborted, len(self.fleet.workers), self.fleet.gave_up, round(seconds, 1),
            list(dict.fromkeys(self.violations)),
        )  # fmt: skip

    def close(self) -> None:
        """End everything that was started here."""
        self.feeder.stop()
        self.fleet.stop()
        if self.watch is not None:
            self.watch.stop()

    def _pace(self, episodes_left: int) -> None:
        """Feed so that all is fed about when the last fault is over."""
        elapsed = time.monotonic() - self._began
        done = len(self.plan.episodes) - episodes_left
        measured = elapsed / done if done else 0.0
        left_s = max(self.plan.seconds - elapsed, episodes_left * measured, episodes_left * 2.0, 5.0)
        self.feeder.rate = max(LEAST_RATE, self.feeder.remaining / left_s)

    def _rest(self, done: int) -> None:
        """Spread the episodes over the time that there is."""
        until = self._began + self.plan.seconds * done / len(self.plan.episodes)
        self._await(lambda: time.monotonic() >= until, max(0.0, until - time.monotonic()))

    def _drain(self) -> None:
        self.doing = "processing the rest"
        assert self.watch is not None
        moved_at, seen = time.monotonic(), -1
        while not self._drained():
            self.watch.check()
            self.fleet.watch()
            if self.watch.seen != seen:
                moved_at, seen = time.monotonic(), self.watch.seen
            elif time.monotonic() - moved_at > DRAIN_S:
                self.violations.append(f"nothing moved for {DRAIN_S:.0f} s, with {seen} outputs\n{self._logs()}")
                return
            time.sleep(0.1)

    def _drained(self) -> bool:
        assert self.watch is not None
        if self.plan.guarantee == "exactly_once":
            return self.watch.seen >= self.feeder.fed
        group, repartition = self.fleet.application_id, f"{self.fleet.application_id}-{STORE}-repartition"
        # Without transactions no marker stands behind the last record.
        return all(
            self.cluster.committed(group, topic) == self.cluster.ends(topic) for topic in (self.input, repartition)
        )

    def _verdict(self) -> Checked:
        self.doing = "comparing every output"
        assert self.watch is not None
        truth = Truth()
        for record in read_all(self.cluster, self.input):
            assert record.value is not None
            truth.add(record.partition, record.value)
        self.violations += truth.problems[:5]
        if truth.records != self.feeder.fed or truth.digest != self.feeder.digest:
            self.violations.append(f"the input topic holds {truth.records} records and not what was fed")
        digest = Digest()

        def outputs() -> Iterator[Output]:
            for output in read_all(self.cluster, self.output):
                digest.add(output.partition, (output.key or b"") + b"\0" + (output.value or b""))
                yield output

        checked = check(truth, outputs(), self.plan.partitions)
        broken = checked.violations(self.plan.guarantee)
        if broken:
            self.violations.append(
                f"{broken} outputs are not as they must be: {checked.missing} missing, {checked.extra} extra, "
                f"{checked.out_of_order} out of order, {checked.wrong} wrong, {checked.undercounted} users counted too "
                f"low; first: {'; '.join(checked.shown)}"
            )
        # A reader that was there all the time must have had exactly what one that comes later has.
        caught_up = self._await(lambda: self.watch is not None and self.watch.seen >= checked.outputs, 30)
        if not caught_up or digest != self.watch.digest:
            self.violations.append(
                f"a reader that followed all the time saw {self.watch.seen} outputs, one that comes later "
                f"{checked.outputs}, or other ones"
            )
        return checked

    # -- one episode ---------------------------------------------------------------------------------------

    def _episode(self, episode: Episode) -> Outcome:
        assert self.watch is not None
        self.doing = episode.name
        began = time.monotonic()
        outcome = Outcome(episode.name, tuple(f.kind for f in episode.faults), round(began - self._began, 1))
        scene = _Scene(outcome, began)
        self.fleet.watch()
        scene.restored_before = {worker.number: len(worker.restored) for worker in self.fleet.workers}
        for fault in episode.faults:
            until = time.monotonic() + fault.delay_s
            self._await(lambda until=until: time.monotonic() >= until, fault.delay_s)  # type: ignore[misc]
            self._kinds[fault.kind](fault, scene)
            self.done[fault.kind] += 1
        for _, finish in sorted(scene.finish, key=lambda item: item[0]):
            finish()
        last_act = time.monotonic()
        if not self._await(lambda: self._settled(last_act), RECOVERY_S):
            self.violations.append(f"no recovery within {RECOVERY_S:.0f} s after {episode.name}\n{self._logs()}")
        ended = time.monotonic()
        outcome.downtime_s = round(self.watch.longest_gap_s(began, ended), 3)
        outcome.silence_s = round(self.watch.silence_s(began, ended), 3)
        outcome.recovered_s = round(ended - began, 3)
        self._restores(scene)
        self._blocked(scene)
        self._say(
            f"{episode.name}: down {outcome.downtime_s:.1f} s, recovered after {outcome.recovered_s:.1f} s, restored "
            f"{sum(r.records for r in outcome.restores):,} of {sum(r.needed for r in outcome.restores):,} records"
            + (f", readers blocked {max(outcome.blocked_s):.2f} s" if outcome.blocked_s else "")
        )
        return outcome

    def _restores(self, scene: _Scene) -> None:
        """What was restored, against what had to be."""
        changelog = f"{self.fleet.application_id}-{STORE}-changelog"
        found = [
            (item, worker)
            for worker in self.fleet.workers
            for item in worker.restored[scene.restored_before.get(worker.number, 0) :]
        ]
        for item, worker in sorted(found, key=lambda pair: pair[0].at):
            # Once a process has gone on with what the killed one left, it is not that any more.
            stored = scene.positions.pop((worker.machine, item.task), None)
            start = item.start if stored is None else stored
            needed = committed_between(self.cluster, changelog, item.partition, start, item.end)
            if stored is None:
                # What was compacted since is not there to be counted any more.
                needed = max(needed, item.records)
            restore = Restore(item.task, worker.name, item.records, needed, stored is not None)
            scene.outcome.restores.append(restore)
            if stored is not None and (item.records > needed or item.start < stored):
                self.violations.append(
                    f"after {scene.outcome.name} {worker.name} restored {item.records} records of {item.task} from "
                    f"offset {item.start}; its store reflected {stored}, and {needed} were committed since"
                )

    def _blocked(self, scene: _Scene) -> None:
        for kind, probe in scene.blocked:
            seconds = probe.result()
            if seconds is None:
                self.violations.append(f"after {kind} readers were still held up when all had recovered")
                continue
            scene.outcome.blocked_s.append(round(seconds, 3))
            if kind == "kill" and len(scene.outcome.kinds) == 1 and seconds >= self.plan.transaction_s:
                self.violations.append(
                    f"a process in the place of a killed one did not abort what that had left open: readers were held "
                    f"up for {seconds:.1f} s, until the transaction's time-out"
                )

    # -- faults --------------------------------------------------------------------------------------------

    def _victim(self, fault: Fault) -> ChaosWorker:
        there = [worker for worker in self.fleet.live if not worker.paused]
        # Of those with state: without any, nothing is lost and nothing is restored.
        with_state = [worker for worker in there if any(task.startswith(STORE) for task in worker.status.tasks)]
        there = with_state or there
        return there[int(fault.chance * len(there))]

    def _kill_one(self, fault: Fault, scene: _Scene) -> tuple[ChaosWorker, Path | None]:
        victim = self._victim(fault)
        self._say(f"{fault.kind}: SIGKILL for {victim.name} (pid {victim.pid})")
        process = self.fleet.kill(victim)
        if self.plan.guarantee == "exactly_once":
            scene.blocked.append((fault.kind, Blocked(self.cluster, self.output, RECOVERY_S)))
        scene.struck.append(victim)
        return victim, process

    def _kill(self, fault: Fault, scene: _Scene) -> None:
        victim, process = self._kill_one(fault, scene)
        copies = {} if process is None else copied(process, self._scratch)
        self.fleet.start(victim.place)
        self._note_positions(victim, copies, scene)

    def _kill_late(self, fault: Fault, scene: _Scene) -> None:
        victim, process = self._kill_one(fault, scene)
        copies = {} if process is None else copied(process, self._scratch)
        self._note_positions(victim, copies, scene)

        def replace() -> None:
            self._taken_over(scene, f"the tasks of {victim.name}")
            self.fleet.start(victim.place)

        scene.finish.append((1, replace))

    def _note_positions(self, victim: ChaosWorker, copies: dict[str, Path], scene: _Scene) -> None:
        for task, copy in copies.items():
            stored = position(copy)
            # What it held and did not run is an old copy, of a task that has moved.
            if stored is not None and victim.status.tasks.get(task) == "running":
                scene.positions[victim.machine, task] = stored

    def _stop(self, fault: Fault, scene: _Scene) -> None:
        victim = self._victim(fault)
        self._say(f"stop: SIGSTOP for {victim.name} (pid {victim.pid})")
        victim.pause()

        def resume() -> None:
            self._taken_over(scene, f"the tasks of {victim.name}, which is stopped")
            self._say(f"stop: SIGCONT for {victim.name} (pid {victim.pid})")
            victim.resume()

        scene.finish.append((1, resume))

    def _kill_broker(self, fault: Fault, scene: _Scene) -> None:
        self._say(f"broker: SIGKILL (pid {self._broker.pid})")
        self._broker.kill()
        self.fleet.outages.append((time.monotonic(), None))

        def restart() -> None:
            self._broker.restart()
            self.fleet.outages[-1] = (self.fleet.outages[-1][0], time.monotonic())
            self._say(f"broker: started again (pid {self._broker.pid})")

        scene.finish.append((0, restart))

    def _scale_out(self, fault: Fault, scene: _Scene) -> None:
        self._say(f"scale_out: {self.fleet.start().name}")

    def _scale_in(self, fault: Fault, scene: _Scene) -> None:
        victim = self._victim(fault)
        self._say(f"scale_in: SIGTERM for {victim.name} (pid {victim.pid})")
        victim.terminate()
        if not self._await(lambda: not victim.alive, RECOVERY_S):
            self.violations.append(f"{victim.name} did not end {RECOVERY_S:.0f} s after SIGTERM\n{victim.log_tail()}")
            victim.kill()

    def _wipe(self, fault: Fault, scene: _Scene) -> None:
        victim, process = self._kill_one(fault, scene)
        if process is None:
            self.violations.append(f"{victim.name} had no state directory to delete")
        else:
            shutil.rmtree(process)
        self.fleet.start(victim.place)

    def _start_in_restore(self, fault: Fault, scene: _Scene) -> None:
        self._wipe(fault, scene)

        def join() -> None:
            restoring: list[ChaosWorker] = []

            def begun() -> bool:
                restoring[:] = [worker for worker in self.fleet.live if worker.restoring]
                return bool(restoring)

            if not self._await(begun, RECOVERY_S):
                self.violations.append("no restore was seen after a state directory was deleted")
                return
            for worker in restoring:
                worker.pause()
            newcomer = self.fleet.start()
            self._say(f"start_in_restore: {newcomer.name} starts while {restoring[0].name} restores")
            self._await(lambda: newcomer.status_at > 0, HOLD_S)
            for worker in restoring:
                worker.resume()

        scene.finish.append((2, join))

    # -- waiting -------------------------------------------------------------------------------------------

    def _await(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Whether the condition came true in time; logs and processes are looked after meanwhile."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.fleet.watch()
            time.sleep(POLL_S)
        return True

    def _taken_over(self, scene: _Scene, what: str) -> None:
        """Those that can must take over what those that cannot have."""
        since = time.monotonic()
        if not self._await(lambda: self._shared(since), RECOVERY_S):
            self.violations.append(f"nobody took over {what} within {RECOVERY_S:.0f} s\n{self._logs()}")

    def _shared(self, since: float) -> bool:
        """Every task runs in one of the processes that are not stopped, by what they have said since."""
        there = [worker for worker in self.fleet.live if not worker.paused]
        held = [
            {task for task, phase in worker.status.tasks.items() if phase == "running"}
            for worker in there
            if worker.status_at > since
        ]
        return (
            len(held) == len(there)
            and all(held)
            and sum(map(len, held)) == len(set().union(*held)) == 2 * self.plan.partitions
        )

    def _settled(self, since: float) -> bool:
        """All tasks run, and every partition has brought something since."""
        assert self.watch is not None
        if not self._shared(since):
            return False
        newest = min(worker.status_at for worker in self.fleet.live)
        return self.watch.all_since(newest)

    def _logs(self) -> str:
        return "\n".join(f"{w.name}, {w.state}, {w.status.tasks}:\n{w.log_tail()}" for w in self.fleet.live)
