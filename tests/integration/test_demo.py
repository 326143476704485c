"""The demonstration for real: Kafka, worker processes, the kill, the proof; and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from streamstate.broker.jvm import process_identity
from tests.broker_support import VARIABLE, eventually

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(
        os.environ.get(VARIABLE, "embedded") != "embedded", reason="the demonstration brings its own broker"
    ),
]

FLIGHTS = 20_000
TIMEOUT = timedelta(seconds=120)


@contextmanager
def demonstration(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """It runs, with ``temporary`` as the place of its temporary files; ended here only if a test failed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streamstate_cli", "demo", "--limit", str(FLIGHTS), "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(TIMEOUT.total_seconds())
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def temporary() -> Iterator[Path]:
    # Not pytest's: the broker's paths are in its command line, and short ones are easier to read.
    with tempfile.TemporaryDirectory(prefix="demo-test-") as directory:
        yield Path(directory)


def named_processes(lines: str) -> set[int]:
    return {int(pid) for pid in re.findall(r"\(pid (\d+)", lines)}


def assert_nothing_is_left(pids: set[int], temporary: Path) -> None:
    for pid in pids:
        # A zombie's parent may take a moment to reap it.
        eventually(lambda: process_identity(pid) is None, TIMEOUT, f"the end of process {pid}")  # noqa: B023
    assert list(temporary.iterdir()) == []


def test_every_flight_is_counted_exactly_once_although_a_worker_is_killed(temporary: Path) -> None:
    with demonstration(temporary) as process:
        output, errors = process.communicate(timeout=TIMEOUT.total_seconds())
    assert process.returncode == 0, output + errors
    report = json.loads(output)
    assert (report["ok"], report["problems"], report["problem_count"]) == (True, [], 0)
    assert (report["flights"], report["outputs_checked"]) == (FLIGHTS, 2 * FLIGHTS)
    for rows in report["results"].values():
        assert sum(row["flights"] for row in rows.values()) == FLIGHTS

    recovery = report["recovery"]
    workers = {worker["number"]: worker for worker in report["workers"]}
    killed, replacement = workers[int(recovery["killed"].split()[-1])], workers[3]
    assert killed["state"] == "killed"
    assert recovery["tasks"] > 0
    assert recovery["at_flights"] >= FLIGHTS // 2
    assert [worker["state"] for number, worker in workers.items() if worker is not killed] == ["stopped", "stopped"]
    # Its state was deleted with it, so all of it came from the changelogs.
    assert 0 < recovery["restored"] <= recovery["changelog_records"]
    assert recovery["replacement_pid"] == replacement["pid"]
    assert replacement["records_in"] > 0
    assert re.search(r"killed worker \d \(pid \d+, \d+ tasks\) with SIGKILL", errors)
    assert re.search(r"worker 3 runs \d+ tasks", errors)

    pids = named_processes(errors)
    assert {worker["pid"] for worker in workers.values()} < pids
    assert_nothing_is_left(pids, temporary)


def test_ctrl_c_stops_everything(temporary: Path) -> None:
    with demonstration(temporary) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "fed " in line and "fed 0 " not in line:
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=TIMEOUT.total_seconds())
    errors = "".join(lines) + rest
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "everything is stopped" in errors
    pids = named_processes(errors)
    assert len(pids) >= 3, errors
    assert_nothing_is_left(pids, temporary)
