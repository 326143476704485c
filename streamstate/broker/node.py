"""One broker's files, settings and command line; and the question whether it answers.

Rule of this module: it starts nothing that stays. ``docker-compose.yml`` repeats the settings given here.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import html
import logging
import os
import random
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamstate.errors import BrokerUnavailable, StateDirectoryLocked

__all__ = ["HOST", "SETTINGS", "Node", "environment", "free_port"]

HOST = "127.0.0.1"

# Everything that does not depend on where this broker runs.
SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    # A topic with the wrong number of partitions is worse than an error that names the missing topic.
    "auto.create.topics.enable": "false",
    # One node: one replica of everything, and few partitions of what only the broker itself reads.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # The first member of a group gets its partitions at once, and tests may ask for short sessions.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    # After a kill, the controller refuses the new incarnation of the broker until the old one's session ends.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "250",
    # The default of 128 MB is a quarter of this heap.
    "log.cleaner.dedupe.buffer.size": "16777216",
}

_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN" shutdownHook="disable">
  <Appenders>
    <RollingFile name="file" fileName="{log}" filePattern="{log}.%i">
      <PatternLayout pattern="%d{{ISO8601}} %-5p %m (%c)%n"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="INFO"><AppenderRef ref="file"/></Root>
    <!-- These print all settings, four times per start. -->
    <Logger name="kafka.server.KafkaConfig" level="WARN"/>
    <Logger name="org.apache.kafka.common.config.AbstractConfig" level="WARN"/>
    <Logger name="org.apache.kafka.storage.internals.log.LogConfig" level="WARN"/>
  </Loggers>
</Configuration>
"""

_JVM_OPTIONS = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dfile.encoding=UTF-8",
)
_FORMAT_TIMEOUT_S = 60
_ASK_TIMEOUT_S = 0.5
_PAUSE_S = 0.05
_QUOTED_LINES = 12
# Below the ephemeral range of Linux (32768) and macOS (49152). A port inside it can be taken, while the broker
# is down for a restart, by any outgoing connection: even by a client's attempts to reconnect to that very port.
_PORTS = range(15000, 32000)


