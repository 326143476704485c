"""Reset an application: delete what it has made of its input, so that it reads the input again.

``find`` looks first; ``delete`` deletes exactly what ``find`` showed. The order is topics, committed offsets, local
state: when a deletion is interrupted, local state without its changelog refuses to run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streamstate.app.client_properties import client_properties
from streamstate.app.settings import Settings
from streamstate.errors import StateDirectoryLocked, StreamStateError
from streamstate.graph.names import changelog_topic, checked, metadata_topic, repartition_topic
from streamstate.graph.node import Graph
from streamstate.graph.queries import sink_topics
from streamstate.kafka import KafkaAdmin
from streamstate.kafka.errors import general, kafka_error
from streamstate.kafka.logs import client_logger
from streamstate.rocksdb.directory import try_lock

__all__ = ["Findings", "LocalState", "delete", "find"]

TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class LocalState:
    """The local state of one process on this machine.

    Attributes:
        path: its directory.
        bytes: its size.
    """

    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Findings:
    """All that belongs to an application.

    Attributes:
        application_id: also the name of the consumer group.
        offsets: partitions with a committed offset, by topic.
        has_group: true when the group exists.
        topics: internal topics that exist, with their partition counts.
        leftovers: topics named as internal ones of this application, which the topology does not use; these may be
            of an earlier version of it, or of another application, and are never deleted.
        outputs: topics it writes results to, which are never deleted.
        local: state on this machine.
    """

    application_id: str
    offsets: dict[str, int]
    has_group: bool
    topics: dict[str, int]
    leftovers: tuple[str, ...]
    outputs: tuple[str, ...]
    local: tuple[LocalState, ...]

    @property
    def empty(self) -> bool:
        """True when there is nothing to delete."""
        return not (self.has_group or self.topics or self.local)


def internal_topics(graph: Graph, application_id: str) -> list[str]:
    """Return the names of the internal topics of a topology: repartition topics, changelogs, metadata."""
    repartitions = [name for part in graph.subtopologies for name in part.repartition_sources]
    changelogs = [name for name, store in graph.stores.items() if store.changelog]
    return [
        *(repartition_topic(application_id, name) for name in repartitions),
        *(changelog_topic(application_id, name) for name in changelogs),
        *([metadata_topic(application_id)] if graph.stores else []),
    ]


def find(graph: Graph, settings: Settings, admin: KafkaAdmin) -> Findings:
    """Find all that belongs to an application.

    Args:
        graph: its topology.
        settings: its application id, its cluster and its state directory.
        admin: the cluster.

    Raises:
        StreamStateError: the group has live members.
        StateDirectoryLocked: a live process uses local state.
        TopologyError: the application id cannot be one.
    """
    application_id = checked(settings.application_id or graph.name, "application id")
    # First, because this client says at once when the login fails.
    names = admin.topic_names()
    group = _Group(settings, application_id)
    group.refuse_members()
    offsets = group.offsets()
    planned = internal_topics(graph, application_id)
    leftovers = [
        name
        for name in names
        if name.startswith(f"{application_id}-")
        and name.endswith(("-changelog", "-repartition", "-metadata"))
        and name not in planned
    ]
    local = _local(settings.state_dir / application_id)
    with _locked(local):
        pass
    return Findings(
        application_id,
        offsets or {},
        offsets is not None,
        {name: info.partitions for name, info in admin.topics(planned).items()},
        tuple(leftovers),
        sink_topics(graph),
        local,
    )


def delete(
    findings: Findings, settings: Settings, admin: KafkaAdmin, told: Callable[[str], None] = lambda line: None
) -> None:
    """Delete what ``find`` found.

    Args:
        findings: what to delete.
        settings: as given to ``find``.
        admin: the cluster.
        told: called with a line about each deletion.

    Raises:
        StreamStateError: the group has live members by now; what is already deleted stays so, do it again.
        StateDirectoryLocked: a live process uses local state by now.
    """
    _Group(settings, findings.application_id).refuse_members()
    # Held to the end: a process that starts meanwhile takes another place.
    with _locked(findings.local):
        admin.delete(list(findings.topics))
        for topic in findings.topics:
            told(f"topic {topic}")
        if findings.has_group:
            admin.delete_group(findings.application_id)
            told(f"consumer group {findings.application_id} with its offsets")
        for state in findings.local:
            shutil.rmtree(state.path)
            told(f"local state {state.path}")


def _local(directory: Path) -> tuple[LocalState, ...]:
    return tuple(
        LocalState(path, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
        for path in sorted(directory.glob("process-*"))
        if path.is_dir()
    )


@contextmanager
def _locked(local: tuple[LocalState, ...]) -> Iterator[None]:
    """Lock the state of processes, none of which may be alive."""
    with ExitStack() as locks:
        for state in local:
            lock = try_lock(state.path)
            if lock is None:
                raise StateDirectoryLocked(
                    f"a live process uses {state.path}: stop the application (SIGTERM or Ctrl-C), then reset it"
                )
            locks.callback(os.close, lock)
        yield


class _Group:
    """Requests about a consumer group that the engine's admin port does not need."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._name = name
        logger = client_logger()
        self._client = AdminClient(client_properties(settings, "admin"), logger=logger)

    def refuse_members(self) -> None:
        described = self._answer(self._client.describe_consumer_groups([self._name], request_timeout=TIMEOUT_S))
        if described is not None and described.members:
            members = ", ".join(sorted({f"{member.client_id} at {member.host}" for member in described.members}))
            raise StreamStateError(
                f"application {self._name!r} is running: consumer group {self._name!r} has "
                f"{len(described.members)} members ({members}). Stop them (SIGTERM or Ctrl-C), then reset; one that "
                f"was killed is dropped from the group after its session time-out, 10 s by default"
            )

    def offsets(self) -> dict[str, int] | None:
        """Return the number of partitions with a committed offset by topic; None when there is no group."""
        described = self._answer(self._client.describe_consumer_groups([self._name], request_timeout=TIMEOUT_S))
        if described is None or described.state.name in ("DEAD", "UNKNOWN"):
            return None
        request = [ConsumerGroupTopicPartitions(self._name)]
        answer = self._answer(self._client.list_consumer_group_offsets(request, request_timeout=TIMEOUT_S))
        counts: dict[str, int] = {}
        for partition in () if answer is None else answer.topic_partitions:
            counts[partition.topic] = counts.get(partition.topic, 0) + 1
        return counts

    def _answer(self, futures: Any) -> Any:
        try:
            return futures[self._name].result(TIMEOUT_S + 1)
        except KafkaException as error:
            if kafka_error(error).code() == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            raise general(error) from error
