"""Where our worker spends its time: ``python -m benchmarks --profile WORKLOAD``, or ``make profile WORKLOAD=...``.

Rule of this module: the profiled process is the very one that the suite measures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.process import Running, Team
from benchmarks.progress import Observer
from benchmarks.runs import Bench, place, start
from benchmarks.workloads import Case
from streamstate.errors import ConfigError

__all__ = ["profiler", "run_profile"]

_RATE = 250
_END_S = 60


def profiler() -> str:
    """The profiler's executable.

    Raises:
        ConfigError: it is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ConfigError("py-spy is not installed; run: pip install 'streamstate[bench]'")
    return found


def run_profile(bench: Bench, case: Case, target: Path, *, native: bool) -> Path:
    """Run a throughput case once with our worker and draw a flame graph of it.

    Args:
        target: the SVG file.
        native: also look into C code, which is slower and needs symbols to be of use.

    Returns:
        The file.

    Raises:
        ConfigError: the profiler is not installed, or the workload is none of throughput.
    """
    if case.workload.kind != "throughput":
        raise ConfigError(f"workload {case.workload.name} has no throughput to profile; see --list")
    program = profiler()
    contender = CONTENDERS[OURS]
    reason = contender.missing(case.workload.work)
    if reason is not None:
        raise ConfigError(reason)
    topics = bench.inputs.topics(case.workload.inputs, bench.records)
    target.parent.mkdir(parents=True, exist_ok=True)
    with place(bench, case, contender) as at, Team() as team:
        observer = Observer(bench.servers, at.application_id, topics)
        try:
            start(team, bench, case, contender, at, inputs=topics)
            # Starting up is of no interest.
            team.wait(lambda: bool(team.said("first")), bench.limit_s(bench.records), "the first record")
            recording = _record(program, team.members[0], target, native)
            try:
                observer.follow(team, bench.limit_s(observer.total))
            finally:
                # It ends with what it watches; until then it would draw an idle worker.
                team.stop()
                _, errors = recording.communicate(timeout=_END_S)
        finally:
            observer.close()
    if not target.exists():
        raise ConfigError(f"py-spy wrote nothing: {errors.decode('utf-8', 'replace').strip()}")
    return target


def _record(program: str, member: Running, target: Path, native: bool) -> subprocess.Popen[bytes]:
    command = [program, "record", "--pid", str(member.pid), "--output", str(target)]
    command += ["--format", "flamegraph", "--rate", str(_RATE), "--duration", "3600", "--gil"]
    if native:
        command[-1:] = ["--native"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
