"""The embedded broker for real: it serves, keeps what it should, survives a kill, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streamstate.broker import EmbeddedBroker, java
from streamstate.broker.jvm import process_identity
from streamstate.broker.node import free_port
from streamstate.errors import BrokerUnavailable, StateDirectoryLocked
from tests.broker_support import eventually

pytestmark = pytest.mark.broker

TIMEOUT = timedelta(seconds=60)
CLI = "from streamstate_cli.broker import broker; broker()"
OWNER = """
import sys, signal
from streamstate.broker import EmbeddedBroker
with EmbeddedBroker() as broker:
    print(broker.pid, broker.log_path, flush=True)
    signal.pause()
"""


def create_topic(bootstrap_servers: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(30)


def produce(bootstrap_servers: str, topic: str, values: list[bytes]) -> None:
    """Produces in one transaction, so that the coordinator and its internal topic are part of what is tested."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": "embedded-broker-test"})
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.commit_transaction(60)


def consume(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    """The first `count` values, read through a consumer group."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "embedded-broker-test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []

    def complete() -> bool:
        for message in consumer.consume(count, timeout=0.5):
            assert message.error() is None, message.error()
            values.append(message.value())
        return len(values) >= count

    try:
        eventually(complete, TIMEOUT, f"{count} records")
    finally:
        consumer.close()
    return values


@pytest.mark.parametrize("find", [java.system_java, java.bundled_java])
def test_a_temporary_broker_serves_and_leaves_nothing(find: Callable[[], Path | None]) -> None:
    executable = find()
    if executable is None:
        pytest.skip("this machine does not have this Java")
    with EmbeddedBroker(java=executable, num_partitions=3) as broker:
        create_topic(broker.bootstrap_servers, "served")
        produce(broker.bootstrap_servers, "served", [b"one", b"two"])
        assert consume(broker.bootstrap_servers, "served", 2) == [b"one", b"two"]
        pid, directory = broker.pid, broker.log_path.parent.parent
        assert "ERROR" not in broker.log_path.read_text(encoding="utf-8")
        assert f"{executable}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes() or sys.platform != "linux"
    assert process_identity(pid) is None
    assert not directory.exists()
    host, port = broker.bootstrap_servers.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_a_kept_directory_survives_stop_and_kill(tmp_path: Path) -> None:
    with EmbeddedBroker(data_dir=tmp_path) as broker:
        address = broker.bootstrap_servers
        create_topic(address, "kept")
        produce(address, "kept", [b"before the kill"])
        first = broker.pid

        os.kill(first, signal.SIGSTOP)  # A kill must also reach a stopped process.
        broker.kill()
        assert process_identity(first) is None
        assert not broker.is_running
        assert broker.bootstrap_servers == address

        broker.restart()
        assert broker.bootstrap_servers == address
        assert broker.pid != first
        produce(address, "kept", [b"after the kill"])

        with pytest.raises(StateDirectoryLocked):
            EmbeddedBroker(data_dir=tmp_path).start()
        assert broker.is_running
    with EmbeddedBroker(data_dir=tmp_path) as again:
        assert consume(again.bootstrap_servers, "kept", 2) == [b"before the kill", b"after the kill"]


def test_a_crash_from_outside_is_noticed_and_repaired() -> None:
    with EmbeddedBroker() as broker:
        address, directory = broker.bootstrap_servers, broker.log_path.parent.parent
        os.kill(broker.pid, signal.SIGKILL)
        assert broker.wait(TIMEOUT)
        assert not broker.is_running
        broker.restart()
        assert broker.bootstrap_servers == address
        create_topic(address, "repaired")
    assert not directory.exists()


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable) as raised:
        EmbeddedBroker(data_dir=tmp_path, properties={"log.cleaner.dedupe.buffer.size": "1"}).start()
    assert "log.cleaner.dedupe.buffer.size" in str(raised.value)
    assert str(tmp_path / "logs") in str(raised.value)


def test_a_broker_does_not_outlive_its_killed_owner() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=child_environment())
    assert owner.stdout is not None
    with owner.stdout as answer:
        pid_text, log_path = answer.readline().split(maxsplit=1)
    pid = int(pid_text)
    directory = Path(log_path.strip()).parent.parent
    assert process_identity(pid) is not None
    owner.kill()
    owner.wait()
    eventually(lambda: process_identity(pid) is None, TIMEOUT, "the broker to end")
    eventually(lambda: not directory.exists(), TIMEOUT, "the temporary directory to go")


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def cli(*arguments: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-c", CLI, *arguments, "--json"],
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "kafka"
    cli("stop", "--data-dir", str(tmp_path / "kafka"))


def test_the_commands_start_find_and_stop_a_broker(directory: Path) -> None:
    port, where = str(free_port()), ("--data-dir", str(directory))
    status, absent, _ = cli("status", *where)
    assert (status, absent["running"]) == (4, False)

    status, started, errors = cli("start", "--port", port, *where)
    assert (status, started.get("started")) == (0, True), errors
    assert started["bootstrap_servers"] == f"127.0.0.1:{port}"

    status, again, errors = cli("start", *where)
    assert (status, again.get("started"), again.get("pid")) == (0, False, started["pid"]), errors

    status, found, _ = cli("status", *where)
    assert (status, found["running"], found["answers"], found["pid"]) == (0, True, True, started["pid"])

    status, _, errors = cli("start", "--port", str(free_port(besides=int(port))), *where)
    assert (status, port in errors) == (2, True)

    status, stopped, _ = cli("stop", *where)
    assert (status, stopped["stopped"], stopped["pid"]) == (0, True, started["pid"])
    assert process_identity(int(str(started["pid"]))) is None
    status, stopped, _ = cli("stop", *where)
    assert (status, stopped["stopped"]) == (0, False)
    assert cli("status", *where)[0] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_broker_in_the_foreground_stops_on_a_signal(directory: Path, number: signal.Signals) -> None:
    port = str(free_port())
    command = [sys.executable, "-c", CLI, "run", "--port", port, "--data-dir", str(directory), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment())
    assert process.stdout is not None
    with process.stdout as answer:
        running = json.loads(answer.readline())
    assert cli("status", "--data-dir", str(directory))[1]["answers"] is True
    process.send_signal(number)
    assert process.wait(60) == 0
    assert process_identity(running["pid"]) is None
    assert cli("status", "--data-dir", str(directory))[0] == 4
