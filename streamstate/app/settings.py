"""The settings of an application, their defaults, and the checks that refuse settings that contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import platformdirs

from streamstate.app.kafka_properties import check_properties
from streamstate.errors import ConfigError
from streamstate.graph.node import Graph
from streamstate.operators.async_map.spec import MapAsync

__all__ = ["Settings", "check_settings", "default_state_dir", "to_ms"]


def default_state_dir() -> Path:
    """The platform's directory for a user's application state."""
    return Path(platformdirs.user_state_dir("streamstate"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of an application.

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
        oauth_cb: gives tokens for SASL OAUTHBEARER: called with ``sasl.oauthbearer.config``, by one thread at a time,
            when a client starts and before each token expires; returns the token and when it expires, in seconds
            since 1970. When it raises, the last token is used as long as it lasts.
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


def check_settings(settings: Settings, graph: Graph) -> None:
    """Refuse settings that cannot work together, or with the topology.

    Args:
        settings: of the application.
        graph: its topology.

    Raises:
        ConfigError: a Kafka property or a duration is not allowed; the message names the setting that mends it.
    """
    check_properties(settings.kafka, group_protocol=settings.group_protocol)
    _check_durations(settings)
    _check_async_calls(graph, settings)


def to_ms(duration: timedelta) -> int:
    """Convert a duration to whole milliseconds."""
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


def _check_async_calls(graph: Graph, settings: Settings) -> None:
    if settings.processing_guarantee != "exactly_once":
        return
    for node in graph.nodes.values():
        longest_ms = node.spec.longest_ms if isinstance(node.spec, MapAsync) else None
        # A call without a time-out has been asked for in so many words.
        if longest_ms is not None and longest_ms >= to_ms(settings.transaction_timeout):
            raise ConfigError(
                f"operator {node.name!r} may wait for {longest_ms} ms for one record (timeout, retries and "
                f"backoff of map_async), and a commit waits for it: that must be shorter than the transaction time-out "
                f"({settings.transaction_timeout}), after which brokers abort. Shorten them, or lengthen "
                f"--transaction-timeout"
            )
