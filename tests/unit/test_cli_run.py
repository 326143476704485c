"""``streamstate run`` without Kafka: what stands on stdout, how it ends, what reaches the application."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import streamstate_cli.run as module
from click.testing import CliRunner, Result
from streamstate_cli.main import cli

from streamstate import BrokerUnavailable, ConfigError, TopologyError
from streamstate.app import Settings
from streamstate.engine.assign.restore import RestoreProgress
from streamstate.engine.metrics import WorkerStatus
from streamstate.errors import ProcessingError

STATUS = WorkerStatus(1, 2, 3, 4, 5, 6, 7, 8, {"a_0": "running"}, RestoreProgress(0, 0, 0, None))
TOPOLOGY = 'from streamstate import Topology\nprint("from the topology")\ntopology = Topology("t")\n' + (
    'topology.stream("lines").to("copy")\n'
)


class Ran:
    """Stands for ``streamstate.app.run``."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.does: Callable[[], None] = lambda: None

    def __call__(self, graph: Any, settings: Settings, on_status: Callable[[WorkerStatus], None]) -> None:
        self.settings = settings
        on_status(STATUS)
        self.does()
        on_status(STATUS)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ran]:
    found = Ran()
    monkeypatch.setattr(module, "run_application", found)
    for name in list(os.environ):
        if name.startswith("STREAMSTATE_"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A topology's file; neither its module nor its folder stays behind for other tests."""
    known, searched = set(sys.modules), list(sys.path)
    file = tmp_path / "counts.py"
    file.write_text(TOPOLOGY)
    yield str(file)
    sys.path[:] = searched
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) == str(file.resolve()):
            del sys.modules[name]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["run", *arguments])


