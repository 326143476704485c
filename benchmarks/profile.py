"""Where our worker spends its time: ``python -m benchmarks --profile WORKLOAD``, or ``make profile WORKLOAD=...``.

Rule of this module: the profiled process is the very one that the suite measures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.process import Running, Team
from benchmarks.progress import Observer
from benchmarks.restore import Restores
from benchmarks.runs import Bench, place, start
from benchmarks.workloads import Case
from streamstate.errors import ConfigError

__all__ = ["profiler", "run_profile"]

# Begins to watch a process.
Recording = Callable[[Running], subprocess.Popen[bytes]]

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
    """Run a case of throughput or restore once with our worker and draw a flame graph of it.

    Args:
        target: the SVG file.
        native: also look into C code, which is slower and needs symbols to be of use.

    Returns:
        The file.

    Raises:
        ConfigError: the profiler is not installed or does not end, or the workload is none of throughput or restore.
    """
    program = profiler()
    contender = CONTENDERS[OURS]
    reason = contender.missing(case.workload.work)
    if reason is not None:
        raise ConfigError(reason)
    target.parent.mkdir(parents=True, exist_ok=True)

    def record(member: Running) -> subprocess.Popen[bytes]:
        return _record(program, member, target, native)

    match case.workload.kind:
        case "throughput":
            errors = _throughput(bench, case, contender, record)
        case "restore":
            errors = _restore(bench, case, contender, record)
        case _:
            raise ConfigError(f"workload {case.workload.name} has nothing to profile; see --list")
    if not target.exists():
        raise ConfigError(f"py-spy wrote nothing: {errors}")
    return target


def _throughput(bench: Bench, case: Case, contender: Contender, record: Recording) -> str:
    topics = bench.inputs.topics(case.workload.inputs, bench.records)
    with place(bench, case, contender) as at, Team() as team:
        observer = Observer(bench.servers, at.application_id, topics)
        try:
            start(team, bench, case, contender, at, inputs=topics)
            # Starting up is of no interest.
            team.wait(lambda: bool(team.said("first")), bench.limit_s(bench.records), "the first record")
            recording = record(team.members[0])
            try:
                observer.follow(team, bench.limit_s(observer.total))
            finally:
                # It ends with what it watches; until then it would draw an idle worker.
                team.stop()
                errors = _ended(recording)
        finally:
            observer.close()
    return errors


def _restore(bench: Bench, case: Case, contender: Contender, record: Recording) -> str:
    recordings: list[subprocess.Popen[bytes]] = []

    def watch(team: Team) -> None:
        team.wait(lambda: bool(team.said("restore-start")), bench.limit_s(0), "the restore")
        recordings.append(record(team.members[0]))

    with Restores(bench, bench.records) as restores:
        try:
            restores.run(case, contender, watch)
        finally:
            errors = "".join(_ended(recording) for recording in recordings)
    return errors


def _ended(recording: subprocess.Popen[bytes]) -> str:
    """What the profiler says at its end, which is that of the process it watches."""
    try:
        _, errors = recording.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        recording.kill()
        recording.communicate()
        raise ConfigError(f"py-spy did not end within {_END_S} s of the process that it watched; try again") from None
    return errors.decode("utf-8", "replace").strip()


def _record(program: str, member: Running, target: Path, native: bool) -> subprocess.Popen[bytes]:
    command = [program, "record", "--pid", str(member.pid), "--output", str(target)]
    command += ["--format", "flamegraph", "--rate", str(_RATE), "--duration", "3600"]
    # Without stopping the process for each sample: now and then py-spy does not let go of a thread that it has stopped.
    # C code cannot be looked into without.
    command += ["--native"] if native else ["--gil", "--nonblocking"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
