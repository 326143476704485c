"""The benchmarks on a real broker, over few records: they run, check, report, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from benchmarks.peers.place import PLACE
from tests.broker_support import Broker, eventually

ROOT = Path(__file__).parents[2]
RECORDS = 4_000

pytestmark = pytest.mark.broker


def command(broker: Broker, output: Path, *options: str) -> list[str]:
    servers = ["--bootstrap-servers", broker.bootstrap_servers]
    return [sys.executable, "-m", "benchmarks", *servers, "--output", str(output), "--rounds", "1", *options]


def bench(broker: Broker, output: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run the suite: exit code, document, what it said."""
    done = subprocess.run(
        command(broker, output, *options), cwd=ROOT, capture_output=True, text=True, check=False, timeout=250
    )
    return done.returncode, json.loads((output / "results.json").read_text(encoding="utf-8")), done.stderr


def leftovers(broker: Broker) -> list[str]:
    """Topics of suites."""
    topics = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10).topics
    return [name for name in topics if "bench-" in name]


def new_places(before: set[Path]) -> list[Path]:
    """Directories of runs whose contender has begun to use its own."""
    return [path for path in PLACE.glob("run-*") if path not in before and any(path.glob("state-0/*"))]


def contenders(place: Path) -> list[int]:
    """Processes that were told to keep their state there."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("needs /proc")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f'"{place}/state-0"'.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


@pytest.mark.parametrize("work", ["count-commit", "tumbling-mean", "table-join", "stream-join", "repartition"])
def test_ours_and_the_loop_agree_with_what_must_come_out(broker: Broker, tmp_path: Path, work: str) -> None:
    options = [
        "--workloads",
        work,
        "--contenders",
        "streamstate",
        "loop",
        "--records",
        str(RECORDS),
        "--commit-ms",
        "1000",
    ]
    code, found, said = bench(broker, tmp_path, *options)
    assert code == 0, said
    (case,) = found["cases"]
    for entry in case["contenders"]:
        (run,) = entry["runs"]
        assert run["rate"] > 0
        if work in ("count-commit", "stream-join"):
            assert 0 < run["outputs"] <= RECORDS
        else:
            assert run["outputs"] == RECORDS
        assert run["cpu_s_per_million"] > 0
        assert run["peak_bytes"] > 10 << 20
    assert leftovers(broker) == []


def test_latency_and_restore(broker: Broker, tmp_path: Path) -> None:
    options = ["--workloads", "latency-2k", "restore", "--contenders", "streamstate", "loop"]
    code, found, said = bench(broker, tmp_path, *options, "--entries", "2000", "--latency-seconds", "0.5", "1")
    assert code == 0, said
    latency, restore = found["cases"]
    for entry in latency["contenders"]:
        (run,) = entry["runs"]
        assert run["outputs"] == run["records"] > 3_000
        assert 0 <= run["p50_ms"] <= run["p99_ms"] <= run["p999_ms"] <= run["max_ms"]
    assert [entry["runs"][0]["records"] for entry in restore["contenders"]] == [2_000, 2_000]


def test_ctrl_c_leaves_nothing_behind(broker: Broker, tmp_path: Path) -> None:
    before = set(PLACE.glob("run-*"))
    options = ["--workloads", "latency-2k", "--contenders", "streamstate", "--latency-seconds", "600", "1"]
    suite = subprocess.Popen(
        command(broker, tmp_path, *options), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: new_places(before), timedelta(seconds=60), "a contender's state directory")
        (place,) = new_places(before)
        assert contenders(place)
        suite.send_signal(signal.SIGINT)
        _, errors = suite.communicate(timeout=60)
    finally:
        suite.kill()
    assert suite.returncode == 130, errors
    assert "Stopped" in errors
    assert not place.exists()
    assert contenders(place) == []
    assert leftovers(broker) == []
