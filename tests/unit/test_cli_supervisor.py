"""The supervisor with workers that are small scripts: no Kafka, real processes, real signals."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from streamstate_cli.events import Event
from streamstate_cli.supervisor import MOST_HOPELESS, Backoff, Supervisor

from tests.broker_support import eventually

TIMEOUT = timedelta(seconds=30)
# What a worker does at least: read the order, let signals in, tell that it has started.
WORKER = """
import json, os, signal, sys
def leave(*_):
    print("left", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
order = json.loads(sys.stdin.readline())
def tell(event, **fields):
    line = json.dumps({"event": event, "worker": order["worker"], "pid": os.getpid(), **fields}) + "\\n"
    os.write(order["events"], line.encode())
def ready():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    tell("started")
exec(order["script"])
"""
RUNS = "ready(); signal.pause()"


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class ClusterWatch:
    """Collects events and acts on them, within the supervisor's loop.

    Args:
        on: called with the events so far after each one.
        stop_when: when this holds for the first time, this process gets a signal.
        stop_with: that signal.
    """

    def __init__(
        self,
        on: Callable[[ClusterWatch], None] = lambda watch: None,
        *,
        stop_when: Callable[[ClusterWatch], object] = lambda watch: False,
        stop_with: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.events: list[Event] = []
        self._on = on
        self._stop_when = stop_when
        self._stop_with = stop_with
        self._stopped = False

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._on(self)
        if not self._stopped and self._stop_when(self):
            self._stopped = True
            stop(self._stop_with)

    def names(self, worker: int | None = None) -> list[str]:
        return [event["event"] for event in self.events if worker is None or event["worker"] == worker]

    def of(self, name: str) -> list[Event]:
        return [event for event in self.events if event["event"] == name]

    @property
    def started(self) -> int:
        return len(self.of("started"))


def supervise(count: int, script: Callable[[int], str] | str, watch: ClusterWatch, **options: Any) -> int:
    def order(index: int) -> Mapping[str, Any]:
        return {"script": script if isinstance(script, str) else script(index)}

    return Supervisor(count, [sys.executable, "-c", WORKER], order, watch, **options).run()


def stop(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Orphans are reaped by whoever adopts them, which may take its time; a zombie is gone as well.
    with contextlib.suppress(OSError):
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    return False


# -- back-off --------------------------------------------------------------------------------------------------


def test_delays_double_up_to_a_limit_and_start_again_after_a_healthy_minute() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(uptime_s=1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff.delay_s(uptime_s=59.9), backoff.delay_s(uptime_s=60), backoff.delay_s(uptime_s=1)] == [30, 0.5, 1]


def test_a_worker_that_keeps_failing_is_started_ever_more_slowly() -> None:
    clock = Clock()

    def on(watch: ClusterWatch) -> None:
        event = watch.events[-1]
        if event["event"] == "worker_exited" and event["restart_in_ms"] is not None:
            # Nothing else lets this time pass: started too early is started at once, too late is never.
            clock.now += event["restart_in_ms"] / 1000
        if event["event"] == "worker_started":
            starts.append(clock.now)
            if len(starts) == 6:
                stop()

    starts: list[float] = []
    watch = ClusterWatch(on)
    assert supervise(1, "sys.exit(4)", watch, clock=clock) == 0
    assert [event["restart_in_ms"] for event in watch.of("worker_exited")] == [500, 1000, 2000, 4000, 8000, None]
    assert [later - earlier for earlier, later in pairwise(starts)] == [0.5, 1, 2, 4, 8]
    assert {event["exit_code"] for event in watch.of("worker_exited")[:5]} == {4}


def test_a_healthy_life_starts_the_delays_again() -> None:
    clock = Clock()
    lives = [0.0, 0.0, 61.0, 0.0]

    def on(watch: ClusterWatch) -> None:
        event = watch.events[-1]
        if event["event"] == "started":
            clock.now += lives[watch.started - 1]
            os.kill(event["pid"], signal.SIGKILL)
        if event["event"] == "worker_exited":
            clock.now += (event["restart_in_ms"] or 0) / 1000
            if len(watch.of("worker_exited")) == len(lives):
                stop()

    watch = ClusterWatch(on)
    assert supervise(1, RUNS, watch, clock=clock) == 0
    assert [event["restart_in_ms"] for event in watch.of("worker_exited")] == [500, 1000, 500, 1000]
    assert {event["exit_code"] for event in watch.of("worker_exited")} == {-signal.SIGKILL}


# -- starting --------------------------------------------------------------------------------------------------


def test_the_first_worker_goes_ahead_and_the_others_follow() -> None:
    watch = ClusterWatch(stop_when=lambda watch: watch.started == 3)
    assert supervise(3, RUNS, watch) == 0
    assert watch.names()[:2] == ["worker_started", "started"]
    assert [event["worker"] for event in watch.events[:2]] == [0, 0]
    assert sorted(event["worker"] for event in watch.of("started")) == [0, 1, 2]
    for index in range(3):
        assert watch.names(index) == ["worker_started", "started", "worker_exited"]
    for started, exited in zip(watch.of("worker_started"), watch.of("worker_exited"), strict=True):
        assert exited["exit_code"] == 0
        assert exited["restart_in_ms"] is None
        assert gone(started["pid"])


def test_only_the_dead_worker_is_started_again() -> None:
    killed: list[int] = []

    def on(watch: ClusterWatch) -> None:
        if watch.started == 2 and not killed:
            [victim] = [event["pid"] for event in watch.of("started") if event["worker"] == 1]
            killed.append(victim)
            os.kill(victim, signal.SIGKILL)

    watch = ClusterWatch(on, stop_when=lambda watch: watch.started == 3)
    assert supervise(2, RUNS, watch, backoff=lambda: Backoff(first_s=0.01)) == 0
    assert watch.names(0) == ["worker_started", "started", "worker_exited"]
    assert watch.names(1) == ["worker_started", "started", "worker_exited"] * 2
    [first, second] = [event for event in watch.of("worker_exited") if event["worker"] == 1]
    assert (first["pid"], first["exit_code"], first["restart_in_ms"]) == (killed[0], -9, 10)
    assert (second["exit_code"], second["restart_in_ms"]) == (0, None)


def test_a_program_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    class Third(Backoff):
        tries = 0

        def delay_s(self, uptime_s: float) -> float:
            self.tries += 1
            if self.tries == 3:
                stop()
            return 0.001

    before = open_files()
    assert Supervisor(1, ["/no/such/program"], lambda index: {}, ClusterWatch(), backoff=Third).run() == 0
    assert caplog.text.count("cannot be started") == 3
    assert open_files() == before


# -- exit codes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [2, 3])
def test_what_a_restart_cannot_mend_stops_everything(code: int) -> None:
    # The second one fails when the third one is up as well.
    def on(watch: ClusterWatch) -> None:
        if watch.started == 3 and not watch.of("worker_exited"):
            [victim] = [event["pid"] for event in watch.of("started") if event["worker"] == 1]
            os.kill(victim, signal.SIGUSR1)

    script = f"signal.signal(signal.SIGUSR1, lambda *_: sys.exit({code})); {RUNS}"
    watch = ClusterWatch(on)
    assert supervise(3, script, watch) == code
    codes = {event["worker"]: (event["exit_code"], event["restart_in_ms"]) for event in watch.of("worker_exited")}
    assert codes == {0: (0, None), 1: (code, None), 2: (0, None)}


@pytest.mark.parametrize("code", [2, 3])
def test_a_first_worker_that_cannot_run_is_the_only_one(code: int) -> None:
    watch = ClusterWatch()
    assert supervise(3, f"sys.exit({code})", watch) == code
    assert watch.names() == ["worker_started", "worker_exited"]


@pytest.mark.parametrize("code", [0, 1, 4, 5, 6, 7, 8])
def test_any_other_end_is_followed_by_a_start(code: int) -> None:
    watch = ClusterWatch(stop_when=lambda watch: len(watch.of("worker_started")) == 2)
    assert supervise(1, f"sys.exit({code})", watch, backoff=lambda: Backoff(first_s=0.001)) == 0
    assert watch.of("worker_exited")[0]["exit_code"] == code


@pytest.mark.parametrize("code", [5, 6, 7, 8])
def test_what_a_restart_hardly_mends_is_tried_five_times(code: int, caplog: pytest.LogCaptureFixture) -> None:
    watch = ClusterWatch(stop_when=lambda watch: len(watch.of("worker_started")) == 20)
    assert supervise(1, f"sys.exit({code})", watch, backoff=lambda: Backoff(first_s=0.001)) == code
    assert [event["exit_code"] for event in watch.of("worker_exited")] == [code] * MOST_HOPELESS
    assert watch.of("worker_exited")[-1]["restart_in_ms"] is None
    assert f"5 times in a row with exit code {code}" in caplog.text


def test_a_long_life_or_another_end_between_starts_the_count_again() -> None:
    clock = Clock()
    # By which code, after how long a life.
    lives = [(6, 0), (6, 0), (6, 0), (6, 0), (6, 61), (6, 0), (6, 0), (6, 0), (4, 0), *[(6, 0)] * 5]

    def on(watch: ClusterWatch) -> None:
        if watch.names()[-1] == "started":
            clock.now += lives[watch.started - 1][1]
            os.kill(watch.events[-1]["pid"], signal.SIGUSR1 if lives[watch.started - 1][0] == 6 else signal.SIGUSR2)
        if watch.names()[-1] == "worker_exited":
            clock.now += (watch.events[-1]["restart_in_ms"] or 0) / 1000

    ends = (
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(6)); signal.signal(signal.SIGUSR2, lambda *_: sys.exit(4))"
    )
    watch = ClusterWatch(on, stop_when=lambda watch: watch.started > len(lives))
    assert supervise(1, f"{ends}; {RUNS}", watch, clock=clock) == 6
    assert [event["exit_code"] for event in watch.of("worker_exited")] == [code for code, _ in lives]


# -- stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_every_worker(number: signal.Signals) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    lines: list[str] = []
    watch = ClusterWatch(stop_when=lambda watch: watch.started == 2, stop_with=number)
    assert supervise(2, RUNS, watch, relay=lines.append) == 0
    assert lines == ["left", "left"]
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_worker_that_is_told_to_stop_before_it_listens_stops_in_order() -> None:
    # Were its signals not held back, it would die of the signal: exit code -15.
    watch = ClusterWatch(stop_when=lambda watch: watch.names() == ["worker_started"])
    assert supervise(2, RUNS, watch) == 0
    assert watch.names() == ["worker_started", "worker_exited"]
    assert watch.of("worker_exited")[0]["exit_code"] == 0


def test_a_second_signal_kills_workers_that_do_not_end() -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: tell('told')); ready()\nwhile True: signal.pause()"

    def on(watch: ClusterWatch) -> None:
        if watch.names()[-1] in ("started", "told"):
            stop()

    watch = ClusterWatch(on)
    assert supervise(1, script, watch) == 1
    assert watch.names() == ["worker_started", "started", "told", "worker_exited"]
    assert watch.of("worker_exited")[0]["exit_code"] == -signal.SIGKILL


def test_nothing_is_started_while_it_stops() -> None:
    watch = ClusterWatch(stop_when=lambda watch: watch.of("worker_exited"))
    assert supervise(1, "sys.exit(4)", watch) == 0
    assert watch.names() == ["worker_started", "worker_exited"]


# -- what workers say ------------------------------------------------------------------------------------------


def test_a_line_cut_short_by_a_kill_is_dropped() -> None:
    script = """ready(); os.write(order["events"], b'{"event": "sta'); os.kill(os.getpid(), signal.SIGKILL)"""
    watch = ClusterWatch(stop_when=lambda watch: watch.of("worker_exited"))
    assert supervise(1, script, watch) == 0
    assert watch.names() == ["worker_started", "started", "worker_exited"]


def test_events_come_whole_and_in_order_however_long() -> None:
    script = "ready()\nfor n in range(200): tell('status', n=n, filler='x' * 5000)\nsignal.pause()"
    watch = ClusterWatch(stop_when=lambda watch: len(watch.of("status")) == 400)
    assert supervise(2, script, watch) == 0
    for index in (0, 1):
        assert [event["n"] for event in watch.of("status") if event["worker"] == index] == list(range(200))


def test_what_a_worker_told_before_it_ended_comes_before_its_end() -> None:
    def on(watch: ClusterWatch) -> None:
        if watch.names()[-1] == "started":
            pid = watch.events[-1]["pid"]
            os.kill(pid, signal.SIGUSR1)
            # Its end is seen in the same turn as its last words.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    script = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
ready()
signal.sigwait([signal.SIGUSR1])
tell("error", exit_code=6)
sys.exit(6)
"""
    watch = ClusterWatch(on, stop_when=lambda watch: watch.of("worker_exited"))
    assert supervise(1, script, watch) == 0
    assert watch.names() == ["worker_started", "started", "error", "worker_exited"]


def test_stdout_and_stderr_are_relayed_line_by_line() -> None:
    script = "print('to stdout'); print('to stderr', file=sys.stderr); print('no newline', end=''); " + RUNS
    lines: list[str] = []
    watch = ClusterWatch(stop_when=lambda watch: watch.started)
    assert supervise(1, script, watch, relay=lines.append) == 0
    assert sorted(lines) == ["no newlineleft", "to stderr", "to stdout"]


def test_no_file_descriptor_is_left() -> None:
    before = open_files()
    watch = ClusterWatch(stop_when=lambda watch: len(watch.of("worker_exited")) == 3)
    supervise(1, "sys.exit(4)", watch, backoff=lambda: Backoff(first_s=0.001), relay=lambda line: None)
    assert open_files() == before


# -- orphans ---------------------------------------------------------------------------------------------------

SUPERVISOR = """
import sys
from streamstate_cli.supervisor import Supervisor
def told(event): print(event["event"], event["pid"], flush=True)
Supervisor(2, [sys.executable, "-c", sys.argv[1]], lambda index: {}, told).run()
"""
# The worker's side as it is used by `streamstate run`.
REAL_WORKER = """
import json, signal, sys
from streamstate_cli.events import event
from streamstate_cli.supervisor import Supervised
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
supervised = Supervised.begin()
assert sys.stdin.read() == ""
print(json.dumps(event("started", supervised.index)), file=supervised.events)
supervised.events.flush()
signal.pause()
"""


def test_no_worker_outlives_a_killed_supervisor() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-c", SUPERVISOR, REAL_WORKER]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert supervisor.stdout is not None
    pids: set[int] = set()
    started = 0
    try:
        with supervisor.stdout as told:
            while started < 2:
                name, pid = told.readline().split()
                pids.add(int(pid))
                started += name == "started"
    finally:
        supervisor.kill()
        supervisor.wait()
    assert len(pids) == 2
    for pid in pids:
        eventually(partial(gone, pid), TIMEOUT, f"worker {pid} to end")


def test_a_worker_without_a_supervisor_ends_at_once() -> None:
    script = "from streamstate_cli.supervisor import Supervised; Supervised.begin()"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
