"""Sources and sinks: where records enter a topology and where they leave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from streamstate.graph.error_policy import FAIL, ErrorPolicy
from streamstate.graph.names import repartition_topic
from streamstate.graph.node import Graph, Node
from streamstate.graph.queries import takes_null_keys
from streamstate.graph.spec import Facts, Reset, SinkSpec, SourceSpec
from streamstate.operators.base.compilation import Compilation, SourceEntry
from streamstate.operators.topics.event_time import EventTime, Timestamp, out_of_order_ms
from streamstate.operators.topics.sink import sink
from streamstate.operators.topics.timestamps import reader
from streamstate.serde import Serde

__all__ = ["Sink", "Source", "shown_policy"]


def shown_policy(policy: ErrorPolicy) -> str:
    """An error policy as descriptions show it."""
    return policy.action if policy.topic is None else f"{policy.action} {policy.topic}"


@dataclass(frozen=True, slots=True)
class Source(SourceSpec):
    """Records of one or several topics enter here.

    Attributes:
        topics: read in merged time order per task.
        timestamp: event time in ms since 1970: a field of the value, a function of (key, value), None for the
            record's own, or one of these with bounds.
        reset: where to start without a committed offset.
        internal: true for a repartition topic of this application; its name lacks the application's prefix.
        rows: the records are rows of a table: one that deletes is not asked for an event time, and has its own.
    """

    operator: ClassVar[str] = "source"
    stores: ClassVar[tuple[str, ...]] = ()

    topics: tuple[str, ...]
    key: Serde[Any]
    value: Serde[Any]
    timestamp: Timestamp = None
    reset: Reset = "earliest"
    on_error: ErrorPolicy = FAIL
    internal: bool = False
    rows: bool = False

    @property
    def error_policies(self) -> tuple[ErrorPolicy, ...]:
        """That of its records, and that of records from the future."""
        times = self.timestamp
        if isinstance(times, EventTime) and isinstance(times.on_future, ErrorPolicy):
            return self.on_error, times.on_future
        return (self.on_error,)

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """Topics, serdes, event time, policies."""
        times = self.timestamp
        of = times.of if isinstance(times, EventTime) else times
        facts: Facts = {
            "topics": [repartition_topic(application_id, name) if self.internal else name for name in self.topics],
            "key": self.key.name,
            "value": self.value.name,
            "timestamp": of if of is None or isinstance(of, str) else "function",
            "reset": self.reset,
            "on_error": shown_policy(self.on_error),
            "internal": self.internal,
        }
        if isinstance(times, EventTime):
            action = times.on_future
            facts["future_ms"] = times.future_ms
            facts["on_future"] = action if isinstance(action, str) else shown_policy(action)
            facts["out_of_order_ms"] = times.out_of_order_ms
        return facts

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """Topics and serdes, and what is not as usual."""
        parts = [f"source {' + '.join(facts['topics'])}", f"key {facts['key']}", f"value {facts['value']}"]
        if facts["timestamp"]:
            parts.append(f"timestamp {facts['timestamp']}")
        if facts.get("future_ms") is not None:
            parts.append(f"at most {facts['future_ms']} ms ahead, else {facts['on_future']}")
        if facts.get("out_of_order_ms"):
            parts.append(f"stream time {facts['out_of_order_ms']} ms behind")
        if self.reset != "earliest":
            parts.append(f"reset {self.reset}")
        if facts["on_error"] != "fail":
            parts.append(f"on error {facts['on_error']}")
        return parts

    def compile(self, compilation: Compilation, node: Node) -> None:
        """One entry of the chain for each topic."""
        graph, context = compilation.graph, compilation.context
        forward = compilation.forward(node)
        timestamp = reader(node.name, self.timestamp, context, rows=self.rows)
        behind_ms = out_of_order_ms(graph, node.name)
        place = list(graph.nodes).index(node.name)
        for number, topic in enumerate(self.topics):
            real = repartition_topic(context.application_id, topic) if self.internal else topic
            compilation.task.sources[real] = SourceEntry(
                node.name,
                real,
                self.key.deserialize,
                self.value.deserialize,
                timestamp,
                forward,
                self.on_error,
                self.reset,
                behind_ms,
                (not self.rows, place, number),
                (self.key, self.value),
            )


@dataclass(frozen=True, slots=True)
class Sink(SinkSpec):
    """Records leave here.

    Attributes:
        topic: a name or a function of (key, value).
        internal: true for a repartition topic of this application (``topic`` lacks the application's prefix).
        partitions: a repartition topic's asked-for partition count; None: as many as its co-partitioned peers.
        partition_of: chooses the partition of (key, value); None: murmur2 of the key.
    """

    operator: ClassVar[str] = "sink"
    stores: ClassVar[tuple[str, ...]] = ()

    topic: str | Callable[[Any, Any], str]
    key: Serde[Any]
    value: Serde[Any]
    internal: bool = False
    partitions: int | None = None
    partition_of: Callable[[Any, Any], int] | None = None

    @property
    def output_topics(self) -> tuple[str, ...]:
        """The topic, where it is fixed and not internal."""
        return (self.topic,) if isinstance(self.topic, str) and not self.internal else ()

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """The topic and its serdes."""
        topic = self.topic if isinstance(self.topic, str) else None
        if self.internal and topic is not None:
            topic = repartition_topic(application_id, topic)
        facts: Facts = {"topic": topic, "key": self.key.name, "value": self.value.name}
        if self.partitions is not None:
            facts["partitions"] = self.partitions
        return facts

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same."""
        topic = facts["topic"] or "chosen per record"
        parts = [f"sink {topic}", f"key {facts['key']}", f"value {facts['value']}"]
        if self.partitions is not None:
            parts.append(f"{self.partitions} partitions")
        return parts

    def compile(self, compilation: Compilation, node: Node) -> None:
        """What appends to the task's outputs."""
        context = compilation.context
        topic: str | None = None
        if isinstance(self.topic, str):
            topic = repartition_topic(context.application_id, self.topic) if self.internal else self.topic
        measured = compilation.undo is not None
        keys_only = self.internal and not takes_null_keys(compilation.graph, node.name)
        compilation.streams[node.name] = sink(node.name, self, topic, context, measured=measured, keys_only=keys_only)
