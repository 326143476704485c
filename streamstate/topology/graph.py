"""From nodes to an immutable, validated ``Graph``.

Rule of this module: pure functions of nodes and stores. What it refuses, it refuses before anything runs, with the
name of the thing and the fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streamstate.errors import TopologyError
from streamstate.topology.event_time import EventTime
from streamstate.topology.held_specs import HeldSpec
from streamstate.topology.specs import (
    Aggregate,
    Count,
    ErrorPolicy,
    Graph,
    Node,
    Process,
    Reduce,
    Sink,
    Source,
    Spec,
    StoreSpec,
    SubTopology,
)
from streamstate.topology.table_specs import GlobalTableSpec, StreamGlobalJoin, StreamTableJoin, TableSpec
from streamstate.topology.window_specs import StreamJoin, WindowedAggregate, WindowSpec

__all__ = ["build_graph", "feeding_sources", "sink_topics", "stores_of", "takes_null_keys", "topic_writers"]

NO_TABLES: Mapping[str, GlobalTableSpec] = MappingProxyType({})


def stores_of(spec: Spec) -> tuple[str, ...]:
    """Names of the stores that an operator uses."""
    if isinstance(spec, (Count, Reduce, Aggregate)):
        return (spec.store,)
    if isinstance(spec, (Process, TableSpec, WindowSpec)):
        return spec.stores
    return ()


def build_graph(
    name: str,
    nodes: Mapping[str, Node],
    stores: Mapping[str, StoreSpec],
    global_tables: Mapping[str, GlobalTableSpec] = NO_TABLES,
) -> Graph:
    """Arrange and validate.

    Args:
        name: the topology's.
        nodes: by name, parents before children.
        stores: by name.
        global_tables: by name of their stores.

    Raises:
        TopologyError: the topology cannot run as written.
    """
    _validate_sources(name, nodes)
    _validate_dead_letters(nodes)
    _validate_stores(nodes, stores)
    parts = _components(nodes)
    subtopologies = tuple(_subtopology(index, part, nodes, stores) for index, part in enumerate(parts))
    return Graph(name, dict(nodes), dict(stores), subtopologies, dict(global_tables))


def feeding_sources(graph: Graph, store: str) -> tuple[str, ...]:
    """Names of the sources whose records reach an operator that uses ``store``, within its sub-topology."""
    reached = {node.name for node in graph.nodes.values() if store in stores_of(node.spec)}
    for node in reversed(graph.nodes.values()):
        if node.name in reached:
            reached.update(node.parents)
    return tuple(node.name for node in graph.nodes.values() if node.name in reached and isinstance(node.spec, Source))


def takes_null_keys(graph: Graph, name: str) -> bool:
    """Whether a join that takes records with null keys is anywhere behind a node, also behind repartition topics: a
    left or outer join of streams, or a left join with a table or a global table (Kafka Streams: KIP-962)."""
    readers: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        if isinstance(node.spec, Source) and node.spec.internal:
            for topic in node.spec.topics:
                readers.setdefault(topic, []).append(node.name)
    seen: set[str] = set()
    queue = [name]
    while queue:
        behind = queue.pop()
        if behind in seen:
            continue
        seen.add(behind)
        spec = graph.nodes[behind].spec
        if isinstance(spec, StreamJoin) and (spec.left_alone or spec.right_alone):
            return True
        if isinstance(spec, (StreamTableJoin, StreamGlobalJoin)) and spec.left:
            return True
        queue.extend(graph.children(behind))
        if isinstance(spec, Sink) and spec.internal and isinstance(spec.topic, str):
            queue.extend(readers.get(spec.topic, ()))
    return False


def sink_topics(graph: Graph) -> tuple[str, ...]:
    """Topics outside the application that it is known to write: fixed sinks, late records, dead letters."""
    return tuple(topic_writers(graph))


def topic_writers(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Names of the sub-topologies that write each of ``sink_topics``.

    >>> from streamstate import Topology, dead_letter
    >>> topology = Topology("t")
    >>> topology.stream("lines", on_error=dead_letter("bad")).to("copy")
    >>> topic_writers(topology.build())
    {'copy': ('lines',), 'bad': ('lines',)}
    """
    part_of = {node: part.name for part in graph.subtopologies for node in part.nodes}
    writers: dict[str, dict[str, None]] = {}
    for node in graph.nodes.values():
        if isinstance(node.spec, Sink) and not node.spec.internal and isinstance(node.spec.topic, str):
            writers.setdefault(node.spec.topic, {})[part_of[node.name]] = None
        elif isinstance(node.spec, WindowedAggregate) and node.spec.late is not None:
            writers.setdefault(node.spec.late.topic, {})[part_of[node.name]] = None
    for name, policy in _policies(graph.nodes):
        if policy.topic is not None:
            writers.setdefault(policy.topic, {})[part_of[name]] = None
    return {topic: tuple(parts) for topic, parts in writers.items()}


