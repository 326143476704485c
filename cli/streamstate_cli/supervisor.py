"""Several workers on one machine: started, watched, started again, and stopped together.

A worker is a process of its own. Its stdin is a pipe of which only the supervisor holds the other end: the first line
is its order (settings, secrets among them, which therefore stand on no command line), and the end of the pipe means
that the supervisor is gone, however it ended; the worker then finishes in order. Its events come back on another pipe.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from streamstate.errors import (
    ConfigError,
    OffsetOutOfRange,
    ProcessingError,
    StateDirectoryLocked,
    TaskCorrupted,
    TopologyError,
)
from streamstate_cli.events import Event, event

__all__ = ["Backoff", "Supervised", "Supervisor"]

log = logging.getLogger("streamstate.supervisor")

# What starting again cannot mend.
FATAL = frozenset((ConfigError.exit_code, TopologyError.exit_code))
# What a restart only mends when somebody has acted meanwhile: tried a few times, then the user is told.
HOPELESS = frozenset(
    kind.exit_code for kind in (StateDirectoryLocked, ProcessingError, TaskCorrupted, OffsetOutOfRange)
)
MOST_HOPELESS = 5
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ORPHAN_LIMIT_S = 60.0
READ_BYTES = 65_536


class Backoff:
    """How long to wait before a worker is started again: twice as long each time, until it has been well.

    Args:
        first_s: the first delay.
        limit_s: the longest.
        healthy_s: a worker that lived this long starts from the first delay again.

    >>> backoff = Backoff(first_s=1, limit_s=4)
    >>> [backoff.delay_s(uptime_s=0) for _ in range(4)], backoff.delay_s(uptime_s=61)
    ([1, 2, 4, 4], 1)
    """

    def __init__(self, first_s: float = 0.5, limit_s: float = 30.0, healthy_s: float = 60.0) -> None:
        self._first_s, self._limit_s, self._healthy_s = first_s, limit_s, healthy_s
        self._next_s = first_s

    def delay_s(self, uptime_s: float) -> float:
        """The delay after a life of ``uptime_s``."""
        if uptime_s >= self._healthy_s:
            self._next_s = self._first_s
        delay_s = self._next_s
        self._next_s = min(self._limit_s, 2 * delay_s)
        return delay_s

    def is_quick(self, uptime_s: float) -> bool:
        """True when a worker that lived ``uptime_s`` has not been well."""
        return uptime_s < self._healthy_s


class _Lines:
    """Whole lines out of pieces."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))

    def end(self) -> None:
        if self._rest:
            self.feed(b"\n")


@dataclass(slots=True)
class _Slot:
    """One worker's place.

    Attributes:
        due: when to start it; None while it runs or waits for the first worker.
        hopeless: how often in a row it ended soon, with a code that a restart hardly mends.
    """

    index: int
    backoff: Backoff
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float | None = None
    hopeless: int = 0
    pipes: dict[int, _Lines] = field(default_factory=dict)


