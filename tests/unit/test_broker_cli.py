"""The broker commands without a broker: help, exit codes, JSON."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from streamstate_cli.broker import broker


@pytest.mark.parametrize("command", [[], ["start"], ["status"], ["stop"], ["run"]])
def test_help_has_examples(command: list[str]) -> None:
    result = CliRunner().invoke(broker, [*command, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert "streamstate broker" in result.output


def test_status_without_a_broker(tmp_path: Path) -> None:
    result = CliRunner().invoke(broker, ["status", "--json", "--data-dir", str(tmp_path)])
    assert result.exit_code == 4
    assert json.loads(result.stdout) == {"data_dir": str(tmp_path), "running": False, "answers": False}
    result = CliRunner().invoke(broker, ["status", "--data-dir", str(tmp_path)])
    assert result.exit_code == 4
    assert "streamstate broker start" in result.output


def test_stop_without_a_broker_is_no_failure(tmp_path: Path) -> None:
    result = CliRunner().invoke(broker, ["stop", "--json", "--data-dir", str(tmp_path)])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"data_dir": str(tmp_path), "stopped": False}


@pytest.mark.parametrize("command", ["start", "run"])
def test_an_error_of_the_library_gives_its_exit_code_and_message(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(broker, [command, "--java", str(tmp_path / "no"), "--data-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "not a Java that runs" in result.stderr
    assert "Traceback" not in result.output


def test_a_property_needs_a_value(tmp_path: Path) -> None:
    result = CliRunner().invoke(broker, ["start", "--set", "log.retention.ms", "--data-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "key=value" in result.output


def test_a_port_in_use_ends_with_the_brokers_exit_code(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        result = CliRunner().invoke(broker, ["start", "--port", port, "--data-dir", str(tmp_path)])
    assert result.exit_code == 4
    assert port in result.stderr
