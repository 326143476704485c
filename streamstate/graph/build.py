"""From nodes to an immutable, validated ``Graph``.

What is refused here is refused before anything runs, with the name of the thing and the fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streamstate.errors import TopologyError
from streamstate.graph.node import GlobalTableSpec, Graph, Node, SubTopology
from streamstate.graph.queries import error_policies
from streamstate.graph.spec import SinkSpec, SourceSpec
from streamstate.state.spec import StoreSpec

NO_TABLES: Mapping[str, GlobalTableSpec] = MappingProxyType({})


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


def _validate_sources(name: str, nodes: Mapping[str, Node]) -> None:
    if not any(isinstance(node.spec, SourceSpec) and not node.spec.internal for node in nodes.values()):
        raise TopologyError(f"topology {name!r} reads nothing: add a source with {name}.stream('topic')")


def _validate_dead_letters(nodes: Mapping[str, Node]) -> None:
    read = {topic for node in nodes.values() if isinstance(node.spec, SourceSpec) for topic in node.spec.topics}
    for name, policy in error_policies(nodes):
        if policy.topic in read:
            raise TopologyError(
                f"{name!r} sends failed records to {policy.topic!r}, which the topology reads, so that they would "
                "fail again for ever: choose another dead-letter topic"
            )


def _validate_stores(nodes: Mapping[str, Node], stores: Mapping[str, StoreSpec]) -> None:
    used: set[str] = set()
    for node in nodes.values():
        for store in node.spec.stores:
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
        for store in node.spec.stores:
            leader[find(node.name)] = find(users.setdefault(store, node.name))
    parts: dict[str, list[Node]] = {}
    for node in nodes.values():
        parts.setdefault(find(node.name), []).append(node)
    return list(parts.values())


def _subtopology(
    index: int, nodes: list[Node], all_nodes: Mapping[str, Node], stores: Mapping[str, StoreSpec]
) -> SubTopology:
    sources = [node for node in nodes if isinstance(node.spec, SourceSpec)]
    external: list[str] = []
    repartition: list[str] = []
    for node in sources:
        assert isinstance(node.spec, SourceSpec)
        (repartition if node.spec.internal else external).extend(node.spec.topics)
    sinks = [node.spec.topic for node in nodes if isinstance(node.spec, SinkSpec) and node.spec.internal]
    used = {store for node in nodes for store in node.spec.stores}
    return SubTopology(
        index=index,
        name=sources[0].name,
        nodes=tuple(node.name for node in nodes),
        source_topics=tuple(external),
        repartition_sources=tuple(repartition),
        repartition_sinks=tuple(topic for topic in sinks if isinstance(topic, str)),
        stores=tuple(store for store in stores if store in used),
    )
