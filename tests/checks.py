"""Runs the steps of ``make test``: two rows of them beside each other, each row in its order.

Rule of this module: it only starts, waits and prints. Each step is a target of the Makefile, and its output comes as a
whole when it has ended. Every step runs, also when one has failed.

Tests on a broker mostly wait, and what they wait for must not be stretched: they are one row. The other one has what
computes; it yields the processor (``nice``), and so fills the gaps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

WAITING = ("pytest-broker", "pytest-sessions", "chaos-short")
COMPUTING = ("lint", "imports", "types", "doctests", "pytest-others")
YIELDING = 5
# Between two lines that say what still runs.
STILL_S = 60.0
LOOK_S = 0.1


@dataclass(slots=True)
class Checks:
    """The steps under way and what became of the others.

    Attributes:
        make: the command that runs a target.
        failed: targets that ended with an error, in the order in which they did.
    """

    make: Sequence[str]
    failed: list[str] = field(default_factory=list)
    _passed: int = 0
    # By process id.
    _running: dict[int, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self, rows: Sequence[tuple[Sequence[str], int]]) -> int:
        """Run rows of targets beside each other.

        Args:
            rows: targets and how much they yield the processor.

        Returns:
            The number of targets that did not pass.
        """
        threads = [threading.Thread(target=self._row, args=row, daemon=True) for row in rows]
        said = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                # Short: a signal that comes right before it is noticed behind it.
                time.sleep(LOOK_S)
                if time.monotonic() - said > STILL_S:
                    said = time.monotonic()
                    self._say(f"-- still running: {', '.join(self._running.values())}")
        except KeyboardInterrupt:
            self._stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        return sum(len(targets) for targets, _ in rows) - self._passed

    def _row(self, targets: Sequence[str], yielding: int) -> None:
        for target in targets:
            if self._stopped:
                return
            self._step(target, yielding)

    def _step(self, target: str, yielding: int) -> None:
        began = time.monotonic()
        with tempfile.TemporaryFile() as output:
            command = ["nice", "-n", str(yielding), *self.make, target]
            with self._lock:
                if self._stopped:
                    return
                # A group of its own: Ctrl-C reaches it once, from here, and not through the terminal as well.
                step = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0
                )
                self._running[step.pid] = target
            code = step.wait()
            output.seek(0)
            text = output.read().decode(errors="replace").rstrip()
        with self._lock:
            del self._running[step.pid]
            if code:
                self.failed.append(target)
            else:
                self._passed += 1
        result = f"failed with {code}" if code else "passed"
        self._say(f"{text}\n-- {target} {result} after {time.monotonic() - began:.0f} s")

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for group in self._running:
                # It may have ended, and be waited for already.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGINT)

    def _say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)


def main() -> int:
    """All steps; 1 if one failed, whose names come last."""
    checks = Checks([os.environ.get("MAKE", "make"), "--no-print-directory"])
    began = time.monotonic()
    try:
        missing = checks.run([(WAITING, 0), (COMPUTING, YIELDING)])
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    minutes = (time.monotonic() - began) / 60
    if missing:
        # A step that could not even be started has said so.
        names = ", ".join(checks.failed) or "a step that was not run"
        print(f"\nFailed after {minutes:.1f} minutes: {names}.")
        return 1
    print(f"\nAll checks passed, after {minutes:.1f} minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
