"""The process between the caller and the JVM, so that no JVM outlives a caller that crashed.

Rule of this module: standard library only, no import of the package; it runs as a script in an isolated
interpreter and must start in a few milliseconds.

The guard is the JVM's parent, so it can signal the JVM without ever hitting a recycled process id. It ends the
JVM when the pipe from its own parent closes or when it is adopted by another process. The pipe alone would not
do: a forked child of the caller keeps the writing end open. If the guard itself is killed, Linux kills the JVM;
the guard has one thread, so the per-thread rule of PR_SET_PDEATHSIG does no harm here.

Arguments: ``PARENT_PID REMOVE -- COMMAND...``. The JVM's process id is printed on stdout. REMOVE is a directory
to delete when the caller crashed, or empty. On stdin, ``T`` terminates and ``K`` kills the JVM. The exit status
is the JVM's, a signal as 128 + its number. With PARENT_PID 0 the JVM is detached: the guard prints the process
id and exits, and the JVM belongs to nobody.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import sys
import time

_POLL_S = 0.5
_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1
_COMMAND_NOT_RUN = 127


def main(arguments: list[str]) -> int:
    """Runs the command until it ends or the caller is gone."""
    parent, remove, separator, *command = arguments
    assert separator == "--"
    parent_pid = int(parent)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Handlers make every signal of interest readable on the pipe, and none of them ends the guard.
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    guard_pid = os.getpid()
    jvm = os.fork()
    if jvm == 0:
        _become(command, die_with=guard_pid if parent_pid else None)
    os.write(1, f"{jvm}\n".encode())
    os.close(1)
    if not parent_pid:
        return 0
    return _watch(jvm, parent_pid, remove, reading)


def _become(command: list[str], die_with: int | None) -> None:
    try:
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if die_with is not None and sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != die_with:
                os._exit(_COMMAND_NOT_RUN)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(_COMMAND_NOT_RUN)


def _watch(jvm: int, parent_pid: int, remove: str, signals: int) -> int:
    inputs = [0, signals]
    kill_at: float | None = None
    orphaned = False
    while True:
        ready, _, _ = select.select(inputs, [], [], _POLL_S)
        if signals in ready and signal.SIGTERM in os.read(signals, 64):
            os.kill(jvm, signal.SIGTERM)
        if 0 in ready:
            order = os.read(0, 1)
            if order in (b"T", b"K"):
                os.kill(jvm, signal.SIGTERM if order == b"T" else signal.SIGKILL)
            elif not order:
                inputs.remove(0)
        if not orphaned and (0 not in inputs or os.getppid() != parent_pid):
            orphaned = True
            # A directory that goes away anyway needs no clean shutdown.
            os.kill(jvm, signal.SIGKILL if remove else signal.SIGTERM)
            kill_at = time.monotonic() + _GRACE_S
        if kill_at is not None and time.monotonic() > kill_at:
            os.kill(jvm, signal.SIGKILL)
        ended, status = os.waitpid(jvm, os.WNOHANG)
        if ended:
            if orphaned and remove:
                shutil.rmtree(remove, ignore_errors=True)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
