"""What a running application tells programs and people."""

from __future__ import annotations

import io
import json
import logging
import os
from typing import Any

import pytest
from rich.console import Console
from streamstate_cli.events import Event, JsonReporter, LiveReporter, LogReporter, Summary, status_fields
from streamstate_cli.logs import configure_logging

from streamstate.engine.assign.restore import RestoreProgress
from streamstate.engine.metrics import WorkerStatus


def status(worker: int = 0, pid: int = 100, **fields: Any) -> Event:
    numbers = {"processed": 0, "sent": 0, "committed": 0, "failed": 0, "dropped": 0, "rollbacks": 0, "commits": 0}
    restore = {"stores": 0, "records": 0, "remaining": 0, "eta_ms": None}
    event = {"event": "status", "worker": worker, "pid": pid, "time_ms": 0, "lag": 0, "tasks": {}, "restore": restore}
    return {**event, **numbers, **fields}


def told(name: str, worker: int = 0, pid: int = 100, **fields: Any) -> Event:
    return {"event": name, "worker": worker, "pid": pid, "time_ms": 0, **fields}


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def test_status_fields_are_plain_values() -> None:
    progress = RestoreProgress(stores=1, records=5, remaining=7, eta_ms=None)
    fields = status_fields(WorkerStatus(1, 2, 3, 4, 5, 6, 7, 8, {"a_0": "running"}, progress))
    assert fields["restore"] == {"stores": 1, "records": 5, "remaining": 7, "eta_ms": None}
    assert json.loads(json.dumps(fields)) == fields
    # What the summary adds up must be there.
    Summary().take({**told("status"), **fields})


def test_json_is_one_object_per_line() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream, on_closed=lambda: pytest.fail("nobody closed it"))
    reporter.emit(told("started"))
    reporter.emit(told("error", message="two\nlines"))
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["started", "error"]


def test_a_reader_that_goes_away_is_told_once_and_nothing_fails_later() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    closed: list[bool] = []
    stream = os.fdopen(writing, "w")
    reporter = JsonReporter(stream, on_closed=lambda: closed.append(True))
    reporter.emit(told("started"))
    reporter.emit(told("stopped"))
    assert closed == [True]
    stream.close()


def test_a_line_for_people() -> None:
    clock = Clock()
    summary = Summary(clock)
    tasks = {"a_0": "running", "a_1": "restoring", "a_2": "running"}
    restore = {"stores": 1, "records": 1, "remaining": 12_000, "eta_ms": 2_600}
    summary.take(status(processed=1_500, sent=3_000, lag=20, tasks=tasks, restore=restore))
    clock.now += 2
    summary.measure()
    assert summary.line() == (
        "in 1,500 (750/s), out 3,000, lag 20, tasks 1 restoring, 2 running (12,000 to restore, about 3 s left)"
    )
    summary.take(status(processed=2_000, sent=4_000, failed=1, rollbacks=2, tasks={"a_0": "running"}))
    clock.now += 1
    summary.measure()
    assert summary.line() == "in 2,000 (500/s), out 4,000, lag 0, tasks 1 running, failed 1, rollbacks 2"


def test_workers_add_up_and_a_successor_goes_on_from_its_predecessor() -> None:
    summary = Summary(Clock())
    summary.take(status(0, 100, processed=10, lag=5, tasks={"a_0": "running"}))
    summary.take(status(1, 101, processed=20, lag=6, tasks={"a_1": "running"}))
    assert summary.total("processed") == 30
    assert summary.worker_line(1) == "worker 1  pid 101  in 20, lag 6, tasks 1 running"
    summary.take(told("worker_exited", 1, 101, exit_code=-9, restart_in_ms=500))
    assert summary.worker_line(1) == "worker 1  pid 101  ended"
    assert summary.line().startswith("in 30 (0/s), out 0, lag 5, tasks 1 running")
    summary.take(told("worker_started", 1, 102))
    summary.take(told("started", 1, 102))
    assert summary.worker_line(1) == "worker 1  pid 102  starting"
    summary.take(status(1, 102, processed=7))
    assert summary.total("processed") == 37


def test_log_lines_come_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    reporter = LogReporter(clock)
    for second in range(11):
        reporter.emit(status(processed=second * 100))
        clock.now += 1
    reporter.close()
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split(",")[0] for text in texts] == ["in 0 (0/s)", "in 500 (100/s)", "in 1", "ended: 1"]
    assert texts[-1] == "ended: 1,000 records in, 0 out"


def test_nothing_is_said_about_numbers_when_there_were_none(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    LogReporter(Clock()).close()
    assert not caplog.records
    reporter = LiveReporter(Console(file=io.StringIO(), force_terminal=True))
    reporter.emit(told("error"))
    reporter.close()
    assert capsys.readouterr().err == ""


def test_the_live_display_shows_every_worker(capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    reporter = LiveReporter(Console(file=screen, force_terminal=True, width=120))
    reporter.emit(status(0, 100, processed=10))
    assert "worker 0" not in screen.getvalue()
    reporter.emit(status(1, 101, processed=20))
    reporter.close()
    assert "in 30" in screen.getvalue()
    assert "worker 0  pid 100  in 10" in screen.getvalue()
    assert "worker 1  pid 101  in 20" in screen.getvalue()
    assert capsys.readouterr().err == "ended: 30 records in, 0 out\n"


@pytest.fixture
def restored_logging() -> Any:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
def test_log_lines_have_time_level_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "worker 1")
    client = logging.getLogger("streamstate.librdkafka")
    client.warning("CONFWARN [x#producer-1] [thrd:app]: Configuration property fetch.min.bytes is a consumer property")
    client.warning("FAIL [x#producer-1] [thrd:app]: connection refused")
    client.debug("below the level")
    [line] = capsys.readouterr().err.splitlines()
    date, time, level, rest = line.split(maxsplit=3)
    assert (len(date), len(time), level) == (10, 12, "WARNING")
    assert rest.startswith("streamstate.librdkafka [worker 1]: FAIL")