def events(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_events_are_all_there_is_on_stdout(ran: Ran, path: str) -> None:
    ran.does = lambda: print("from an operator")
    result = run(path, "--json")
    assert result.exit_code == 0
    told = events(result)
    assert [event["event"] for event in told] == ["started", "status", "status", "stopped"]
    assert {(event["worker"], event["pid"]) for event in told} == {(0, os.getpid())}
    assert told[0]["application_id"] == "t"
    assert told[1]["tasks"] == {"a_0": "running"}
    assert told[1]["processed"] == 1
    assert told[-1]["exit_code"] == 0
    assert "from the topology\n" in result.stderr
    assert "from an operator\n" in result.stderr


def test_without_json_stdout_belongs_to_the_topology(ran: Ran, path: str) -> None:
    result = run(path)
    assert result.stdout == "from the topology\n"
    assert "application t, Kafka at localhost:9092" in result.stderr
    assert "in 1 " in result.stderr


@pytest.mark.parametrize("kind", [ConfigError, TopologyError, BrokerUnavailable, ProcessingError])
@pytest.mark.parametrize("as_json", [True, False])
def test_an_error_is_said_once_and_gives_its_exit_code(ran: Ran, path: str, kind: Any, as_json: bool) -> None:
    def fail() -> None:
        raise kind("what happened")

    ran.does = fail
    result = run(path, *(["--json"] if as_json else []))
    assert result.exit_code == kind.exit_code
    assert result.stderr.count("Error: what happened") == 1
    assert "Traceback" not in result.stderr
    if as_json:
        last = events(result)[-1]
        assert (last["event"], last["error"], last["message"], last["exit_code"]) == (
            "error", kind.__name__, "what happened", kind.exit_code,
        )  # fmt: skip


def test_a_bug_is_told_as_an_event_and_raised(ran: Ran, path: str) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    ran.does = fail
    result = run(path, "--json")
    assert isinstance(result.exception, RuntimeError)
    assert (events(result)[-1]["event"], events(result)[-1]["exit_code"]) == ("error", 1)


def test_settings_reach_the_application(ran: Ran, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "app.toml"
    file.write_text('commit_interval = "3s"\ncache_size = "1MiB"\nbroker_timeout = "1m"\n')
    monkeypatch.setenv("STREAMSTATE_COMMIT_INTERVAL", "2s")
    monkeypatch.setenv("STREAMSTATE_BROKER_TIMEOUT", "2m")
    monkeypatch.setenv("STREAMSTATE_KAFKA_SASL_PASSWORD", "hunter2")
    result = run(path, "--config", str(file), "--commit-interval", "1s", "--set", "client.rack=a", "--instance-id", "i")
    assert result.exit_code == 0, result.output
    assert ran.settings is not None
    assert ran.settings.commit_interval == timedelta(seconds=1)
    assert ran.settings.broker_timeout == timedelta(minutes=2)
    assert ran.settings.cache_bytes == 1 << 20
    assert ran.settings.kafka == {"client.rack": "a", "sasl.password": "hunter2"}
    assert ran.settings.instance_id == "i"
    assert "hunter2" not in result.output


def test_the_file_may_be_named_in_the_environment(
    ran: Ran, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.toml").write_text('application_id = "from-file"')
    monkeypatch.setenv("STREAMSTATE_CONFIG", str(tmp_path / "app.toml"))
    assert run(path).exit_code == 0
    assert ran.settings is not None
    assert ran.settings.application_id == "from-file"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--commit-interval", "soon"], "--commit-interval: 'soon' is not a duration"),
        (["--workers", "none"], "--workers: 'none' must be a whole number"),
        (["--config", "no.toml"], "no.toml cannot be read: No such file"),
        (["--group-protocol", "old"], "'old' is not one of 'classic', 'consumer'"),
        (["--set", "sasl.password"], "'sasl.password' is not of the form key=value"),
        (["--log-level", "loud"], "'loud' is not one of"),
    ],
)
def test_what_is_refused_ends_with_2(ran: Ran, path: str, arguments: list[str], message: str) -> None:
    result = run(path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert ran.settings is None


def test_a_malformed_property_does_not_show_its_value(ran: Ran, path: str) -> None:
    result = run(path, "--set", "=hunter2")
    assert result.exit_code == 2
    assert "hunter2" not in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_application_listens_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """While the topology is being imported, for example."""
    file = tmp_path / "slow.py"
    file.write_text('import signal\nprint("importing", flush=True)\nsignal.pause()\n')
    command = [sys.executable, "-m", "streamstate_cli", "run", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_signal_handlers_are_put_back(ran: Ran, path: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    ran.does = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert run(path).exit_code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_several_workers_get_their_settings_by_a_pipe(ran: Ran, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    class Fake:
        def __init__(self, count: int, command: list[str], order: Callable[[int], Any], *args: Any, **kw: Any) -> None:
            made.update(count=count, command=command, order=order)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(module, "Supervisor", Fake)
    secret = ["--set", "sasl.password=hunter2"]
    result = run(path, "--workers", "3", "--instance-id", "node", "--cache-size", "1k", *secret)
    assert result.exit_code == 0, result.output
    assert made["count"] == 3
    assert made["command"][0] == sys.executable
    assert ["-m", "streamstate_cli", "run", path] == [word for word in made["command"][1:] if word != "-P"][:4]
    assert "hunter2" not in str(made["command"])
    order = json.loads(json.dumps(made["order"](2)))
    assert order["properties"] == {"sasl.password": "hunter2"}
    flags = {name: value for name, value in order["flags"].items() if value is not None}
    assert flags == {"workers": "1", "instance_id": "node-2", "cache_size": "1k"}
    assert "from the topology" not in result.output, "the supervisor need not import the topology"


def test_the_supervisors_exit_code_is_the_commands(ran: Ran, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Supervisor, "run", lambda self: 3)
    assert run(path, "--workers", "2").exit_code == 3


def fails() -> None:
    """As a function of a topology fails: what it raised is the cause of what ends the process."""
    try:
        raise KeyError("dest")  # the line of the user's code
    except KeyError as error:
        raise ProcessingError("task lines_0: operator 'lines.map' failed: KeyError('dest')") from error


@pytest.mark.parametrize("arguments", [(), ("--debug",)])
def test_an_error_is_one_message_and_with_debug_its_traceback_too(
    ran: Ran, path: str, arguments: tuple[str, ...]
) -> None:
    ran.does = fails
    result = run(path, *arguments)
    assert result.exit_code == ProcessingError.exit_code
    assert "Error: task lines_0: operator 'lines.map' failed: KeyError('dest')" in result.stderr
    traced = "Traceback (most recent call last):" in result.stderr
    assert traced is bool(arguments)
    assert ("the line of the user's code" in result.stderr) is bool(arguments)
    # The message comes last, where people look.
    assert result.stderr.rstrip().splitlines()[-1].startswith("Error: ")


def test_debug_before_the_command_means_the_same(ran: Ran, path: str) -> None:
    ran.does = fails
    result = CliRunner().invoke(cli, ["--debug", "run", path])
    assert "the line of the user's code" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("--debug",)])
def test_workers_are_told_to_debug(
    ran: Ran, path: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    class Stands:
        def __init__(self, workers: int, command: list[str], *more: Any, **named: Any) -> None:
            commands.append(command)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(module, "Supervisor", Stands)
    assert run(path, "--workers", "2", *arguments).exit_code == 0
    assert ("--debug" in commands[0]) is bool(arguments)
