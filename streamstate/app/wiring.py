"""Connect the engine to Kafka, RocksDB and the system's clock."""

from __future__ import annotations

import time

from streamstate.app.client_properties import CONSUMER_DEFAULTS, client_properties
from streamstate.app.settings import Settings, to_ms
from streamstate.engine.assign.metadata_topic import topology_mark
from streamstate.engine.assign.topics import Topics
from streamstate.engine.composition import WorkerPorts, build_worker
from streamstate.engine.settings import WorkerSettings
from streamstate.engine.worker import Worker
from streamstate.graph.node import Graph
from streamstate.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaRestoreConsumer, ThreadBackground
from streamstate.kafka.consumer import RebalanceProtocol
from streamstate.kafka.producer import DEFAULTS as PRODUCER_DEFAULTS
from streamstate.operators.base.holding import AsyncCalls
from streamstate.rocksdb import StateDirectory

__all__ = ["SystemClock", "kafka_worker", "restore_consumer"]


class SystemClock:
    """Real time."""

    def now_ms(self) -> int:
        """See the port ``Clock``."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """See the port ``Clock``."""
        return time.monotonic_ns() // 1_000_000


def restore_consumer(settings: Settings, application_id: str, client_id: str) -> KafkaRestoreConsumer:
    """Make a consumer that reads internal topics outside the group."""
    return KafkaRestoreConsumer({**client_properties(settings, "consumer"), "client.id": client_id}, application_id)


def kafka_worker(
    settings: Settings,
    application_id: str,
    topics: Topics,
    admin: KafkaAdmin,
    directory: StateDirectory,
    calls: AsyncCalls,
) -> Worker:
    """Build a worker on Kafka clients and a state directory.

    Args:
        settings: of the application.
        application_id: names the group, the internal topics and the transactional ids.
        topics: the topology and its topics.
        admin: the cluster.
        directory: this process' state.
        calls: runs the coroutines of ``map_async``.
    """
    name = f"{application_id}-{directory.process_id}"
    protocol = _protocol(settings, topics.graph)
    consumer = KafkaConsumer(
        {
            **CONSUMER_DEFAULTS,
            **client_properties(settings, "consumer", application_id),
            "client.id": f"{name}.{topology_mark(topics.graph)}",
        },
        application_id,
        protocol,
        instance_id=settings.instance_id,
        co_partitioned=_co_partitioned(topics.graph),
    )
    producer_properties = {
        **PRODUCER_DEFAULTS,
        **client_properties(settings, "producer", application_id),
        "client.id": name,
    }
    producer_properties["batch.size"] = min(int(producer_properties["batch.size"]), topics.batch_bytes)
    compression = [producer_properties.get(key) for key in ("compression.type", "compression.codec")]
    exactly_once = settings.processing_guarantee == "exactly_once"
    transaction_timeout_ms = to_ms(settings.transaction_timeout)

    def make_producer() -> KafkaProducer:
        if exactly_once:
            return KafkaProducer(producer_properties, name, transaction_timeout_ms, application_id)
        return KafkaProducer(producer_properties)

    return build_worker(
        topics,
        WorkerPorts(
            consumer=consumer,
            admin=admin,
            clock=SystemClock(),
            make_producer=make_producer,
            make_restore_consumer=lambda: restore_consumer(settings, application_id, f"{name}-restore"),
            commit_background=ThreadBackground(),
            watch_background=ThreadBackground("streamstate watch"),
            open_backend=directory.open_task,
            check_capacity=directory.expect,
            calls=calls,
        ),
        WorkerSettings(
            application_id,
            exactly_once=exactly_once,
            eager=protocol == "eager",
            commit_interval_ms=to_ms(settings.commit_interval),
            broker_timeout_ms=to_ms(settings.broker_timeout),
            max_task_idle_ms=to_ms(settings.max_task_idle),
            cache_bytes=settings.cache_bytes,
            staging_bytes=settings.staging_bytes,
            out_of_range=settings.out_of_range,
            record_bytes=int(producer_properties.get("message.max.bytes", 1_000_000)),
            compressed=any(kind not in (None, "none") for kind in compression),
            member_prefix=f"{application_id}-",
        ),
    )


def _co_partitioned(graph: Graph) -> bool:
    """True when topics feed one task, so that the same member must get the same partitions of each."""
    return any(part.needs_copartitioning for part in graph.subtopologies)


def _protocol(settings: Settings, graph: Graph) -> RebalanceProtocol:
    if settings.group_protocol == "consumer":
        return "broker"
    # Only range assignment, which is eager, assigns co-partitioned topics together.
    return "eager" if _co_partitioned(graph) else "cooperative"
