"""``make test``: its steps, and what becomes of one that fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.broker_support import eventually
from tests.checks import COMPUTING, WAITING, Checks

ROOT = Path(__file__).parents[2]
# Stands for make: its targets are the steps of the tests below.
STEPS = """
test "$1" = --no-print-directory && shift
case $1 in
  says) echo one; sleep 0.1; echo two ;;
  fails) echo broken; exit 3 ;;
  asks) mkfifo there 2>/dev/null; read answer < there; echo "heard $answer" ;;
  answers) mkfifo there 2>/dev/null; echo hello > there ;;
  lasts) echo $$ > pid; exec sleep 100 ;;
  *) echo "$1" >> ran ;;
esac
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("make").write_text(f"#!/bin/sh\n{STEPS}")
    Path("make").chmod(0o755)
    return [str(tmp_path / "make")]


def test_every_step_runs_and_those_that_fail_are_named(make: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    under_test = Checks(make)
    assert under_test.run([(["fails", "first"], 0), (["second", "fails"], 1)]) == 2
    assert under_test.failed == ["fails", "fails"]
    assert sorted(Path("ran").read_text().split()) == ["first", "second"]
    assert "broken\n-- fails failed with 3" in capfd.readouterr().out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_step_that_cannot_be_started_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert Checks([str(tmp_path)]).run([(["one", "two"], 0), (["three"], 0)]) == 3


def test_rows_run_beside_each_other_and_their_output_is_not_mixed(
    make: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert Checks(make).run([(["asks", "says"], 0), (["says", "answers"], 5)]) == 0
    out = capfd.readouterr().out
    assert "heard hello\n-- asks passed" in out
    assert out.count("one\ntwo\n-- says passed") == 2


def test_what_runs_ends_with_ctrl_c(make: list[str]) -> None:
    code = "import sys; from tests import checks; checks.WAITING = ('lasts',); sys.exit(checks.main())"
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "MAKE": make[0], "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: Path("pid").exists() and Path("pid").read_text(), timedelta(seconds=30), "the step")
    step = int(Path("pid").read_text())
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=30)[1] == "\nInterrupted.\n"
    assert program.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)


def test_the_steps_are_the_checks_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {*WAITING, *COMPUTING} <= targets
    # What a developer may run by itself is what runs in all.
    described = set(re.findall(r"^\| `make ([a-z-]+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M))
    assert {*WAITING, *COMPUTING} == described
