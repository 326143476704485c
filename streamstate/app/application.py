"""One process of an application: prepare its topics and its state, then run the worker's loop."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from streamstate.app.broker_errors import explained, no_broker_message
from streamstate.app.client_properties import client_properties
from streamstate.app.settings import Settings, check_settings, to_ms
from streamstate.app.wiring import SystemClock, kafka_worker, restore_consumer
from streamstate.coroutines import CoroutineRunner
from streamstate.dsl.topology import Topology
from streamstate.engine.assign.topics import Topics, prepare_topics
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.metrics import WorkerStatus
from streamstate.engine.ports import Unavailable
from streamstate.engine.worker import Worker
from streamstate.graph.node import Graph
from streamstate.kafka import KafkaAdmin
from streamstate.kafka.tokens import TokenSource
from streamstate.rocksdb import Memory, OpenFiles, StateDirectory

__all__ = ["Application"]

# A batch whose records have become slow ends after this time, with the record in hand. Far below the transaction
# time-out and max.poll.interval.ms.
BATCH_LIMIT_MS = 1_000
BATCH_WATCH_S = 0.25
# Time-out of a question to the cluster, and the least under a short --broker-timeout.
CALL_MS = 15_000
LEAST_CALL_MS = 1_000
# Between two searches for state that no process of this machine has held for a while.
CLEANING_MS = 60_000
# Between two attempts to reach a broker at the start.
START_RETRY_S = 0.5


class Application:
    """Runs one process of an application. Any thread may call ``run``, and any other thread ``stop``.

    Args:
        topology: what it computes.
        settings: how it runs.
        on_status: called regularly, and once at the end, with the worker's numbers.
        status_interval: how often that is.

    Raises:
        TopologyError: the topology is not valid.
        ConfigError: a setting is not valid.
    """

    def __init__(
        self,
        topology: Topology[Any, Any] | Graph,
        settings: Settings,
        on_status: Callable[[WorkerStatus], None] | None = None,
        status_interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self.graph = topology.build() if isinstance(topology, Topology) else topology
        # All clients share their tokens.
        tokens = None if settings.oauth_cb is None else TokenSource(settings.oauth_cb)
        self.settings = replace(settings, oauth_cb=tokens)
        self.application_id = settings.application_id or self.graph.name
        self._on_status = on_status
        self._status_ms = to_ms(status_interval)
        self._stop = threading.Event()
        self._worker: Worker | None = None
        self._calls = CoroutineRunner()
        check_settings(settings, self.graph)

    def stop(self) -> None:
        """Ask ``run`` to finish: the record in hand is finished, and what was processed is committed. Safe from any
        thread or signal."""
        self._stop.set()
        if self._worker is not None:
            self._worker.interrupt()

    def run(self) -> None:
        """Process until ``stop``.

        Raises:
            StreamStateError: see its classes; uncommitted work was dropped, nothing is lost.
        """
        try:
            with explained(self.settings):
                self._run()
        finally:
            self._calls.close()

    def _run(self) -> None:
        settings = self.settings
        call_ms = max(LEAST_CALL_MS, min(CALL_MS, to_ms(settings.broker_timeout)))
        admin = KafkaAdmin(
            client_properties(settings, "admin", self.application_id), call_ms, told_to_stop=self._stop.is_set
        )
        topics = self._prepare_topics(admin)
        if topics is None:
            return
        memory = Memory(settings.block_cache_bytes, settings.write_buffer_bytes)
        files = OpenFiles(sum(topics.plan.tasks.values()), max(len(part.stores) for part in topics.graph.subtopologies))
        files.raise_limit()
        directory = StateDirectory(
            settings.state_dir, self.application_id, settings.instance_id, memory, topics.copies_usable_s, files
        )
        in_order = False
        try:
            self._worker = worker = kafka_worker(settings, self.application_id, topics, admin, directory, self._calls)
            self._loop(worker, directory)
            in_order = True
        finally:
            directory.close(in_order=in_order)
            admin.close()

    def _prepare_topics(self, admin: KafkaAdmin) -> Topics | None:
        """Check and create topics as soon as a broker answers; None when told to stop before."""
        outage_monitor = OutageMonitor(SystemClock(), to_ms(self.settings.broker_timeout))
        outage_monitor.begin()
        while not self._stop.is_set():
            try:
                return prepare_topics(
                    self.graph,
                    self.application_id,
                    admin,
                    self.settings.replication_factor,
                    lambda: restore_consumer(self.settings, self.application_id, f"{self.application_id}-marks"),
                )
            except Unavailable as error:
                if not self._stop.is_set():
                    outage_monitor.outage(no_broker_message(error, self.settings))
            self._stop.wait(START_RETRY_S)
        return None

    def _loop(self, worker: Worker, directory: StateDirectory) -> None:
        # What exists now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # Where state grows, most of what the collector sees is entries, which stay. It passes over them once, while
        # they are still in the processor's caches: by 30,000 that costs half of what it does by 100,000.
        gc.set_threshold(30_000, 70, 100)
        # The thread that commits needs the interpreter for microseconds; 5 ms of waiting for each would be its latency.
        sys.setswitchinterval(0.001)
        next_status = next_cleaning = 0
        finished = False
        done = threading.Event()
        watch = threading.Thread(
            target=_watch_batches, args=(worker, done), name="streamstate batch watch", daemon=True
        )
        try:
            worker.start()
            watch.start()
            while not self._stop.is_set():
                worker.tick()
                now = time.monotonic_ns() // 1_000_000
                if self._on_status is not None and now >= next_status:
                    next_status = now + self._status_ms
                    self._on_status(worker.status())
                if now >= next_cleaning and not worker.assignment.waiting:
                    next_cleaning = now + CLEANING_MS
                    directory.clean(self.settings.state_cleanup_delay.total_seconds())
            finished = True
        finally:
            done.set()
            worker.close(commit=finished)
            if self._on_status is not None:
                self._on_status(worker.status())


def _watch_batches(worker: Worker, done: threading.Event) -> None:
    while not done.wait(BATCH_WATCH_S):
        worker.halt_if_slow(BATCH_LIMIT_MS)