@dataclass(frozen=True, slots=True)
class Node:
    """Where one broker listens and keeps its files.

    Attributes:
        directory: holds everything: settings, data and logs.
        port: of the Kafka listener on 127.0.0.1.
        heap_mb: the JVM's largest heap in MiB.
        num_partitions: of topics created without a count.
        properties: broker settings that add to `SETTINGS` or replace them.
    """

    directory: Path
    port: int
    heap_mb: int = 512
    num_partitions: int = 1
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def bootstrap_servers(self) -> str:
        """The address clients connect to."""
        return f"{HOST}:{self.port}"

    @property
    def data_directory(self) -> Path:
        """Kafka's own ``log.dirs``."""
        return self.directory / "data"

    @property
    def log_path(self) -> Path:
        """What Kafka logs; rolled at 20 MB, three old files kept."""
        return self.directory / "logs" / "server.log"

    @property
    def console_path(self) -> Path:
        """What the JVM itself prints: crashes, unknown options, a heap that does not fit."""
        return self.directory / "logs" / "console.log"

    @property
    def cluster_id(self) -> str | None:
        """The cluster id the storage was formatted with, or None before."""
        try:
            text = (self.data_directory / "meta.properties").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        match = re.search(r"^cluster\.id=(\S+)$", text, re.MULTILINE)
        return match[1] if match else None

    @contextlib.contextmanager
    def claimed(self) -> Iterator[int]:
        """Claims the directory for one broker: a locked file descriptor for the JVM to inherit.

        The kernel drops the lock when the last process that holds the descriptor ends, however it ends.

        Raises:
            StateDirectoryLocked: a live broker has the directory, or another process starts one there.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "broker.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateDirectoryLocked(
                    f"Another broker uses the data directory {self.directory}. Stop it (streamstate broker stop "
                    "--data-dir DIRECTORY, if it was started that way) or choose another directory."
                ) from None
            yield file.fileno()

    def check_port(self) -> None:
        """Raises BrokerUnavailable when something listens on the port: sooner and clearer than the JVM would."""
        with socket.socket() as probe:
            # As the JVM does: connections of a predecessor that linger in TIME_WAIT are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise BrokerUnavailable(
                    f"Cannot listen on {self.bootstrap_servers}: {error.strerror}. Choose another port, or stop "
                    "what uses this one."
                ) from None

    def write_settings(self) -> None:
        """Writes the files that Kafka and log4j read, and sets the previous run's logs aside."""
        self.data_directory.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(exist_ok=True)
        # What a log says about a failed start must be about this start.
        for log in (self.log_path, self.console_path):
            with contextlib.suppress(FileNotFoundError):
                log.rename(log.with_suffix(".previous.log"))
        controller = free_port(besides=self.port)
        settings = {
            **SETTINGS,
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
            "controller.quorum.voters": f"{SETTINGS['node.id']}@{HOST}:{controller}",
            "log.dirs": _escape(str(self.data_directory)),
            "num.partitions": str(self.num_partitions),
            **self.properties,
        }
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        (self.directory / "server.properties").write_text(lines, encoding="utf-8")
        log4j = _LOG4J.format(log=html.escape(str(self.log_path)))
        (self.directory / "log4j2.xml").write_text(log4j, encoding="utf-8")

    def command(self, java: Path, main_class: str, *arguments: str) -> list[str]:
        """The command line that runs a class of the jars, which `environment` names."""
        return [
            str(java),
            *_JVM_OPTIONS,
            f"-Xmx{self.heap_mb}m",
            f"-Dlog4j2.configurationFile={(self.directory / 'log4j2.xml').as_uri()}",
            main_class,
            *arguments,
        ]

    def server_command(self, java: Path) -> list[str]:
        """The command line of the broker."""
        return self.command(java, "kafka.Kafka", str(self.directory / "server.properties"))

    def format_storage(self, java: Path, jars: Sequence[Path]) -> None:
        """Formats the data directory, once in its life.

        Raises:
            BrokerUnavailable: Kafka's storage tool failed; the message quotes it.
        """
        if self.cluster_id is not None:
            return
        settings = str(self.directory / "server.properties")
        command = self.command(
            java, "kafka.tools.StorageTool", "format", "--cluster-id", _new_cluster_id(), "--config", settings
        )
        try:
            done = subprocess.run(
                command,
                env=environment(jars),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_FORMAT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BrokerUnavailable(
                f"Formatting {self.data_directory} took longer than {_FORMAT_TIMEOUT_S} s. Is this machine out "
                "of memory or CPU? Try again when it is less busy."
            ) from None
        if done.returncode != 0:
            self.console_path.write_text(done.stdout, encoding="utf-8")
            raise self.failure(f"Kafka's storage tool could not format {self.data_directory}.")

    def failure(self, what: str) -> BrokerUnavailable:
        """An error that says what happened and quotes the ends of this broker's logs."""
        quoted = ""
        hint = ""
        for path in (self.console_path, self.log_path):
            text = _read_tail(path)
            if text.strip():
                quoted += f"\nLast lines of {path}:\n{_last_lines(text)}"
            if "Address already in use" in text:
                hint = f" Something else listens on port {self.port}; choose another port."
        return BrokerUnavailable(f"{what}{hint}{quoted or f' It logged nothing to {self.log_path}.'}")

    def port_was_taken(self) -> bool:
        """Whether the broker ended because one of its ports was in use."""
        return "Address already in use" in _read_tail(self.log_path)

    def wait_until_ready(self, is_alive: Callable[[], bool], timeout_s: float) -> None:
        """Returns when this very broker answers a metadata request.

        Args:
            is_alive: tells whether the JVM still runs.
            timeout_s: how long to wait, in seconds.

        Raises:
            BrokerUnavailable: the JVM ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        with _quiet_admin(self.bootstrap_servers) as admin:
            while not self._is_described_by(admin):
                if not is_alive():
                    raise self.failure("The embedded broker ended while it started.")
                if time.monotonic() > deadline:
                    raise self.failure(f"The embedded broker did not answer within {timeout_s:.1f} s.")
                time.sleep(_PAUSE_S)

    def answers(self, timeout_s: float) -> bool:
        """Whether this very broker (not another one on its port) answers a metadata request in time."""
        deadline = time.monotonic() + timeout_s
        with _quiet_admin(self.bootstrap_servers) as admin:
            while not self._is_described_by(admin):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_PAUSE_S)
            return True

    def _is_described_by(self, admin: AdminClient) -> bool:
        try:
            metadata = admin.list_topics(timeout=_ASK_TIMEOUT_S)
        except KafkaException:
            return False
        # A broker that is up but not yet unfenced answers with an empty list of brokers.
        return bool(metadata.brokers) and metadata.cluster_id == self.cluster_id


def environment(jars: Sequence[Path]) -> dict[str, str]:
    """The process environment with the class path in it, where it does not swamp the output of ``ps``."""
    return {**os.environ, "CLASSPATH": os.pathsep.join(str(jar) for jar in jars)}


def free_port(besides: int | None = None) -> int:
    """A port nothing on 127.0.0.1 listens on, outside the range that outgoing connections are given.

    Args:
        besides: a port not to return.

    Raises:
        BrokerUnavailable: no free port was found.
    """
    for port in random.sample(_PORTS, k=200):
        if port == besides:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise BrokerUnavailable(f"No free port found between {_PORTS.start} and {_PORTS.stop} on {HOST}.")


@contextlib.contextmanager
def _quiet_admin(bootstrap_servers: str) -> Iterator[AdminClient]:
    # A refused connection is the expected answer until the broker is up: keep it off the terminal.
    logger = logging.getLogger("streamstate.broker.readiness")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    yield AdminClient(
        {
            "bootstrap.servers": bootstrap_servers,
            "socket.timeout.ms": "2000",
            "reconnect.backoff.ms": "20",
            "reconnect.backoff.max.ms": "100",
        },
        logger=logger,
    )


def _new_cluster_id() -> str:
    # As Kafka's own: a UUID in URL-safe base64. A leading dash would read as an option.
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\")


def _read_tail(path: Path, size: int = 16384) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _last_lines(text: str) -> str:
    lines = text.rstrip().splitlines()
    # Kafka logs a stack trace and a page of orderly shutdown after the one line that says what was wrong.
    telling = [line for line in lines if " INFO " not in line and not line.startswith("\tat ")]
    return "\n".join("  " + line for line in (telling or lines)[-_QUOTED_LINES:])
