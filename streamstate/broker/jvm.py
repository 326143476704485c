"""A running broker process: started through the guard, which sees to it that no JVM is left behind.

Rule of this module: it knows processes and nothing of Kafka.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamstate.broker import guard
from streamstate.errors import BrokerUnavailable

__all__ = ["Jvm", "launch_detached", "process_identity"]

_TERMINATE = b"T"
_KILL = b"K"


class Jvm:
    """A JVM that ends when its owner stops it, ends or crashes.

    Args:
        command: the executable and its arguments.
        environment: of the process.
        console: the file that takes what it prints.
        inherited: a file descriptor that stays open for as long as the JVM lives.
        remove_after_crash: a directory to delete if the owner crashes, or None.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        console: Path,
        inherited: int,
        remove_after_crash: Path | None,
    ) -> None:
        owner = [str(os.getpid()), str(remove_after_crash or "")]
        self._guard, self.pid = _launch(owner, command, environment, console, inherited)

    def is_alive(self) -> bool:
        """Whether the JVM still runs."""
        return self._guard.poll() is None

    def wait(self, timeout_s: float | None) -> bool:
        """Waits for the JVM's end, at most `timeout_s` seconds. Whether it has ended."""
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, timeout_s: float) -> None:
        """Asks the JVM to end, and kills it after `timeout_s` seconds."""
        if not self._end(_TERMINATE, timeout_s):
            self.kill()

    def kill(self) -> None:
        """Kills the JVM with SIGKILL and returns when it is gone."""
        self._end(_KILL, None)

    def _end(self, order: bytes, timeout_s: float | None) -> bool:
        assert self._guard.stdin is not None
        if not self._guard.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # It has ended by itself.
                self._guard.stdin.write(order)
        if not self.wait(timeout_s):
            return False
        self._guard.stdin.close()
        return True


def launch_detached(command: Sequence[str], *, environment: Mapping[str, str], console: Path, inherited: int) -> int:
    """Starts a JVM that outlives this process, and returns its process id. Arguments as for `Jvm`."""
    process, pid = _launch(["0", ""], command, environment, console, inherited)
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    return pid


def process_identity(pid: int) -> str | None:
    """What tells a live process from every other one that has or had its id; None when it is gone.

    A process id alone does not say who is there: the system uses ids again.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command's name comes second, in parentheses, and may hold anything, also parentheses.
        fields = stat[stat.rindex(")") + 2 :].split()
        state, started = fields[0], fields[19]
        return None if state in "ZX" else f"{boot}/{started}"
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else " ".join(started.split())


def _launch(
    owner: Sequence[str],
    command: Sequence[str],
    environment: Mapping[str, str],
    console: Path,
    inherited: int,
) -> tuple[subprocess.Popen[bytes], int]:
    with console.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, *owner, "--", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            bufsize=0,
            pass_fds=(inherited,),
            # Ctrl-C in a terminal reaches its whole process group; the broker must outlive it until stopped.
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout as answer:
        line = answer.readline()
    if not line:
        raise BrokerUnavailable(f"The process that starts the broker failed; {console} says why.")
    return process, int(line)
