"""A graph for people and for tools: text, Mermaid, JSON.

Rule of this module: everything shown comes from ``describe_json``; the same graph always gives the same
output.
"""

from __future__ import annotations

from typing import Any

from streamstate.graph.names import changelog_topic, repartition_topic
from streamstate.graph.node import Graph, Node

__all__ = ["describe_json", "describe_mermaid", "describe_text"]


def describe_json(graph: Graph, application_id: str) -> dict[str, Any]:
    """The graph as plain dicts, lists, strings, numbers and booleans.

    Args:
        graph: the topology.
        application_id: prefixes the internal topics.

    >>> from streamstate import Topology
    >>> topology = Topology("t")
    >>> topology.stream("lines").to("copy")
    >>> [part] = describe_json(topology.build(), "app")["subtopologies"]
    >>> part["name"], [node["operator"] for node in part["nodes"]]
    ('lines', ['source', 'sink'])
    """
    described: dict[str, Any] = {
        "name": graph.name,
        "application_id": application_id,
        "subtopologies": [
            {
                "index": part.index,
                "name": part.name,
                "source_topics": list(part.source_topics),
                "repartition_sources": [repartition_topic(application_id, name) for name in part.repartition_sources],
                "repartition_sinks": [repartition_topic(application_id, name) for name in part.repartition_sinks],
                "stores": [_store(graph, name, application_id) for name in part.stores],
                "nodes": [_node(graph, graph.nodes[name], application_id) for name in part.nodes],
            }
            for part in graph.subtopologies
        ],
    }
    if graph.global_tables:
        described["global_tables"] = [
            {"store": name, "topic": table.topic, "key": table.store.key.name, "value": table.store.value.name}
            for name, table in graph.global_tables.items()
        ]
    return described


def describe_text(graph: Graph, application_id: str) -> str:
    """The graph as text, a sub-topology after the other.

    Args:
        graph: the topology.
        application_id: prefixes the internal topics.

    >>> from streamstate import Topology
    >>> topology = Topology("t")
    >>> topology.stream("lines").to("copy")
    >>> print(describe_text(topology.build(), "app"))
    Topology t (application id app)
    <BLANKLINE>
    Sub-topology 0: lines
      reads   lines
      nodes
        lines     source lines, key bytes, value bytes
        lines.to  sink copy, key bytes, value bytes, from lines
    """
    described = describe_json(graph, application_id)
    lines = [f"Topology {described['name']} (application id {application_id})"]
    lines += [
        f"Global table {table['store']}, topic {table['topic']}, key {table['key']}, value {table['value']}"
        for table in described.get("global_tables", ())
    ]
    for part in described["subtopologies"]:
        lines += ["", f"Sub-topology {part['index']}: {part['name']}"]
        if part["source_topics"]:
            lines.append(f"  reads   {', '.join(part['source_topics'])}")
        for heading, key in (("reads", "repartition_sources"), ("writes", "repartition_sinks")):
            lines += [f"  {heading:<7} {topic} (repartition topic)" for topic in part[key]]
        for store in part["stores"]:
            changelog = f"changelog {store['changelog']}" if store["changelog"] else "no changelog"
            if "source" in store:
                changelog = (
                    f"changelog {store['source']} itself if nothing is deleted from it, else {store['changelog']}"
                )
            more = f"{store['kind'].replace('_', ' ')}, " if "kind" in store else ""
            more += f"lives {store['ttl_ms']} ms, " if "ttl_ms" in store else ""
            lines.append(f"  store   {store['name']}, key {store['key']}, value {store['value']}, {more}{changelog}")
        lines.append("  nodes")
        width = max(len(node["name"]) for node in part["nodes"])
        lines += [f"    {node['name']:<{width}}  {_summary(graph, node)}" for node in part["nodes"]]
    return "\n".join(lines)


def describe_mermaid(graph: Graph, application_id: str) -> str:
    """The graph as a Mermaid flowchart.

    Args:
        graph: the topology.
        application_id: prefixes the internal topics.

    >>> from streamstate import Topology
    >>> topology = Topology("t")
    >>> topology.stream("lines").to("copy")
    >>> print(describe_mermaid(topology.build(), "app"))
    flowchart TD
      subgraph s0["0: lines"]
        n0["lines<br/>source"]
        n1["lines.to<br/>sink"]
      end
      t0[/"lines"/]
      t1[/"copy"/]
      n0 --> n1
      t0 --> n0
      n1 --> t1
    """
    described = describe_json(graph, application_id)
    parts = described["subtopologies"]
    ids = {name: f"n{index}" for index, name in enumerate(node["name"] for part in parts for node in part["nodes"])}
    topics: dict[str, str] = {}
    lines = ["flowchart TD"]
    edges: list[str] = []
    touching: list[str] = []

    def topic_id(topic: str) -> str:
        return topics.setdefault(topic, f"t{len(topics)}")

    store_count = 0
    for part in parts:
        lines.append(f'  subgraph s{part["index"]}["{part["index"]}: {part["name"]}"]')
        for node in part["nodes"]:
            own = ids[node["name"]]
            lines.append(f'    {own}["{node["name"]}<br/>{node["operator"]}"]')
            edges += [f"  {ids[parent]} --> {own}" for parent in node["parents"]]
            touching += [f"  {topic_id(topic)} --> {own}" for topic in node.get("topics", ())]
            if "topic" in node:
                touching.append(f"  {own} --> {topic_id(node['topic'] or 'chosen per record')}")
        for store in part["stores"]:
            lines.append(f'    k{store_count}[("{store["name"]}")]')
            users = [node["name"] for node in part["nodes"] if store["name"] in node.get("stores", ())]
            edges += [f"  {ids[name]} <--> k{store_count}" for name in users]
            if store["changelog"]:
                touching.append(f"  k{store_count} -.-> {topic_id(store['changelog'])}")
            store_count += 1
        lines.append("  end")
    lines += [f'  {own}[/"{topic}"/]' for topic, own in topics.items()]
    return "\n".join(lines + edges + touching)


def _store(graph: Graph, name: str, application_id: str) -> dict[str, Any]:
    store = graph.stores[name]
    described: dict[str, Any] = {
        "name": name,
        "key": store.key.name,
        "value": store.value.name,
        "changelog": changelog_topic(application_id, name) if store.changelog else None,
    }
    if store.kind != "key_value":
        described["kind"] = store.kind
    if store.ttl_ms is not None:
        described["ttl_ms"] = store.ttl_ms
    if store.reuse:
        described["source"] = store.source
    return described


def _node(graph: Graph, node: Node, application_id: str) -> dict[str, Any]:
    spec = node.spec
    described = {
        "name": node.name,
        "operator": spec.operator,
        "parents": list(node.parents),
        **spec.facts(graph, application_id),
    }
    if spec.stores:
        described["stores"] = list(spec.stores)
    return described


def _summary(graph: Graph, node: dict[str, Any]) -> str:
    facts = {fact: value for fact, value in node.items() if fact not in ("name", "operator", "parents", "stores")}
    parts = graph.nodes[node["name"]].spec.summary(facts)
    if "stores" in node:
        parts.append(f"store {', '.join(node['stores'])}")
    if node["parents"]:
        parts.append(f"from {', '.join(node['parents'])}")
    return ", ".join(parts)
