"""List the rights that an application needs on a secured cluster, from its topology.

Each right is needed: without it, a command of this package is denied or decides without knowing what it must. Read,
Write and Delete include Describe.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streamstate.app.reset import internal_topics
from streamstate.engine.assign.topics import source_topics
from streamstate.graph.names import checked, repartition_topic
from streamstate.graph.node import Graph
from streamstate.graph.queries import sink_topics

__all__ = ["Acl", "Operation", "commands", "least_acls"]

Operation = Literal["Read", "Write", "Create", "Delete", "DescribeConfigs"]


@dataclass(frozen=True, slots=True)
class Acl:
    """One right of a principal.

    Attributes:
        resource: kind of resource.
        name: of the resource, or how its name begins.
        operation: what is allowed.
        why: for people.
        prefixed: whether ``name`` is only the beginning.
    """

    resource: Literal["topic", "group", "transactional-id"]
    name: str
    operation: Operation
    why: str
    prefixed: bool = False


def least_acls(graph: Graph, application_id: str, *, exactly_once: bool = True) -> tuple[Acl, ...]:
    """Return the rights that ``streamstate run`` and ``streamstate reset`` need for a topology.

    Args:
        graph: the topology.
        application_id: names group, internal topics and transactional ids.
        exactly_once: whether transactions are used.

    Returns:
        By resource. Topics that records themselves name (``to`` with a function) are not among them.

    Raises:
        TopologyError: the application id cannot be one.

    >>> from streamstate import Topology
    >>> topology = Topology("copy")
    >>> topology.stream("in").to("out")
    >>> [(acl.resource, acl.name, acl.operation) for acl in least_acls(topology.build(), "copy")][:2]
    [('topic', 'in', 'Read'), ('topic', 'out', 'Write')]
    """
    checked(application_id, "application id")
    found: list[Acl] = []
    tables = {store.source for store in graph.stores.values() if store.source is not None and store.reuse}
    tables |= {table.topic for table in graph.global_tables.values()}
    for name in source_topics(graph):
        found.append(Acl("topic", name, "Read", "input"))
        if name in tables:
            found.append(Acl("topic", name, "DescribeConfigs", "whether it keeps every row of its table"))
    for name in sink_topics(graph):
        found.append(Acl("topic", name, "Write", "output"))
        found.append(Acl("topic", name, "Create", "made when it is missing"))
        found.append(Acl("topic", name, "DescribeConfigs", "how large its records may be"))
    purged = {
        repartition_topic(application_id, name) for part in graph.subtopologies for name in part.repartition_sources
    }
    for name in internal_topics(graph, application_id):
        found.append(Acl("topic", name, "Read", "internal topic"))
        found.append(Acl("topic", name, "Write", "internal topic"))
        found.append(Acl("topic", name, "Create", "made when it is missing"))
        found.append(Acl("topic", name, "DescribeConfigs", "whether its settings lose data"))
        found.append(
            Acl(
                "topic", name, "Delete", "what is processed is purged; reset" if name in purged else "streamstate reset"
            )
        )
    found.append(Acl("group", application_id, "Read", "membership, offsets"))
    found.append(Acl("group", application_id, "Delete", "streamstate reset"))
    if exactly_once:
        found.append(Acl("transactional-id", f"{application_id}-", "Write", "one id per process", prefixed=True))
    return tuple(dict.fromkeys(found))


def commands(acls: Iterable[Acl], bootstrap_servers: str, principal: str, host: str = "*") -> list[str]:
    """Return the ``kafka-acls.sh`` commands that grant rights, one per resource.

    >>> acl = Acl("transactional-id", "app-", "Write", "", prefixed=True)
    >>> [command] = commands([acl], "kafka:9092", "User:app")
    >>> command.removeprefix("kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:app ")
    "--allow-host '*' --operation Write --transactional-id app- --resource-pattern-type prefixed"
    """
    by_resource: dict[tuple[str, str, bool], list[str]] = {}
    for acl in acls:
        by_resource.setdefault((acl.resource, acl.name, acl.prefixed), []).append(acl.operation)
    lines = []
    for (resource, name, prefixed), operations in by_resource.items():
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--add", "--allow-principal", principal]
        words += ["--allow-host", host]
        words += [word for operation in dict.fromkeys(operations) for word in ("--operation", operation)]
        words += [f"--{resource}", name, *(["--resource-pattern-type", "prefixed"] if prefixed else [])]
        lines.append(shlex.join(words))
    return lines
