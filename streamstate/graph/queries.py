"""Questions about a graph: what feeds a store, what a node writes, which policy holds behind a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamstate.graph.error_policy import FAIL, ErrorPolicy
from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import SinkSpec, SourceSpec


def feeding_sources(graph: Graph, store: str) -> tuple[str, ...]:
    """Names of the sources whose records reach an operator that uses ``store``, within its sub-topology."""
    reached = {node.name for node in graph.nodes.values() if store in node.spec.stores}
    for node in reversed(graph.nodes.values()):
        if node.name in reached:
            reached.update(node.parents)
    return tuple(
        node.name for node in graph.nodes.values() if node.name in reached and isinstance(node.spec, SourceSpec)
    )


def takes_null_keys(graph: Graph, name: str) -> bool:
    """Whether an operator that takes records with null keys is anywhere behind a node, also behind repartition topics
    (Kafka Streams: KIP-962)."""
    readers: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        if isinstance(node.spec, SourceSpec) and node.spec.internal:
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
        if spec.takes_null_keys:
            return True
        queue.extend(graph.children(behind))
        if isinstance(spec, SinkSpec) and spec.internal and isinstance(spec.topic, str):
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
        for topic in node.spec.output_topics:
            writers.setdefault(topic, {})[part_of[node.name]] = None
    for name, policy in error_policies(graph.nodes):
        if policy.topic is not None:
            writers.setdefault(policy.topic, {})[part_of[name]] = None
    return {topic: tuple(parts) for topic, parts in writers.items()}


def error_policies(nodes: Mapping[str, Node]) -> Iterator[tuple[str, ErrorPolicy]]:
    """(node's name, policy) of every error policy that users have given."""
    for node in nodes.values():
        for policy in node.spec.error_policies:
            yield node.name, policy


def policy_behind(graph: Graph, name: str) -> ErrorPolicy:
    """The error policy of the sources that a node's records come from; ``fail`` where theirs differ."""
    found: list[ErrorPolicy] = []
    seen: set[str] = set()
    queue = [name]
    while queue:
        node = graph.nodes[queue.pop()]
        if node.name in seen:
            continue
        seen.add(node.name)
        if isinstance(node.spec, SourceSpec):
            found.append(node.spec.on_error)
        queue.extend(node.parents)
    return found[0] if found and all(policy == found[0] for policy in found) else FAIL
