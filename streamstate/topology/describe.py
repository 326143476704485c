"""A graph for people and for tools: text, Mermaid, JSON.

Rule of this module: everything shown comes from ``describe_json``; the same graph always gives the same
output.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from streamstate.topology.event_time import EventTime
from streamstate.topology.graph import stores_of
from streamstate.topology.names import changelog_topic, repartition_topic
from streamstate.topology.specs import ErrorPolicy, Graph, Node, Process, Sink, Source, Timestamp, ToStream
from streamstate.topology.table_specs import StreamGlobalJoin, StreamTableJoin, TableFilter, TableMapValues, TableSource
from streamstate.topology.window_specs import StreamJoin, Suppress, WindowedAggregate
from streamstate.windows import DEFAULT_GRACE_MS, TimeWindows

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
    versioned = _versioned(graph)
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
                "nodes": [_node(graph.nodes[name], application_id, versioned) for name in part.nodes],
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
        lines += [f"    {node['name']:<{width}}  {_summary(node)}" for node in part["nodes"]]
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


def _versioned(graph: Graph) -> set[str]:
    """The tables of which rows are told as of a time."""
    found: set[str] = set()
    for node in graph.nodes.values():
        spec = node.spec
        if isinstance(spec, TableSource) and spec.store is not None:
            if graph.stores[spec.store].history_ms is not None:
                found.add(node.name)
        elif isinstance(spec, (TableFilter, TableMapValues)) and spec.store is None and node.parents[0] in found:
            found.add(node.name)
    return found


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


def _node(node: Node, application_id: str, versioned: set[str]) -> dict[str, Any]:
    spec = node.spec
    described: dict[str, Any] = {
        "name": node.name,
        "operator": re.sub(r"(?<!^)(?=[A-Z])", "_", type(spec).__name__).lower(),
        "parents": list(node.parents),
    }
    if isinstance(spec, Source):
        topics = [repartition_topic(application_id, name) if spec.internal else name for name in spec.topics]
        described.update(
            topics=topics,
            key=spec.key.name,
            value=spec.value.name,
            timestamp=_of(spec.timestamp),
            reset=spec.reset,
            on_error=_policy(spec.on_error),
            internal=spec.internal,
        )
        if isinstance(spec.timestamp, EventTime):
            action = spec.timestamp.on_future
            described["future_ms"] = spec.timestamp.future_ms
            described["on_future"] = action if isinstance(action, str) else _policy(action)
            described["out_of_order_ms"] = spec.timestamp.out_of_order_ms
    elif isinstance(spec, Sink):
        topic = spec.topic if isinstance(spec.topic, str) else None
        if spec.internal and topic is not None:
            topic = repartition_topic(application_id, topic)
        described.update(topic=topic, key=spec.key.name, value=spec.value.name)
        if spec.partitions is not None:
            described["partitions"] = spec.partitions
    elif isinstance(spec, ToStream):
        described["emit"] = spec.emit
    elif isinstance(spec, Suppress):
        described.update(_suppress(spec))
    elif isinstance(spec, StreamJoin):
        described.update(within=asdict(spec.within), alone=_alone(spec), grace_is_default=_default(spec.within))
    elif isinstance(spec, StreamTableJoin):
        if spec.grace is not None or spec.table in versioned:
            grace_ms = 0 if spec.grace is None else spec.grace.grace_ms
            described.update(grace_ms=grace_ms, grace_is_default=spec.grace is None, tolerance_ms=spec.tolerance_ms)
    elif isinstance(spec, TableSource) and spec.emit != "update":
        described["emit"] = spec.emit
    elif isinstance(spec, StreamGlobalJoin):
        described["global_table"] = spec.table
    elif isinstance(spec, WindowedAggregate):
        described.update(
            operator=f"windowed_{spec.kind}",
            windows=_fields(spec.windows),
            grace_is_default=_default(spec.windows),
            emit=spec.emit,
            late=None if spec.late is None else spec.late.topic,
            idle_ms=spec.idle_ms,
        )
    elif isinstance(spec, Process) and spec.on_error is not None:
        described["on_error"] = _policy(spec.on_error)
    if stores_of(spec):
        described["stores"] = list(stores_of(spec))
    return described


def _default(windows: Any) -> bool | None:
    """Whether windows have the grace that they get when none is given; None: they never close."""
    grace_ms = getattr(windows, "grace_ms", None)
    return None if grace_ms is None else grace_ms == DEFAULT_GRACE_MS


def _alone(spec: StreamJoin) -> list[str]:
    return [side for side, alone in (("left", spec.left_alone), ("right", spec.right_alone)) if alone]


def _suppress(spec: Suppress) -> dict[str, Any]:
    return {
        "until": "window_close" if spec.by_window else "time_limit",
        "wait_ms": spec.wait_ms,
        "max_records": spec.max_records,
        "max_bytes": spec.max_bytes,
        "when_full": spec.when_full,
    }


def _fields(windows: Any) -> dict[str, Any]:
    kind = type(windows).__name__.removesuffix("Windows").lower()
    if isinstance(windows, TimeWindows):
        kind = "tumbling" if windows.size_ms == windows.advance_ms else "hopping"
    return {"kind": kind, **asdict(windows)}


def _of(timestamp: Timestamp) -> str | None:
    of = timestamp.of if isinstance(timestamp, EventTime) else timestamp
    return of if of is None or isinstance(of, str) else "function"


def _policy(policy: ErrorPolicy) -> str:
    return policy.action if policy.topic is None else f"{policy.action} {policy.topic}"


def _numbers(fields: dict[str, Any], node: dict[str, Any]) -> str:
    """Fields and their values; a grace says whether it is the default."""
    shown = " ".join(f"{name} {value}" for name, value in fields.items())
    return f"{shown} (the default grace)" if node["grace_is_default"] else shown


def _summary(node: dict[str, Any]) -> str:
    parts = [node["operator"]]
    if "topics" in node:
        parts[0] += f" {' + '.join(node['topics'])}"
    elif "topic" in node:
        parts[0] += f" {node['topic'] or 'chosen per record'}"
    if "key" in node:
        parts += [f"key {node['key']}", f"value {node['value']}"]
    if "partitions" in node:
        parts.append(f"{node['partitions']} partitions")
    if node.get("timestamp"):
        parts.append(f"timestamp {node['timestamp']}")
    if node.get("future_ms") is not None:
        parts.append(f"at most {node['future_ms']} ms ahead, else {node['on_future']}")
    if node.get("out_of_order_ms"):
        parts.append(f"stream time {node['out_of_order_ms']} ms behind")
    if node.get("reset", "earliest") != "earliest":
        parts.append(f"reset {node['reset']}")
    if node.get("on_error", "fail") != "fail":
        parts.append(f"on error {node['on_error']}")
    if "within" in node:
        parts.append("within " + _numbers(node["within"], node))
        parts += [f"{side} records alone too" for side in node["alone"]]
    if "until" in node:
        parts.append(
            f"until {node['until']} and {node['wait_ms']} ms" if node["wait_ms"] is not None else "no time limit"
        )
    for limit in ("max_records", "max_bytes"):
        if node.get(limit) is not None:
            parts.append(f"{limit} {node[limit]}, then {node['when_full']}")
    if "windows" in node:
        fields = dict(node["windows"])
        parts.append(f"{fields.pop('kind')} windows " + _numbers(fields, node))
    if "grace_ms" in node:
        parts.append(_numbers({"grace_ms": node["grace_ms"]}, node))
        if node["tolerance_ms"] is not None:
            parts.append(f"tolerance_ms {node['tolerance_ms']}")
    if node.get("late"):
        parts.append(f"late records to {node['late']}")
    if node.get("idle_ms"):
        parts.append(f"idle after {node['idle_ms']} ms")
    if "global_table" in node:
        parts.append(f"global table {node['global_table']}")
    if "emit" in node:
        parts.append(f"emit {node['emit']}")
    if "stores" in node:
        parts.append(f"store {', '.join(node['stores'])}")
    if node["parents"]:
        parts.append(f"from {', '.join(node['parents'])}")
    return ", ".join(parts)
