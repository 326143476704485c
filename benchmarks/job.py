"""What a contender is told, and what it says back.

Rule of this module: the interface of a contender's process, whatever it is written in. It gets one argument, a job
as JSON. It writes lines to standard output: ``first`` when it has its first input record; when restoring,
``restore-start`` as it begins to read and ``restored N``, once or per partition; for limits ``rate COUNT SECONDS``. It
ends in order when its standard input does, so that it cannot outlive the suite.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Job", "received", "say", "when_told_to_stop"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one process.

    Attributes:
        work: what to compute, see ``benchmarks.expected``.
        servers: the broker.
        application_id: names the consumer group, internal topics and transactional ids.
        inputs: topic by role.
        output: topic.
        commit_ms: commit interval.
        state_dir: for local state, one per process.
        process: 0, 1, ... among the processes of one contender.
        threads: of a contender that has them.
        cache_bytes: of a contender that holds results back by cache; -1 for its default.
        records: how many there are to read, for those that have no group to watch.
    """

    work: str
    servers: str
    application_id: str
    inputs: Mapping[str, str]
    output: str
    commit_ms: int
    state_dir: str
    process: int = 0
    threads: int = 1
    cache_bytes: int = 0
    records: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """As the contender's argument."""
        return json.dumps(asdict(self))

    @property
    def state(self) -> Path:
        """The directory for local state."""
        return Path(self.state_dir)


def received() -> Job:
    """The job of this process."""
    return Job(**json.loads(sys.argv[1]))


def say(line: str) -> None:
    """Tell the suite, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def when_told_to_stop(stop: Callable[[], None]) -> None:
    """Call ``stop``, on a thread of its own, at the end of standard input."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        stop()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