def _policies(nodes: Mapping[str, Node]) -> list[tuple[str, ErrorPolicy]]:
    found = []
    for node in nodes.values():
        if isinstance(node.spec, (Source, Process, HeldSpec)) and node.spec.on_error is not None:
            found.append((node.name, node.spec.on_error))
        times = node.spec.timestamp if isinstance(node.spec, Source) else None
        if isinstance(times, EventTime) and isinstance(times.on_future, ErrorPolicy):
            found.append((node.name, times.on_future))
    return found


def _validate_sources(name: str, nodes: Mapping[str, Node]) -> None:
    if not any(isinstance(node.spec, Source) and not node.spec.internal for node in nodes.values()):
        raise TopologyError(f"topology {name!r} reads nothing: add a source with {name}.stream('topic')")


def _validate_dead_letters(nodes: Mapping[str, Node]) -> None:
    read = {topic for node in nodes.values() if isinstance(node.spec, Source) for topic in node.spec.topics}
    for name, policy in _policies(nodes):
        if policy.topic in read:
            raise TopologyError(
                f"{name!r} sends failed records to {policy.topic!r}, which the topology reads, so that they would "
                "fail again for ever: choose another dead-letter topic"
            )


def _validate_stores(nodes: Mapping[str, Node], stores: Mapping[str, StoreSpec]) -> None:
    used: set[str] = set()
    for node in nodes.values():
        for store in stores_of(node.spec):
            if store not in stores:
                raise TopologyError(
                    f"{node.name!r} uses the store {store!r}, which does not exist: add it with "
                    f"topology.add_store(stores.key_value({store!r}, ...)) or pass the store itself in stores="
                )
            used.add(store)
    for store in stores:
        if store not in used:
            raise TopologyError(
                f"the store {store!r} is not attached to any operator: name it in "
                f"process(..., stores=[{store!r}]) or do not add it"
            )


def _components(nodes: Mapping[str, Node]) -> list[list[Node]]:
    """Nodes connected by edges or by a store, in order of their first node, which is a source."""
    leader = {name: name for name in nodes}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    users: dict[str, str] = {}
    for node in nodes.values():
        for parent in node.parents:
            leader[find(node.name)] = find(parent)
        for store in stores_of(node.spec):
            leader[find(node.name)] = find(users.setdefault(store, node.name))
    parts: dict[str, list[Node]] = {}
    for node in nodes.values():
        parts.setdefault(find(node.name), []).append(node)
    return list(parts.values())


def _subtopology(
    index: int, nodes: list[Node], all_nodes: Mapping[str, Node], stores: Mapping[str, StoreSpec]
) -> SubTopology:
    sources = [node for node in nodes if isinstance(node.spec, Source)]
    external: list[str] = []
    repartition: list[str] = []
    for node in sources:
        assert isinstance(node.spec, Source)
        (repartition if node.spec.internal else external).extend(node.spec.topics)
    sinks = [node.spec.topic for node in nodes if isinstance(node.spec, Sink) and node.spec.internal]
    used = {store for node in nodes for store in stores_of(node.spec)}
    return SubTopology(
        index=index,
        name=sources[0].name,
        nodes=tuple(node.name for node in nodes),
        source_topics=tuple(external),
        repartition_sources=tuple(repartition),
        repartition_sinks=tuple(topic for topic in sinks if isinstance(topic, str)),
        stores=tuple(store for store in stores if store in used),
    )
