"""Brokers that outlive the command that started them, as ``streamstate broker start`` does.

Rule of this module: the file ``broker.json`` in the data directory says where a broker should be; whether it is
there is asked of the system (the process with that id *and* start time) and of the broker (a metadata request).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import platformdirs

from streamstate.broker import jars
from streamstate.broker.java import find_java
from streamstate.broker.jvm import launch_detached, process_identity
from streamstate.broker.node import HOST, Node, environment
from streamstate.errors import BrokerUnavailable, ConfigError

__all__ = ["DEFAULT_PORT", "Daemon", "default_directory", "find", "forget", "record", "start", "stop"]

DEFAULT_PORT = 9092

_STATE_NAME = "broker.json"
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running broker process.

    Attributes:
        pid: of the JVM.
        identity: what tells this process from a later one with the same id.
        port: of the Kafka listener on 127.0.0.1.
        directory: its data directory.
    """

    pid: int
    identity: str
    port: int
    directory: str

    @property
    def bootstrap_servers(self) -> str:
        """The address clients connect to."""
        return f"{HOST}:{self.port}"

    @property
    def log_path(self) -> Path:
        """Kafka's log file."""
        return self._node().log_path

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return process_identity(self.pid) == self.identity

    def answers(self, timeout: timedelta = timedelta(seconds=5)) -> bool:
        """Whether this very broker answers a metadata request within `timeout`."""
        return self._node().answers(timeout.total_seconds())

    def _node(self) -> Node:
        return Node(Path(self.directory), self.port)


def default_directory() -> Path:
    """Where a broker keeps its data by default, e.g. ``~/.local/share/streamstate/broker`` on Linux."""
    return Path(platformdirs.user_data_dir("streamstate", appauthor=False)) / "broker"


def find(directory: Path) -> Daemon | None:
    """The broker process that runs on this data directory, or None, also when the state file is stale."""
    try:
        daemon = Daemon(**json.loads((directory / _STATE_NAME).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    return daemon if daemon.is_alive() else None


def record(directory: Path, pid: int, port: int) -> Daemon:
    """Writes the state file of a running broker.

    Raises:
        BrokerUnavailable: there is no such process.
    """
    identity = process_identity(pid)
    if identity is None:
        raise Node(directory, port).failure("The embedded broker ended while it started.")
    daemon = Daemon(pid, identity, port, str(directory))
    fresh = directory / f"{_STATE_NAME}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(daemon), indent=2) + "\n", encoding="utf-8")
    fresh.replace(directory / _STATE_NAME)
    return daemon


def forget(directory: Path) -> None:
    """Deletes the state file."""
    (directory / _STATE_NAME).unlink(missing_ok=True)


def start(
    directory: Path,
    *,
    port: int | None = None,
    num_partitions: int = 1,
    heap_mb: int = 512,
    java: str | None = None,
    properties: Mapping[str, str] | None = None,
    start_timeout: timedelta = timedelta(seconds=60),
) -> tuple[Daemon, bool]:
    """Starts a broker that stays, or finds the one that runs on this directory; returns when it answers.

    Args:
        directory: its data directory, kept for the next start.
        port: of the Kafka listener on 127.0.0.1; by default that of the running broker, else `DEFAULT_PORT`.
        num_partitions: of topics that are created without a count.
        heap_mb: the JVM's largest heap in MiB.
        java: the Java executable; found by default.
        properties: further broker settings.
        start_timeout: how long to wait for the first metadata answer.

    Returns:
        The broker, and whether this call started it.

    Raises:
        BrokerUnavailable: it ended while starting or does not answer.
        ConfigError: no Java or no jars, or a broker runs there on another port.
        StateDirectoryLocked: another process is starting a broker there, or runs an embedded one.
    """
    timeout_s = start_timeout.total_seconds()
    directory = directory.absolute()
    running = find(directory)
    if running is not None:
        if port not in (None, running.port):
            raise ConfigError(
                f"A broker with the data directory {directory} already runs on port {running.port}, not {port}. "
                "Use that port, stop it first, or choose another --data-dir."
            )
        running._node().wait_until_ready(running.is_alive, timeout_s)
        return running, False
    executable = find_java(java)
    class_path = jars.ensure()
    deadline = time.monotonic() + timeout_s
    port = port or DEFAULT_PORT
    prepared = Node(directory, port, heap_mb, num_partitions, dict(properties or {}))
    with prepared.claimed() as lock:
        prepared.check_port()
        prepared.write_settings()
        prepared.format_storage(executable, class_path)
        pid = launch_detached(
            prepared.server_command(executable),
            environment=environment(class_path),
            console=prepared.console_path,
            inherited=lock,
        )
    daemon: Daemon | None = None
    try:
        daemon = record(directory, pid, port)
        prepared.wait_until_ready(daemon.is_alive, deadline - time.monotonic())
    except BaseException:
        # Also on Ctrl-C: a broker that nobody was told about must not stay.
        if daemon is not None:
            _end(daemon, timeout_s=0)
        forget(directory)
        raise
    return daemon, True


def stop(directory: Path, *, timeout: timedelta = timedelta(seconds=20)) -> Daemon | None:
    """Shuts down the broker on this data directory, and kills it after `timeout`.

    Returns:
        The broker that was stopped, or None when none ran.
    """
    daemon = find(directory)
    if daemon is not None:
        _end(daemon, timeout.total_seconds())
    forget(directory)
    return daemon


def _end(daemon: Daemon, timeout_s: float) -> None:
    for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 60.0)):
        if number is signal.SIGTERM and timeout_s <= 0:
            continue
        deadline = time.monotonic() + patience_s
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, number)
        while daemon.is_alive():
            if time.monotonic() > deadline:
                break
            time.sleep(_PAUSE_S)
        else:
            return
    raise BrokerUnavailable(f"The broker process {daemon.pid} could not be stopped; stop it by its process id.")
