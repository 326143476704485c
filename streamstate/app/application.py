"""The composition root: settings in, a running process out.

Rule of this module: it chooses and connects; it decides nothing about records. Everything that touches the machine
(clock, signals, state directory, Kafka clients) meets the engine here and only here.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import platformdirs
from confluent_kafka import KafkaError, KafkaException

from streamstate.app.kafka_properties import check_properties
from streamstate.coroutines import CoroutineRunner
from streamstate.dsl.topology import Topology
from streamstate.engine.assign.metadata_topic import topology_mark
from streamstate.engine.assign.topics import Topics, prepare_topics
from streamstate.engine.commit.transaction import AtLeastOnce, Committer, Transaction
from streamstate.engine.flow.outage import OutageMonitor
from streamstate.engine.metrics import WorkerStatus
from streamstate.engine.ports import LoginFailed, NotAuthorized, PortError, Unavailable, Unreachable
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.worker import Worker
from streamstate.errors import BrokerUnavailable, ConfigError, StreamStateError
from streamstate.graph.node import Graph
from streamstate.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaRestoreConsumer, ThreadBackground
from streamstate.kafka.consumer import RebalanceProtocol
from streamstate.kafka.errors import general, kafka_error
from streamstate.kafka.producer import DEFAULTS as PRODUCER_DEFAULTS
from streamstate.operators.async_map.spec import MapAsync
from streamstate.rocksdb import Memory, OpenFiles, StateDirectory

__all__ = ["Application", "Settings", "run"]

log = logging.getLogger("streamstate.app")


# A rebalance is noticed with a heartbeat: at the client's default of 3 s, tasks that move rest for several.
CONSUMER_DEFAULTS = {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 500}
# A batch of records that have become slow all at once ends after the record that it has in hand by then. Far below
# the transaction time-out and max.poll.interval.ms.
BATCH_LIMIT_MS = 1_000
BATCH_WATCH_S = 0.25
START_HINT = "Is it running? For a local one: streamstate broker start"
# Of a question to the cluster, and what is left of it under a short --broker-timeout.
CALL_MS = 15_000
LEAST_CALL_MS = 1_000
# Between two looks for state that nobody on this machine has held for a while.
CLEANING_MS = 60_000
# Between two attempts to reach a broker at the start.
START_RETRY_S = 0.5


def default_state_dir() -> Path:
    """The platform's directory for a user's application state."""
    return Path(platformdirs.user_state_dir("streamstate"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an application runs.

    Attributes:
        bootstrap_servers: Kafka addresses, ``host:port`` and commas.
        application_id: names the consumer group, the internal topics and the transactional ids; processes with the
            same one share the work. None: the topology's name.
        state_dir: local state; processes of one machine may share it.
        processing_guarantee: ``exactly_once`` or ``at_least_once``.
        commit_interval: longest time between commits.
        group_protocol: ``classic``, or ``consumer`` for the protocol in which the broker assigns.
        instance_id: a fixed name for static membership: a restart within the session time-out moves nothing.
        replication_factor: of topics that are created; None: the broker's default.
        transaction_timeout: after which brokers abort what a dead process left open.
        broker_timeout: how long to go on without a broker before giving up.
        out_of_range: what to do when a committed offset is not in the log any more.
        state_cleanup_delay: after which local state of tasks that live on other machines now is deleted; at least a
            minute.
        max_task_idle: how long a task with several inputs waits for one that has no records.
        cache_bytes: committed entries kept in memory per process.
        staging_bytes: uncommitted state per process that makes it commit early.
        block_cache_bytes, write_buffer_bytes: RocksDB's memory per process.
        kafka: properties for every Kafka client, such as ``security.protocol``; with the prefix ``consumer.``,
            ``producer.`` or ``admin.`` for that client only.
        oauth_cb: gives tokens for SASL OAUTHBEARER: called with ``sasl.oauthbearer.config``, in a thread of the client,
            when a client starts and before each token expires; returns the token and when it expires, in seconds
            since 1970.
    """

    bootstrap_servers: str
    application_id: str | None = None
    state_dir: Path = field(default_factory=default_state_dir)
    processing_guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    commit_interval: timedelta = timedelta(milliseconds=100)
    group_protocol: Literal["classic", "consumer"] = "classic"
    instance_id: str | None = None
    replication_factor: int | None = None
    transaction_timeout: timedelta = timedelta(seconds=10)
    broker_timeout: timedelta = timedelta(minutes=10)
    out_of_range: Literal["fail", "earliest", "latest"] = "fail"
    state_cleanup_delay: timedelta = timedelta(minutes=10)
    max_task_idle: timedelta = timedelta(0)
    cache_bytes: int = 64 << 20
    staging_bytes: int = 64 << 20
    block_cache_bytes: int = 128 << 20
    write_buffer_bytes: int = 128 << 20
    kafka: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    oauth_cb: Callable[[str], tuple[str, float]] | None = None


