"""A process with 256 tasks: under the usual limit on open files, and with an end in three seconds."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import pytest

from tests.integration.support import Application, check_counts

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's"),
]

PARTITIONS = 128
USUAL, HARD = 1_024, 8_192
END_S = 3.0


def test_256_tasks_run_under_the_usual_limit_and_end_at_once(application: Application) -> None:
    lines, counts = application.create("lines", PARTITIONS), application.create("counts", 1)
    feeder, reader = application.feeder(lines, seed=7), application.reader(counts)
    for started in (1, 2):
        worker = application.start("word_count", {"lines": lines, "counts": counts})
        # Long before it asks for its limit.
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (USUAL, HARD))
        worker.wait_tasks(2 * PARTITIONS)
        feeder.feed(500)
        reader.until(feeder.words.total())
        assert len(list(Path(f"/proc/{worker.pid}/fd").iterdir())) > USUAL, "the limit was not needed"
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < END_S, f"the end of process {started}"
    check_counts(reader.drain(), feeder.truth())