class Supervisor:
    """Runs ``count`` workers until it is told to stop, or one of them ends with what no restart can mend.

    Args:
        count: of workers.
        command: of a worker.
        order: what worker ``index`` is told on its stdin; plain values.
        emit: takes events: the workers', ``worker_started`` and ``worker_exited``.
        stdout: where the workers' stdout goes; None: where this process's goes.
        relay: takes the workers' lines of stdout and stderr instead.
        backoff: makes what decides the delays of one worker.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        order: Callable[[int], Mapping[str, Any]],
        emit: Callable[[Event], None],
        *,
        stdout: TextIO | None = None,
        relay: Callable[[str], None] | None = None,
        backoff: Callable[[], Backoff] = Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = list(command)
        self._order = order
        self._emit = emit
        self._stdout = stdout
        self._relay = relay
        self._clock = clock
        self._slots = [_Slot(index, backoff()) for index in range(count)]
        self._selector: selectors.BaseSelector
        self._stopping = False
        self._forced = False
        self._first_is_up = False
        self._status = 0

    def run(self) -> int:
        """Supervise; must be called in the main thread.

        Returns:
            The exit code: 0 after a signal, else that of the worker that ended it.
        """
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(reading, selectors.EVENT_READ)
        # Handlers only make the signals readable on the pipe, so that all is done in one place.
        before = {number: signal.signal(number, lambda *_: None) for number in (*STOP_SIGNALS, signal.SIGCHLD)}
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # The first one goes ahead: what is wrong with the settings or the topology is then said once.
        self._slots[0].due = self._clock()
        try:
            while not (self._stopping and all(slot.process is None for slot in self._slots)):
                self._wait(reading)
                self._start_due()
                self._reap()
        finally:
            self._end_all()
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            os.close(reading)
            os.close(writing)
        return 1 if self._forced else self._status

    # -- one turn ------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = self._clock()
        for slot in self._slots:
            if not self._stopping and slot.due is not None and now >= slot.due:
                self._start(slot)

    def _wait(self, signals: int) -> None:
        due = [slot.due for slot in self._slots if slot.due is not None and not self._stopping]
        timeout = max(0.0, min(due) - self._clock()) if due else None
        for key, _ in self._selector.select(timeout):
            if key.fd == signals:
                for number in os.read(signals, READ_BYTES):
                    if number in STOP_SIGNALS:
                        self._told_to_stop(signal.Signals(number))
            else:
                self._read(key.data, key.fd)

    def _reap(self) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                self._ended(slot, slot.process)

    # -- workers -------------------------------------------------------------------------------------------

    def _start(self, slot: _Slot) -> None:
        reading, writing = os.pipe()
        relayed = subprocess.PIPE if self._relay is not None else None
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"} if self._relay is not None else None
        # Signals wait until the worker has its handlers: a Ctrl-C reaches every process of a terminal at once.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=relayed or self._stdout,
                stderr=relayed,
                pass_fds=(writing,),
                env=environment,
            )
        except OSError as error:
            os.close(reading)
            delay_s = slot.backoff.delay_s(0)
            slot.due = self._clock() + delay_s
            log.warning("worker %d cannot be started (%s); tried again in %.1f s", slot.index, error, delay_s)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(writing)
        slot.process, slot.started, slot.due = process, self._clock(), None
        self._watch(slot, reading, self._event_of(slot))
        for stream in (process.stdout, process.stderr):
            if stream is not None and self._relay is not None:
                self._watch(slot, os.dup(stream.fileno()), self._relay)
                stream.close()
        self._emit({**event("worker_started", slot.index), "pid": process.pid})
        assert process.stdin is not None, "started without a pipe"
        order = {**self._order(slot.index), "worker": slot.index, "events": writing}
        # It may have ended already; that is then seen like any other end.
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()

    def _watch(self, slot: _Slot, fd: int, take: Callable[[str], None]) -> None:
        os.set_blocking(fd, False)
        slot.pipes[fd] = _Lines(take)
        self._selector.register(fd, selectors.EVENT_READ, slot)

    def _event_of(self, slot: _Slot) -> Callable[[str], None]:
        def take(line: str) -> None:
            try:
                told = json.loads(line)
            except ValueError:
                log.debug("worker %d was killed in the middle of a line", slot.index)
                return
            if told["event"] == "started" and not self._first_is_up:
                self._first_is_up = True
                for other in self._slots:
                    if other.process is None and other.due is None:
                        other.due = self._clock()
            self._emit(told)

        return take

    def _read(self, slot: _Slot, fd: int) -> bool:
        """One piece; False when there is nothing more for now."""
        if fd not in slot.pipes:
            return False
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            slot.pipes[fd].feed(data)
            return True
        self._forget(slot, fd)
        return False

    def _forget(self, slot: _Slot, fd: int) -> None:
        slot.pipes.pop(fd).end()
        self._selector.unregister(fd)
        os.close(fd)

    def _ended(self, slot: _Slot, process: subprocess.Popen[bytes]) -> None:
        for fd in list(slot.pipes):
            while self._read(slot, fd):
                pass
            if fd in slot.pipes:
                self._forget(slot, fd)
        _close_stdin(process)
        slot.process = None
        code, uptime_s = process.returncode, self._clock() - slot.started
        if not self._stopping and self._cannot_go_on(slot, code, uptime_s):
            self._status = code
            self._stop_all(signal.SIGTERM)
        delay_s = None if self._stopping else slot.backoff.delay_s(uptime_s)
        slot.due = None if delay_s is None else self._clock() + delay_s
        restart_in_ms = None if delay_s is None else round(delay_s * 1000)
        told = event("worker_exited", slot.index, exit_code=code, restart_in_ms=restart_in_ms)
        self._emit({**told, "pid": process.pid})
        if delay_s is not None:
            log.warning("worker %d %s; it is started again in %.1f s", slot.index, _described(code), delay_s)

    def _cannot_go_on(self, slot: _Slot, code: int, uptime_s: float) -> bool:
        if code in FATAL:
            return True
        # A long life says that something else is wrong now than before it.
        before = slot.hopeless if slot.backoff.is_quick(uptime_s) else 0
        slot.hopeless = before + 1 if code in HOPELESS else 0
        if slot.hopeless < MOST_HOPELESS:
            return False
        log.error(
            "worker %d ended %d times in a row with exit code %d or a like one: starting it again does not help. "
            "Its last message says what does",
            slot.index,
            slot.hopeless,
            code,
        )
        return True

    # -- the end -------------------------------------------------------------------------------------------

    def _told_to_stop(self, number: signal.Signals) -> None:
        if self._stopping:
            log.warning("%s again: the workers are killed; what was not committed is processed again", number.name)
            self._forced = True
            self._stop_all(signal.SIGKILL)
        else:
            log.info("%s: the workers finish; once more to kill them", number.name)
            self._stop_all(signal.SIGTERM)

    def _stop_all(self, number: signal.Signals) -> None:
        self._stopping = True
        for slot in self._slots:
            slot.due = None
            if slot.process is not None:
                slot.process.send_signal(number)

    def _end_all(self) -> None:
        """Only after an error of our own: the workers see the end of their pipes and finish."""
        for slot in self._slots:
            if slot.process is not None:
                _close_stdin(slot.process)
            for fd in list(slot.pipes):
                self._forget(slot, fd)


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _described(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class Supervised:
    """The worker's side.

    Attributes:
        order: what the supervisor sent.
        index: of this worker.
        events: where its events go.
    """

    def __init__(self, order: Mapping[str, Any], events: TextIO) -> None:
        self.order = order
        self.index = int(order["worker"])
        self.events = events

    @classmethod
    def begin(cls) -> Supervised:
        """Read the order, and from now on finish in order when the supervisor is gone. Signals must be handled by
        now: they are let in here."""
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(0, 1)
            if not piece:
                raise SystemExit(1)
            line += piece
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        # Out of the way of a topology that reads stdin or starts processes.
        lifeline = os.dup(0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        events = int(order["events"])
        os.set_inheritable(events, False)
        threading.Thread(target=_finish_with, args=(lifeline,), name="supervisor-watch", daemon=True).start()
        return cls(order, os.fdopen(events, "w", encoding="utf-8"))


def _finish_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    log.warning("the supervisor is gone: finishing")
    os.kill(os.getpid(), signal.SIGTERM)
    # A worker that hangs must not outlive its supervisor for ever. Nothing is lost: the transaction is aborted.
    time.sleep(ORPHAN_LIMIT_S)
    os._exit(1)