class SystemClock:
    """Real time."""

    def now_ms(self) -> int:
        """See the port ``Clock``."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """See the port ``Clock``."""
        return time.monotonic_ns() // 1_000_000


class Application:
    """One process of an application. ``run`` may be called in any thread, and ``stop`` from any other.

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
        self.settings = settings
        self.application_id = settings.application_id or self.graph.name
        self._on_status = on_status
        self._status_ms = _ms(status_interval)
        self._stop = threading.Event()
        self._worker: Worker | None = None
        self._calls = CoroutineRunner()
        check_properties(settings.kafka, group_protocol=settings.group_protocol)
        _check_durations(settings)
        _check_calls(self.graph, settings)
        # Topics that feed one task must be assigned together, which only range assignment does.
        self._co_partitioned = any(part.needs_copartitioning for part in self.graph.subtopologies)

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
        call_ms = max(LEAST_CALL_MS, min(CALL_MS, _ms(settings.broker_timeout)))
        admin = KafkaAdmin(self.client_properties("admin"), call_ms, told_to_stop=self._stop.is_set)
        topics = self._topics(admin)
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
            self._worker = worker = self._make_worker(directory, topics, admin)
            self._loop(worker, directory)
            in_order = True
        finally:
            directory.close(in_order=in_order)
            admin.close()

    def _topics(self, admin: KafkaAdmin) -> Topics | None:
        """Topics checked and made, as soon as a broker answers; None when told to stop before."""
        outage_monitor = OutageMonitor(SystemClock(), _ms(self.settings.broker_timeout))
        outage_monitor.begin()
        while not self._stop.is_set():
            try:
                return prepare_topics(
                    self.graph,
                    self.application_id,
                    admin,
                    self.settings.replication_factor,
                    lambda: self._restore_consumer(f"{self.application_id}-marks"),
                )
            except Unavailable as error:
                if not self._stop.is_set():
                    outage_monitor.outage(_no_broker(error, self.settings))
            self._stop.wait(START_RETRY_S)
        return None

    def _make_worker(self, directory: StateDirectory, topics: Topics, admin: KafkaAdmin) -> Worker:
        settings, clock = self.settings, SystemClock()
        name = f"{self.application_id}-{directory.process_id}"
        protocol: RebalanceProtocol = "eager" if self._co_partitioned else "cooperative"
        if settings.group_protocol == "consumer":
            protocol = "broker"
        consumer = KafkaConsumer(
            {
                **CONSUMER_DEFAULTS,
                **self.client_properties("consumer"),
                "client.id": f"{name}.{topology_mark(topics.graph)}",
            },
            self.application_id,
            protocol,
            instance_id=settings.instance_id,
            co_partitioned=self._co_partitioned,
        )
        producer_properties = {**PRODUCER_DEFAULTS, **self.client_properties("producer"), "client.id": name}
        producer_properties["batch.size"] = min(int(producer_properties["batch.size"]), topics.batch_bytes)
        compression = [producer_properties.get(key) for key in ("compression.type", "compression.codec")]
        exactly_once = settings.processing_guarantee == "exactly_once"
        transaction_timeout_ms = _ms(settings.transaction_timeout)
        committer: Committer
        if exactly_once:
            committer = Transaction(
                lambda: KafkaProducer(producer_properties, name, transaction_timeout_ms), clock, ThreadBackground()
            )
        else:
            committer = AtLeastOnce(lambda: KafkaProducer(producer_properties), consumer, clock)
        return Worker(
            topics.graph,
            WorkerSettings(
                self.application_id,
                exactly_once=exactly_once,
                eager=protocol == "eager",
                commit_interval_ms=_ms(settings.commit_interval),
                broker_timeout_ms=_ms(settings.broker_timeout),
                max_task_idle_ms=_ms(settings.max_task_idle),
                cache_bytes=settings.cache_bytes,
                staging_bytes=settings.staging_bytes,
                out_of_range=settings.out_of_range,
                record_bytes=int(producer_properties.get("message.max.bytes", 1_000_000)),
                compressed=any(kind not in (None, "none") for kind in compression),
                member_prefix=f"{self.application_id}-",
            ),
            topics.partition_counts,
            consumer=consumer,
            admin=admin,
            background=ThreadBackground("streamstate watch"),
            clock=clock,
            committer=committer,
            restore_consumer=lambda: self._restore_consumer(f"{name}-restore"),
            open_backend=directory.open_task,
            expect=directory.expect,
            calls=self._calls,
            known_marks=topics.marks,
        )

    def _restore_consumer(self, client_id: str) -> KafkaRestoreConsumer:
        return KafkaRestoreConsumer({**self.client_properties("consumer"), "client.id": client_id}, self.application_id)

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
        watch = threading.Thread(target=_hurry, args=(worker, done), name="streamstate batch watch", daemon=True)
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

    def client_properties(self, client: Literal["consumer", "producer", "admin"]) -> dict[str, Any]:
        """Properties for one kind of Kafka client."""
        return client_properties(self.settings, client, self.application_id)


def _hurry(worker: Worker, done: threading.Event) -> None:
    while not done.wait(BATCH_WATCH_S):
        worker.hurry(BATCH_LIMIT_MS)


