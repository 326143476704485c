"""The task in the making: what the ``compile`` methods of all specs register closures with.

Children are compiled before their parents, so that what a node forwards to is always there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streamstate.graph.error_policy import ErrorPolicy
from streamstate.graph.node import Graph, Node
from streamstate.graph.spec import Reset
from streamstate.operators.base.commit_results import CommitEmitter
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed
from streamstate.operators.base.forwarding import Change, Forward, fan_out, fan_out_changes
from streamstate.operators.base.holding import HoldingOperator
from streamstate.serde import Serde
from streamstate.state.staging import StagedStore
from streamstate.state.undo import UndoLog


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """Where records of a topic enter the chain.

    Attributes:
        name: of the source node.
        topic: real name.
        decode_key: from bytes; never given None.
        decode_value: from bytes; never given None.
        timestamp: gives the event time (ms) of (key, value), or None to take the record's own.
        forward: first closure of the chain.
        on_error: policy for records that enter here.
        reset: where to start without a committed offset.
        out_of_order_ms: how far stream time stays behind the event times that enter here.
        precedence: of inputs where event times are equal, lowest first: tables before streams, then as written.
        serdes: of key and value, for errors.
    """

    name: str
    topic: str
    decode_key: Callable[[bytes], Any]
    decode_value: Callable[[bytes], Any]
    timestamp: Callable[[Any, Any], int | None] | None
    forward: Forward
    on_error: ErrorPolicy
    reset: Reset
    out_of_order_ms: int = 0
    precedence: tuple[bool, int, int] = (True, 0, 0)
    serdes: tuple[Serde[Any], Serde[Any]] | None = None


# (key, value, the record's timestamp in ms) to the entry that processing the record would have stored; None: it would
# have stored none.
Rebuild = Callable[[bytes, "bytes | None", int], "tuple[bytes, bytes | None] | None"]


@dataclass(frozen=True, slots=True)
class SourceLog:
    """An input topic that is the changelog of a table's store.

    Attributes:
        topic: its name.
        rebuild: makes the stored entry of a record.
    """

    topic: str
    rebuild: Rebuild


class Lifecycle(Protocol):
    """An operator with a life of its own."""

    def init(self) -> None:
        """State is restored."""

    def close(self) -> None:
        """The task leaves this process, or starts over."""


class CompiledTask:
    """One task's operators, ready to run.

    Attributes:
        sources: by topic.
        source_logs: by store, of stores whose changelog is an input topic.
        policies: of operators that have their own.
        processors: operators with a life of their own, such as users' Processors, in topological order.
        commit_emitters: what waits for the commit, in topological order.
        holders: what holds records back, in topological order.
    """

    def __init__(self) -> None:
        self.sources: dict[str, SourceEntry] = {}
        self.source_logs: dict[str, SourceLog] = {}
        self.policies: dict[str, ErrorPolicy] = {}
        self.processors: list[Lifecycle] = []
        self.commit_emitters: list[CommitEmitter] = []
        self.holders: list[HoldingOperator] = []

    def init(self) -> None:
        """State is restored: initialise processors, in topological order."""
        for processor in self.processors:
            processor.init()

    @property
    def pending(self) -> bool:
        """True when ``flush`` has something to send."""
        return any(len(emitter) for emitter in self.commit_emitters)

    def discard(self) -> None:
        """Drop what waits for the commit."""
        for emitter in self.commit_emitters:
            emitter.discard()

    def close(self) -> None:
        """Close processors; the first failure is raised after all were closed."""
        failure: OperatorFailed | None = None
        for processor in self.processors:
            try:
                processor.close()
            except OperatorFailed as error:
                failure = failure or error
        if failure is not None:
            raise failure


class Compilation:
    """One task in the making.

    Attributes:
        graph: the topology.
        context: the task's, shared by all its operators.
        stores: overlays of the sub-topology's stores by name.
        global_stores: of the process' global tables by name; for reading only.
        undo: where emitters log what to take back when a record fails; None when no policy needs it.
        task: the result.
        streams: how a node that takes records is entered, by the node's name.
        tables: how a node that takes table changes is entered, by the node's name.
        looked_into: operators that others look into, by node.
        sides: how a node with unlike inputs is entered from one of them, by (node, parent); it comes before
            ``streams`` and ``tables``.
    """

    def __init__(
        self,
        graph: Graph,
        context: TaskContext,
        stores: Mapping[str, StagedStore],
        undo: UndoLog | None,
        global_stores: Mapping[str, StagedStore],
    ) -> None:
        self.global_stores = global_stores
        self.graph = graph
        self.context = context
        self.stores = stores
        self.undo = undo
        self.task = CompiledTask()
        self.streams: dict[str, Forward] = {}
        self.tables: dict[str, Change] = {}
        self.looked_into: dict[str, Any] = {}
        self.sides: dict[tuple[str, str], Any] = {}

    def forward(self, node: Node) -> Forward:
        """What a node that sends records calls."""
        name = node.name
        return fan_out([self.sides.get((child, name)) or self.streams[child] for child in self.graph.children(name)])

    def change(self, node: Node) -> Change:
        """What a node that sends table changes calls."""
        name = node.name
        children = self.graph.children(name)
        return fan_out_changes([self.sides.get((child, name)) or self.tables[child] for child in children])
