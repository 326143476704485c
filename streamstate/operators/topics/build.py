"""Repartition topics: how records get to the task that owns their new key."""

from __future__ import annotations

from dataclasses import replace

from streamstate.graph.builder import NodeRef
from streamstate.graph.names import checked
from streamstate.operators.topics.spec import Sink, Source

__all__ = ["through_repartition"]


def through_repartition(at: NodeRef, base: str, operator: str, partitions: int | None = None) -> NodeRef:
    """Send the records of ``at`` through a repartition topic.

    Args:
        at: where the records come from.
        base: the topic is called ``{base}-repartition``, behind the application's prefix.
        operator: needs them to be partitioned by key, for errors.
        partitions: of the topic; None: as many as the topics that it meets.

    Raises:
        TopologyError: a serde is not known, or the name is illegal or taken.
    """
    key, value = at.key_serde(operator), at.value_serde(operator)
    topic = checked(f"{base}-repartition", "name of a repartition topic")
    sink = Sink(topic, key, value, internal=True, partitions=partitions)
    at.builder.add(sink, (at.node,), operator, f"{topic}-sink")
    source = Source((topic,), key, value, on_error=at.on_error, internal=True)
    node = at.builder.add(source, (), operator, topic)
    return replace(at, node=node, key_changed=False)
