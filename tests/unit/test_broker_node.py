"""A broker's settings, directory lock and error messages; the compose file's agreement with them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streamstate.broker import EmbeddedBroker
from streamstate.broker.jars import load_lock
from streamstate.broker.node import HOST, SETTINGS, Node, free_port
from streamstate.errors import BrokerUnavailable, ConfigError, StateDirectoryLocked
from tests.broker_support import container_environment, container_image

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


def read_settings(node: Node) -> dict[str, str]:
    lines = (node.directory / "server.properties").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_every_listener_is_on_loopback(tmp_path: Path) -> None:
    node = Node(tmp_path, 19092)
    node.write_settings()
    hosts = re.findall(r"//([^:]*):", read_settings(node)["listeners"])
    assert hosts == ["127.0.0.1", "127.0.0.1"]


def test_the_callers_properties_win(tmp_path: Path) -> None:
    node = Node(
        tmp_path,
        19092,
        num_partitions=7,
        properties={"auto.create.topics.enable": "true", "log.retention.ms": "-1"},
    )
    node.write_settings()
    settings = read_settings(node)
    assert settings["auto.create.topics.enable"] == "true"
    assert settings["log.retention.ms"] == "-1"
    assert settings["num.partitions"] == "7"


def test_a_start_begins_with_an_empty_log(tmp_path: Path) -> None:
    node = Node(tmp_path, 19092)
    node.write_settings()
    node.log_path.write_text("Address already in use")
    assert node.port_was_taken()
    node.write_settings()
    assert not node.port_was_taken()
    assert (node.log_path.parent / "server.previous.log").read_text() == "Address already in use"


def test_an_error_quotes_the_telling_lines_and_the_path(tmp_path: Path) -> None:
    node = Node(tmp_path, 19092)
    node.write_settings()
    node.log_path.write_text("12:00 ERROR the cause (kafka)\n\tat some.Class\n" + "12:01 INFO shutting down\n" * 50)
    message = str(node.failure("It ended."))
    assert message.startswith("It ended.")
    assert str(node.log_path) in message
    assert "the cause" in message
    assert "shutting down" not in message
    node.log_path.write_text("12:01 INFO only this\n")
    assert "only this" in str(node.failure("It ended."))


def test_a_directory_has_one_broker(tmp_path: Path) -> None:
    first, second = Node(tmp_path, 19092), Node(tmp_path, 19093)
    refused = pytest.raises(StateDirectoryLocked, match=re.escape(str(tmp_path)))
    with first.claimed(), refused, second.claimed():
        pass
    with second.claimed():
        pass


def test_the_claim_lives_as_long_as_the_process_that_inherits_it(tmp_path: Path) -> None:
    with Node(tmp_path, 19092).claimed() as lock:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    with pytest.raises(StateDirectoryLocked), Node(tmp_path, 19092).claimed():
        pass
    child.kill()
    child.communicate()
    with Node(tmp_path, 19092).claimed():
        pass


def test_a_port_in_use_is_told_before_the_jvm_starts(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        node = Node(tmp_path, listener.getsockname()[1])
        with pytest.raises(BrokerUnavailable, match="another port"):
            node.check_port()
    node.check_port()


def test_free_ports_are_outside_the_range_of_outgoing_connections() -> None:
    assert all(15000 <= free_port() < 32000 for _ in range(20))


@pytest.mark.parametrize("arguments", [{"port": 0}, {"port": 70000}, {"num_partitions": 0}, {"heap_mb": 1}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        EmbeddedBroker(**arguments)  # type: ignore[arg-type]


def test_before_the_start_there_is_no_address() -> None:
    broker = EmbeddedBroker()
    assert not broker.is_running
    for name in ("bootstrap_servers", "pid", "log_path"):
        with pytest.raises(ConfigError, match=r"start\(\)"):
            getattr(broker, name)
    broker.stop()


def test_a_failed_start_leaves_no_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        with pytest.raises(BrokerUnavailable, match="another port"):
            EmbeddedBroker(port=listener.getsockname()[1]).start()
    assert os.listdir(tmp_path) == []


def test_the_compose_file_runs_the_same_version_with_the_same_settings() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    assert f"image: {container_image()}" in text
    assert load_lock().kafka_version in container_image()
    assert '"127.0.0.1:9092:9092"' in text
    written = dict(re.findall(r'^ +(KAFKA_\w+): "(.*)"$', text, re.MULTILINE))
    assert written == container_environment(9092, {})
    assert len(written) > len(SETTINGS)
