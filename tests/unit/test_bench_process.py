"""The benchmarks' processes: watched, and never left behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import process
from benchmarks.job import Job
from benchmarks.process import ContenderFailed, Team

JOB = Job("count", "localhost:1", "app", {"events": "in"}, "out", 1_000, "/nowhere")
UNTIL_STOPPED = "import sys; print('first', flush=True); sys.stdin.read()"
DEAF = "import time; print('first', flush=True); time.sleep(600)"


def start(team: Team, tmp_path: Path, program: str) -> process.Running:
    return team.start([sys.executable, "-c", program], JOB, tmp_path / f"log-{len(team.members)}", {})


def await_first(team: Team) -> None:
    team.wait(lambda: bool(team.said("first")), 30, "the first line")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_gets_its_job_and_ends_in_order(tmp_path: Path) -> None:
    program = (
        "from benchmarks.job import received, say, when_told_to_stop\n"
        "import threading\n"
        "stopped = threading.Event()\n"
        "when_told_to_stop(stopped.set)\n"
        "say('first ' + received().work + ' ' + received().inputs['events'])\n"
        "stopped.wait(60)\n"
        "say('done')\n"
    )
    with Team() as team:
        root = str(Path(process.__file__).parents[1])
        team.start([sys.executable, "-c", program], JOB, tmp_path / "log", {"PYTHONPATH": root})
        await_first(team)
        assert team.said("first")[0][1] == "count in"
        cost = team.stop()
        assert [text for _, text in team.said("done")] == [""]
    assert cost.user_s + cost.system_s > 0
    assert 1 << 20 < cost.peak_bytes < 1 << 30


def test_costs_of_several_processes_add_up(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\n" + UNTIL_STOPPED
    with Team() as team:
        start(team, tmp_path, busy)
        start(team, tmp_path, busy)
        team.wait(lambda: len(team.said("first")) == 2, 60, "both")
        if sys.platform == "linux":
            assert team.sample() > 0.5
        cost = team.stop()
    assert cost.user_s + cost.system_s > 0.5


def test_an_end_is_noticed_and_explained(tmp_path: Path) -> None:
    with Team() as team:
        start(team, tmp_path, "import sys; sys.exit('the broker is not there')")
        with pytest.raises(ContenderFailed, match=r"(?s)status 1.*the broker is not there"):
            team.wait(lambda: False, 30, "nothing")


def test_a_time_limit(tmp_path: Path) -> None:
    with Team() as team:
        start(team, tmp_path, UNTIL_STOPPED)
        with pytest.raises(ContenderFailed, match="a miracle: not within 0 s"):
            team.wait(lambda: False, 0.1, "a miracle")


def test_who_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_STOP_S", 0.2)
    with Team() as team:
        member = start(team, tmp_path, DEAF)
        await_first(team)
        team.stop()
        assert gone(member.pid)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    """Neither the process nor what it started."""
    nested = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {DEAF!r}], stdout=subprocess.DEVNULL)\n"
        "print('first', child.pid, flush=True)\n"
        "child.wait()\n"
    )
    pids: list[int] = []

    def interrupted() -> None:
        with Team() as team:
            member = start(team, tmp_path, nested)
            await_first(team)
            pids.extend([member.pid, int(team.said("first")[0][1])])
            raise error

    with pytest.raises(error):
        interrupted()
    assert gone(pids[0])
    eventually(lambda: gone(pids[1]) or Path(f"/proc/{pids[1]}/stat").read_text().rpartition(")")[2].split()[0] == "Z")


def test_the_peak_is_not_the_one_of_who_started_it(tmp_path: Path) -> None:
    """Linux hands it down: without care a small process would show the suite's own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    ballast = bytearray(200 << 20)
    with Team() as team:
        start(team, tmp_path, UNTIL_STOPPED)
        await_first(team)
        assert team.stop().peak_bytes < 100 << 20
    assert len(ballast)
