"""The immutable graph: nodes, sub-topologies and the topology that they make up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamstate.graph.spec import OperatorSpec
from streamstate.state.spec import StoreSpec


@dataclass(frozen=True, slots=True)
class Node:
    """One operator in the graph.

    Attributes:
        name: unique and stable: it depends on the path to the node, not on the order of unrelated ones.
        parents: names of the nodes that send to it; a repartition source has none (see ``SubTopology``).
    """

    name: str
    spec: OperatorSpec
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubTopology:
    """A part of the graph connected without a repartition topic; its tasks are (sub-topology, partition).

    Attributes:
        index: for display.
        name: identity, used in the state directory: the name of its first source.
        nodes: its nodes' names, parents before children.
        source_topics: external topics it reads.
        repartition_sources: repartition topics it reads (without the application's prefix).
        repartition_sinks: repartition topics it writes (without the application's prefix).
        stores: names of its stores.
    """

    index: int
    name: str
    nodes: tuple[str, ...]
    source_topics: tuple[str, ...]
    repartition_sources: tuple[str, ...]
    repartition_sinks: tuple[str, ...]
    stores: tuple[str, ...]

    @property
    def needs_copartitioning(self) -> bool:
        """True when several topics feed it, so that equal partitions must meet in one task."""
        return len(self.source_topics) + len(self.repartition_sources) > 1


@dataclass(frozen=True, slots=True)
class Graph:
    """An immutable validated topology.

    Attributes:
        name: the topology's name, the default application id.
        nodes: by name, parents before children.
        stores: by name.
        subtopologies: in order of their first source.
        global_tables: by name of their stores.
    """

    name: str
    nodes: dict[str, Node]
    stores: dict[str, StoreSpec]
    subtopologies: tuple[SubTopology, ...]
    global_tables: dict[str, GlobalTableSpec] = field(default_factory=dict)

    def children(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that ``name`` sends to, in the order in which they were added."""
        return tuple(node.name for node in self.nodes.values() if name in node.parents)


@dataclass(frozen=True, slots=True)
class GlobalTableSpec:
    """A topic that every process reads whole.

    Attributes:
        topic: its name.
        store: holds the rows; one per process.
        timestamp: as in ``Source``.
        skip: true when records that cannot be decoded are left out; otherwise they end the process.
    """

    topic: str
    store: StoreSpec
    timestamp: str | Callable[[Any, Any], int] | None = None
    skip: bool = False