def client_properties(
    settings: Settings, client: Literal["consumer", "producer", "admin"], name: str = "streamstate"
) -> dict[str, Any]:
    """Properties for one kind of Kafka client.

    Args:
        settings: where to find the cluster, and what the user wants every client to be told.
        client: the kind.
        name: shown in the broker's logs.
    """
    found: dict[str, Any] = {"bootstrap.servers": settings.bootstrap_servers, "client.id": name}
    if client == "consumer":
        found["allow.auto.create.topics"] = False
    if settings.oauth_cb is not None:
        found["oauth_cb"] = settings.oauth_cb
    for key, value in settings.kafka.items():
        kind, _, rest = key.partition(".")
        if kind not in ("consumer", "producer", "admin"):
            found.setdefault(key, value)
        elif kind == client:
            found[rest] = value
    return found


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """What Kafka clients raise within, as errors that say what to do."""
    try:
        yield
    except TimeoutError as error:
        # Of a client's future; what user code raises comes as ProcessingError.
        raise _explanation(Unavailable(str(error) or "no answer in time"), settings) from error
    except KafkaException as error:
        if kafka_error(error).code() != KafkaError._INVALID_ARG:
            raise _explanation(general(error), settings) from error
        raise ConfigError(
            f"the Kafka client refuses its configuration: {kafka_error(error).str()}. `streamstate config` shows every "
            f"setting and where it comes from"
        ) from error
    except PortError as error:
        raise _explanation(error, settings) from error


def _explanation(error: PortError, settings: Settings) -> StreamStateError:
    if isinstance(error, Unavailable):
        return BrokerUnavailable(_no_broker(error, settings))
    if isinstance(error, LoginFailed):
        return ConfigError(
            f"cannot log in at {settings.bootstrap_servers}: {error}. Check security.protocol, sasl.mechanism, "
            f"sasl.username, sasl.password and ssl.ca.location; `streamstate config` shows where each comes from"
        )
    if isinstance(error, NotAuthorized):
        return ConfigError(f"the broker denies access: {error}. Check the principal's ACLs and credentials")
    return StreamStateError(f"the Kafka client failed: {error}")


def _no_broker(error: Unavailable, settings: Settings) -> str:
    said = f"no broker at {settings.bootstrap_servers} answers: {error}"
    return said if isinstance(error, Unreachable) else f"{said}. {START_HINT}"


def run(
    topology: Topology[Any, Any] | Graph, settings: Settings, on_status: Callable[[WorkerStatus], None] | None = None
) -> None:
    """Run one process of an application until SIGTERM or SIGINT, then finish in order.

    Python handles signals in the main thread only. Called in another thread, this runs the application without
    handlers; to end it there, make an ``Application``, let the thread call its ``run``, and call its ``stop``:

    .. code-block:: python

        application = Application(topology, settings)
        thread = threading.Thread(target=application.run)
        thread.start()
        ...
        application.stop()
        thread.join()

    Args:
        topology: what it computes.
        settings: how it runs.
        on_status: called about once a second with the worker's numbers.

    Raises:
        StreamStateError: see its classes.
    """
    application = Application(topology, settings, on_status)
    if threading.current_thread() is not threading.main_thread():
        log.info("not in the main thread, so that no signal ends this application; Application.stop() does")
        application.run()
        return

    def finish(signal_number: int, frame: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(signal_number).name)
        application.stop()

    before = {number: signal.signal(number, finish) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        application.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _check_durations(settings: Settings) -> None:
    if settings.commit_interval < timedelta(milliseconds=1):
        raise ConfigError(f"the commit interval is {settings.commit_interval}; it must be at least 1 ms")
    if settings.state_cleanup_delay < timedelta(minutes=1):
        raise ConfigError(
            f"the state cleanup delay is {settings.state_cleanup_delay}; it must be at least a minute, so "
            f"that no state is deleted while its task is on its way"
        )
    if settings.processing_guarantee == "exactly_once" and settings.commit_interval >= settings.transaction_timeout:
        raise ConfigError(
            f"the commit interval ({settings.commit_interval}) must be shorter than the transaction time-out "
            f"({settings.transaction_timeout}), after which brokers abort: shorten --commit-interval or lengthen "
            f"--transaction-timeout"
        )


def _check_calls(graph: Graph, settings: Settings) -> None:
    if settings.processing_guarantee != "exactly_once":
        return
    for node in graph.nodes.values():
        longest_ms = node.spec.longest_ms if isinstance(node.spec, MapAsync) else None
        # A call without a time-out has been asked for in so many words.
        if longest_ms is not None and longest_ms >= _ms(settings.transaction_timeout):
            raise ConfigError(
                f"operator {node.name!r} may wait for {longest_ms} ms for one record (timeout, retries and "
                f"backoff of map_async), and a commit waits for it: that must be shorter than the transaction time-out "
                f"({settings.transaction_timeout}), after which brokers abort. Shorten them, or lengthen "
                f"--transaction-timeout"
            )
