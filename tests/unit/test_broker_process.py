"""No process is left behind and no stranger is signalled: guard, process identity, state file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from streamstate.broker import daemon
from streamstate.broker.jvm import Jvm, launch_detached, process_identity
from tests.broker_support import eventually

TIMEOUT = timedelta(seconds=20)
# Stands for the JVM: says that it is ready, then stays until it is signalled.
STAYS = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
OWNER = """
import os, sys, threading, signal
from pathlib import Path
from streamstate.broker.jvm import Jvm
console, remove, forked = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "forked"
jvm = Jvm([sys.executable, "-c", sys.argv[4]], environment=dict(os.environ), console=console, inherited=2,
          remove_after_crash=remove)
child = os.fork() if forked else 0
if forked and child == 0:
    signal.pause()
print(jvm.pid, jvm._guard.pid, child, flush=True)
signal.pause()
"""


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def start(tmp_path: Path, program: str = STAYS) -> Jvm:
    console = tmp_path / "console"
    jvm = Jvm(
        [sys.executable, "-c", program],
        environment=dict(os.environ),
        console=console,
        inherited=2,
        remove_after_crash=None,
    )
    eventually(lambda: "ready" in console.read_text(), TIMEOUT, "the child to start")
    return jvm


def is_gone(pid: int) -> bool:
    return process_identity(pid) is None


def test_stop_terminates(tmp_path: Path) -> None:
    jvm = start(tmp_path)
    assert jvm.is_alive()
    jvm.stop(20)
    assert not jvm.is_alive()
    assert is_gone(jvm.pid)
    jvm.stop(20)
    jvm.kill()


def test_stop_kills_after_its_bound(tmp_path: Path) -> None:
    jvm = start(tmp_path, STUBBORN)
    jvm.stop(0.1)
    assert is_gone(jvm.pid)


def test_a_child_that_ended_by_itself_is_noticed(tmp_path: Path) -> None:
    jvm = start(tmp_path)
    os.kill(jvm.pid, signal.SIGKILL)
    assert jvm.wait(20)
    assert not jvm.is_alive()


def test_a_command_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    jvm = Jvm(
        [str(tmp_path / "nothing")],
        environment={},
        console=tmp_path / "console",
        inherited=2,
        remove_after_crash=None,
    )
    assert jvm.wait(20)
    assert "cannot run" in (tmp_path / "console").read_text()
    jvm.kill()


def test_the_child_survives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[Jvm] = []
    thread = threading.Thread(target=lambda: started.append(start(tmp_path)))
    thread.start()
    thread.join()
    assert not started[0].wait(0.7)  # Longer than the guard's own interval.
    started[0].kill()


@pytest.fixture
def owner(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], list[int], Path]]:
    """A process that owns a guarded child, its pids (child, guard, fork), and the directory to remove."""
    forked, program = request.param
    removed = tmp_path / "removed"
    removed.mkdir()
    (removed / "file").touch()
    console = tmp_path / "console"
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(console), str(removed), forked, program],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    eventually(lambda: "ready" in console.read_text(), TIMEOUT, "the child to start")
    identities = {pid: process_identity(pid) for pid in pids if pid}
    yield process, pids, removed
    process.kill()
    process.wait()
    process.stdout.close()
    # A test that failed may have left any of them.
    for pid, identity in identities.items():
        if identity is not None and process_identity(pid) == identity:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("owner", [("alone", STAYS), ("forked", STAYS), ("alone", STUBBORN)], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_when_the_owner_is_killed(
    owner: tuple[subprocess.Popen[str], list[int], Path], number: signal.Signals
) -> None:
    process, (child, guard, _), removed = owner
    assert not is_gone(child)
    process.send_signal(number)
    process.wait()
    eventually(lambda: is_gone(child) and is_gone(guard), TIMEOUT, "child and guard to end")
    assert not removed.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent")
@pytest.mark.parametrize("owner", [("alone", STUBBORN)], indirect=True)
def test_no_orphan_when_the_guard_is_killed(owner: tuple[subprocess.Popen[str], list[int], Path]) -> None:
    _, (child, guard, _), _ = owner
    os.kill(guard, signal.SIGKILL)
    eventually(lambda: is_gone(child), TIMEOUT, "the child to end")


def test_a_detached_child_outlives_its_launcher(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from streamstate.broker.jvm import launch_detached;"
        "print(launch_detached([sys.executable, '-c', sys.argv[2]], environment=dict(os.environ),"
        "console=Path(sys.argv[1]), inherited=2))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "console"), STAYS]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=child_environment(), check=True)
    pid = int(done.stdout)
    eventually(lambda: "ready" in (tmp_path / "console").read_text(), TIMEOUT, "the child to start")
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_gone(pid), TIMEOUT, "the child to end")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait()


def test_identity_tells_live_processes_apart(stranger: subprocess.Popen[bytes]) -> None:
    mine = process_identity(os.getpid())
    assert mine is not None
    assert mine == process_identity(os.getpid())
    assert process_identity(stranger.pid) not in (None, mine)


def test_a_process_that_ended_has_no_identity(stranger: subprocess.Popen[bytes]) -> None:
    stranger.kill()
    # Not yet waited for: the id still exists, the process does not.
    eventually(lambda: process_identity(stranger.pid) is None, TIMEOUT, "the end of the process")
    stranger.wait()
    assert process_identity(stranger.pid) is None


def test_a_recorded_process_is_found(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    recorded = daemon.record(tmp_path, stranger.pid, 19092)
    assert daemon.find(tmp_path) == recorded
    assert recorded.bootstrap_servers == "127.0.0.1:19092"
    stranger.kill()
    stranger.wait()
    assert daemon.find(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": 1}', "null"])
def test_a_damaged_state_file_is_no_broker(tmp_path: Path, content: str) -> None:
    (tmp_path / "broker.json").write_text(content)
    assert daemon.find(tmp_path) is None


def test_a_directory_without_state_is_no_broker(tmp_path: Path) -> None:
    assert daemon.find(tmp_path) is None
    assert daemon.find(tmp_path / "nowhere") is None


def test_stop_never_signals_a_process_that_got_the_id_later(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    daemon.record(tmp_path, stranger.pid, 19092)
    state = tmp_path / "broker.json"
    identity = process_identity(stranger.pid)
    assert identity is not None
    state.write_text(state.read_text().replace(identity, "another process"))
    assert daemon.find(tmp_path) is None
    assert daemon.stop(tmp_path) is None
    assert stranger.poll() is None
    assert not state.exists()


def test_stop_ends_a_process_that_ignores_sigterm(tmp_path: Path) -> None:
    console = tmp_path / "console"
    pid = launch_detached([sys.executable, "-c", STUBBORN], environment=dict(os.environ), console=console, inherited=2)
    eventually(lambda: "ready" in console.read_text(), TIMEOUT, "the child to start")
    daemon.record(tmp_path, pid, 19092)
    stopped = daemon.stop(tmp_path, timeout=timedelta(seconds=0.1))
    assert stopped is not None
    assert stopped.pid == pid
    assert is_gone(pid)
