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

__all__ = ["Jvm", "launch_detached"]

_TERMINATE = b"T"
_KILL = b"K"


class Jvm:
    """A JVM that ends when its owner stops it, ends or crashes.

    Args:
        command: the executable and its arguments.
        environment: of the process.
        console: the file that takes what it prints.
        remove_after_crash: a directory to delete if the owner crashes, or None.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        console: Path,
        remove_after_crash: Path | None,
    ) -> None:
        self._guard, self.pid = _launch(command, environment, console, os.getpid(), remove_after_crash)

    def is_alive(self) -> bool:
        """Whether the JVM still runs."""
        return self._guard.poll() is None

    def stop(self, timeout_s: float) -> None:
        """Asks the JVM to end, and kills it after `timeout_s` seconds."""
        if not self._end(_TERMINATE, timeout_s):
            self.kill()

    def kill(self) -> None:
        """Kills the JVM with SIGKILL and returns when it is gone."""
        self._end(_KILL, None)

    def _end(self, order: bytes, timeout_s: float | None) -> bool:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended by itself.
            self._guard.stdin.write(order)
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._guard.stdin.close()
        return True


def launch_detached(command: Sequence[str], *, environment: Mapping[str, str], console: Path) -> int:
    """Starts a JVM that outlives this process, and returns its process id."""
    process, pid = _launch(command, environment, console, 0, None)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    return pid


def _launch(
    command: Sequence[str], environment: Mapping[str, str], console: Path, parent: int, remove: Path | None
) -> tuple[subprocess.Popen[bytes], int]:
    with console.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(parent), str(remove or ""), "--", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            bufsize=0,
            # Ctrl-C in a terminal reaches its whole process group; the broker must outlive it until stopped.
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout as answer:
        return process, int(answer.readline())
