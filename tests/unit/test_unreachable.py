"""A closed port, a name that does not resolve, a listener of another protocol: told apart within three seconds.

With real sockets, and the real client.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner
from streamstate_cli.main import cli

from streamstate import Topology
from streamstate.app import Application, Settings

SOON_S = 3.0
# Of a command, with all that it imports on a busy machine; it would wait 15 s for an answer.
COMMAND_S = 10.0
LONG_S = 30.0
TOPOLOGY = """
from streamstate import Topology
topology = Topology("unreachable")
topology.stream("in").to("out")
"""
MOST_BYTES = 100 << 20


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, and what is said of it."""

    servers: str
    said: str
    properties: tuple[str, ...] = ()


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                with suppress(TimeoutError):
                    connection = server.accept()[0]
                    connection.settimeout(LONG_S)
                    with connection, suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


def speak_tls(connection: socket.socket) -> None:
    with ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(connection, server_side=True) as secured:
        secured.recv(1)


def speak_kafka(connection: socket.socket) -> None:
    """As a broker without TLS: what is no size of a request ends the connection."""
    assert int.from_bytes(connection.recv(4), "big") > MOST_BYTES


@pytest.fixture(params=["closed port", "no such name", "TLS listener", "plain listener"])
def trouble(request: pytest.FixtureRequest) -> Iterator[Trouble]:
    if request.param == "closed port":
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        yield Trouble(f"127.0.0.1:{port}", f"nothing listens at 127.0.0.1:{port} (connection refused). Is it running?")
    elif request.param == "no such name":
        yield Trouble("does-not-exist.invalid:9092", "the host name 'does-not-exist.invalid' does not resolve")
    elif request.param == "TLS listener":
        with listener(speak_tls) as address:
            yield Trouble(address, f"the listener at {address} hangs up on security.protocol=PLAINTEXT")
    else:
        with listener(speak_kafka) as address:
            said = f"the listener at {address} hangs up on security.protocol=SSL"
            yield Trouble(address, said, ("--set", "security.protocol=SSL"))


@pytest.mark.parametrize(
    "command",
    [["topics", "list"], ["topics", "create", "t"], ["produce", "t"], ["consume", "t"], ["feed", "airlines"],
     ["reset", "app.py"]],
    ids=" ".join,
)  # fmt: skip
def test_commands_end_soon_and_say_why(
    command: list[str], trouble: Trouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text(TOPOLOGY, encoding="utf-8")
    begun = monotonic()
    result = CliRunner().invoke(cli, [*command, "--bootstrap-servers", trouble.servers, *trouble.properties])
    assert monotonic() - begun < COMMAND_S
    assert result.exit_code == 4, result.output
    assert trouble.said in result.stderr


def test_an_application_warns_soon_and_goes_on(
    trouble: Trouble, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topology = Topology("unreachable")
    topology.stream("in").to("out")
    kafka = dict(pair.split("=") for pair in trouble.properties[1::2])
    application = Application(topology, Settings(bootstrap_servers=trouble.servers, state_dir=tmp_path, kafka=kafka))
    warned = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and trouble.said in record.getMessage():
                warned.set()

    handler = Heard()
    logging.getLogger("streamstate").addHandler(handler)
    thread = threading.Thread(target=application.run)
    thread.start()
    try:
        assert warned.wait(SOON_S), caplog.text
        assert thread.is_alive()
    finally:
        logging.getLogger("streamstate").removeHandler(handler)
        application.stop()
        thread.join(LONG_S)
    assert not thread.is_alive()


def test_workers_of_a_supervisor_warn_too(trouble: Trouble, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TOPOLOGY, encoding="utf-8")
    command = [sys.executable, "-m", "streamstate_cli", "run", "app.py", "--workers", "2", "--state-dir", "state"]
    command += ["--bootstrap-servers", trouble.servers, *trouble.properties]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMSTATE_")}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment) as process:
        watchdog = threading.Timer(LONG_S, process.kill)
        watchdog.start()
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " WARNING " in line:
                process.send_signal(signal.SIGTERM)
                break
        lines += list(process.stderr)
        watchdog.cancel()
    assert process.returncode == 0, "".join(lines)
    assert [trouble.said in line for line in lines if " WARNING " in line] == [True]
