"""What a topology is made of: plain descriptions, no behaviour.

Rule of this module: frozen values only. The builder makes them, ``graph`` arranges and validates them,
``streamstate.operators`` compiles them into closures, once per task. A function found in a spec is the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from streamstate.serde import Serde
from streamstate.store_spec import SegmentSpec as SegmentSpec
from streamstate.store_spec import StoreSpec as StoreSpec
from streamstate.topology.emit import StreamEmit
from streamstate.topology.event_time import EventTime
from streamstate.topology.held_specs import HeldSpec
from streamstate.topology.table_specs import GlobalTableSpec, TableSpec
from streamstate.topology.window_specs import WindowSpec

Reset = Literal["earliest", "latest", "error"]
Timestamp = str | Callable[[Any, Any], int] | EventTime[Any, Any] | None


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What happens to a record that fails in user code or in a serde.

    Attributes:
        action: ``fail`` stops the worker; ``continue`` counts and logs the record and goes on;
            ``dead_letter`` writes its original bytes to ``topic`` within the same transaction and goes on.
        topic: the dead-letter topic, for ``dead_letter`` only.
    """

    action: Literal["fail", "continue", "dead_letter"]
    topic: str | None = None


FAIL = ErrorPolicy("fail")
CONTINUE = ErrorPolicy("continue")


@dataclass(frozen=True, slots=True)
class Source:
    """Records of one or several topics enter here.

    Attributes:
        topics: read in merged time order per task.
        timestamp: event time in ms since 1970: a field of the value, a function of (key, value), None for the
            record's own, or one of these with bounds.
        reset: where to start without a committed offset.
        internal: true for a repartition topic of this application; its name lacks the application's prefix.
    """

    topics: tuple[str, ...]
    key: Serde[Any]
    value: Serde[Any]
    timestamp: Timestamp = None
    reset: Reset = "earliest"
    on_error: ErrorPolicy = FAIL
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    predicate: Callable[[Any, Any], object]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Map:
    function: Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class MapValues:
    """``with_key``: the function takes the key too, in front; it may not change it."""

    function: Callable[..., Any]
    with_key: bool = False


@dataclass(frozen=True, slots=True)
class FlatMap:
    function: Callable[[Any, Any], Iterable[tuple[Any, Any]]]


@dataclass(frozen=True, slots=True)
class FlatMapValues:
    """``with_key`` as in ``MapValues``."""

    function: Callable[..., Iterable[Any]]
    with_key: bool = False


@dataclass(frozen=True, slots=True)
class SelectKey:
    function: Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Peek:
    """Calls a function for its effect. ``forward`` is false for ``for_each``, which ends the stream."""

    function: Callable[[Any, Any], object]
    forward: bool = True


@dataclass(frozen=True, slots=True)
class Merge:
    """Passes on what any of its parents sends."""


@dataclass(frozen=True, slots=True)
class Split:
    """Sends a record to the first ``Branch`` child whose predicate holds; ``None`` is the last, for the rest."""

    predicates: tuple[Callable[[Any, Any], object], ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """Child ``index`` of a Split; ``index == len(predicates)`` takes the rest. Passes records on."""

    index: int


@dataclass(frozen=True, slots=True)
class Sink:
    """Records leave here.

    Attributes:
        topic: a name or a function of (key, value).
        internal: true for a repartition topic of this application (``topic`` lacks the application's prefix).
        partitions: a repartition topic's asked-for partition count; None: as many as its co-partitioned peers.
        partition_of: chooses the partition of (key, value); None: murmur2 of the key.
    """

    topic: str | Callable[[Any, Any], str]
    key: Serde[Any]
    value: Serde[Any]
    internal: bool = False
    partitions: int | None = None
    partition_of: Callable[[Any, Any], int] | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """Counts records per key. Emits table changes."""

    store: str


@dataclass(frozen=True, slots=True)
class Reduce:
    """Folds values per key, the first value being the start. Emits table changes."""

    store: str
    function: Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Folds (key, value, aggregate) per key. Emits table changes.

    Attributes:
        result: what the table shows of the stored aggregate; None: the aggregate itself.
        timed: the aggregator takes (key, (value, event time), aggregate).
        others: aggregators of the further parents, of a cogroup.
    """

    store: str
    initializer: Callable[[], Any]
    aggregator: Callable[[Any, Any, Any], Any]
    result: Callable[[Any], Any] | None = None
    timed: bool = False
    others: tuple[Callable[[Any, Any, Any], Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ToStream:
    """Table changes as a stream.

    Attributes:
        key: serde of the key.
        emit: ``update``: each; ``change``: those whose value differs from the row that was there; ``commit``: at each
            commit the newest per key.
        value: serde of the value, where known.
    """

    key: Serde[Any]
    emit: StreamEmit = "update"
    value: Serde[Any] | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A user's Processor.

    Attributes:
        supplier: makes a new Processor for each task.
        stores: names of the stores it may use.
        on_error: overrides the source's policy for errors raised by this processor.
    """

    supplier: Callable[[], Any]
    stores: tuple[str, ...]
    on_error: ErrorPolicy | None = None


@dataclass(frozen=True, slots=True)
class ProcessValues(Process):
    """A user's ValueProcessor, which leaves keys alone."""


@dataclass(frozen=True, slots=True)
class TransformValues(Process):
    """A user's ValueTransformer on a stream."""


Spec = (
    Source | Filter | Map | MapValues | FlatMap | FlatMapValues | SelectKey | Peek | Merge | Split | Branch
    | Sink | Count | Reduce | Aggregate | ToStream | Process
    | ProcessValues | TransformValues | TableSpec | WindowSpec | HeldSpec
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """One operator in the graph.

    Attributes:
        name: unique and stable: it depends on the path to the node, not on the order of unrelated ones.
        parents: names of the nodes that send to it; a repartition source has none (see ``SubTopology``).
    """

    name: str
    spec: Spec
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
