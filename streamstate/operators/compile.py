"""From the graph to one task's chain of closures.

Rule of this module: all decisions are taken here, once per task; what is left for a record is calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamstate.operators import aggregate as aggregations
from streamstate.operators import stateless
from streamstate.operators.aggregate import Change, NewestPerCommit
from streamstate.operators.context import OperatorFailed, TaskContext
from streamstate.operators.process import ProcessorOperator
from streamstate.operators.stateless import Forward
from streamstate.state import StagedStore, UndoLog
from streamstate.topology import specs


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
    """

    name: str
    topic: str
    decode_key: Callable[[bytes], Any]
    decode_value: Callable[[bytes], Any]
    timestamp: Callable[[Any, Any], int] | None
    forward: Forward
    on_error: specs.ErrorPolicy
    reset: specs.Reset


class CompiledTask:
    """One task's operators, ready to run.

    Attributes:
        sources: by topic.
        policies: of operators that have their own.
    """

    def __init__(self) -> None:
        self.sources: dict[str, SourceEntry] = {}
        self.policies: dict[str, specs.ErrorPolicy] = {}
        self._processors: list[ProcessorOperator] = []
        self._commit_emitters: list[NewestPerCommit] = []

    def init(self) -> None:
        """State is restored: initialise processors, in topological order."""
        for processor in self._processors:
            processor.init()

    def flush(self) -> None:
        """The transaction is about to close: send on what waits for it, upstream first."""
        for emitter in self._commit_emitters:
            emitter.flush()

    @property
    def pending(self) -> bool:
        """True when ``flush`` has something to send."""
        return any(len(emitter) for emitter in self._commit_emitters)

    def discard(self) -> None:
        """Drop what waits for the commit."""
        for emitter in self._commit_emitters:
            emitter.discard()

    def close(self) -> None:
        """Close processors; the first failure is raised after all were closed."""
        failure: OperatorFailed | None = None
        for processor in self._processors:
            try:
                processor.close()
            except OperatorFailed as error:
                failure = failure or error
        if failure is not None:
            raise failure


def compile_task(
    graph: specs.Graph,
    subtopology: specs.SubTopology,
    context: TaskContext,
    stores: Mapping[str, StagedStore],
    undo: UndoLog | None,
) -> CompiledTask:
    """Compile ``subtopology`` for one task.

    Args:
        graph: the topology.
        subtopology: the part that the task runs.
        context: the task's, shared by all its operators.
        stores: overlays of the sub-topology's stores by name.
        undo: where emitters log what to take back when a record fails; None when no policy needs it.
    """
    return _Compiler(graph, subtopology, context, stores, undo).run()


class _Compiler:
    def __init__(
        self,
        graph: specs.Graph,
        subtopology: specs.SubTopology,
        context: TaskContext,
        stores: Mapping[str, StagedStore],
        undo: UndoLog | None,
    ) -> None:
        self._graph = graph
        self._subtopology = subtopology
        self._context = context
        self._stores = stores
        self._undo = undo
        self._task = CompiledTask()
        self._streams: dict[str, Forward] = {}
        self._tables: dict[str, Change] = {}
        # Keys of the table that a node emits, for operators that need their bytes.
        self._table_stores: dict[str, StagedStore] = {}

    def run(self) -> CompiledTask:
        nodes = [self._graph.nodes[name] for name in self._subtopology.nodes]
        for node in nodes:
            if isinstance(node.spec, specs.Count | specs.Reduce | specs.Aggregate):
                self._table_stores[node.name] = self._stores[node.spec.store]
        # Children first, so that each closure finds what it forwards to.
        for node in reversed(nodes):
            self._compile(node)
        self._task._processors.reverse()
        self._task._commit_emitters.reverse()
        return self._task

    def _forward(self, node: specs.Node) -> Forward:
        return stateless.fan_out([self._streams[child] for child in self._graph.children(node.name)])

    def _change(self, node: specs.Node) -> Change:
        return aggregations.fan_out_changes([self._tables[child] for child in self._graph.children(node.name)])

    def _compile(self, node: specs.Node) -> None:
        name, spec = node.name, node.spec
        match spec:
            case specs.Source():
                self._source(node, spec)
            case specs.Sink():
                self._streams[name] = stateless.sink(name, spec, self._sink_topic(spec), self._context)
            case specs.Filter():
                self._streams[name] = stateless.filter_(name, spec, self._forward(node))
            case specs.Map():
                self._streams[name] = stateless.map_(name, spec, self._forward(node))
            case specs.MapValues():
                self._streams[name] = stateless.map_values(name, spec, self._forward(node))
            case specs.FlatMap():
                self._streams[name] = stateless.flat_map(name, spec, self._forward(node))
            case specs.FlatMapValues():
                self._streams[name] = stateless.flat_map_values(name, spec, self._forward(node))
            case specs.SelectKey():
                self._streams[name] = stateless.select_key(name, spec, self._forward(node))
            case specs.Peek():
                self._streams[name] = stateless.peek(name, spec, self._forward(node))
            case specs.Merge() | specs.Branch():
                self._streams[name] = self._forward(node)
            case specs.Split():
                self._streams[name] = self._split(node, spec)
            case specs.Count():
                store = self._stores[spec.store]
                self._streams[name] = aggregations.count(name, store, self._context, self._change(node))
            case specs.Reduce():
                store = self._stores[spec.store]
                self._streams[name] = aggregations.reduce(name, spec, store, self._context, self._change(node))
            case specs.Aggregate():
                store = self._stores[spec.store]
                self._streams[name] = aggregations.aggregate(name, spec, store, self._context, self._change(node))
            case specs.ToStream():
                self._tables[name] = self._to_stream(node, spec)
            case specs.Process():
                self._process(node, spec)

    def _sink_topic(self, spec: specs.Sink) -> str | None:
        if not isinstance(spec.topic, str):
            return None
        return internal_topic(self._context.application_id, spec.topic) if spec.internal else spec.topic

    def _source(self, node: specs.Node, spec: specs.Source) -> None:
        for topic in spec.topics:
            real = internal_topic(self._context.application_id, topic) if spec.internal else topic
            self._task.sources[real] = SourceEntry(
                node.name,
                real,
                spec.key.deserialize,
                spec.value.deserialize,
                _timestamp_function(spec.timestamp),
                self._forward(node),
                spec.on_error,
                spec.reset,
            )

    def _split(self, node: specs.Node, spec: specs.Split) -> Forward:
        branches: list[list[Forward]] = [[] for _ in range(len(spec.predicates) + 1)]
        for child in self._graph.children(node.name):
            branch = self._graph.nodes[child].spec
            if isinstance(branch, specs.Branch):
                branches[branch.index].append(self._streams[child])
        return stateless.split(node.name, spec, [stateless.fan_out(forwards) for forwards in branches])

    def _to_stream(self, node: specs.Node, spec: specs.ToStream) -> Change:
        forward = self._forward(node)
        if spec.emit == "update":
            return aggregations.every_update(forward)
        serialize_key = self._table_stores[node.parents[0]].spec.key.serialize
        emitter = NewestPerCommit(node.name, serialize_key, forward, self._undo)
        self._task._commit_emitters.append(emitter)
        return emitter.change

    def _process(self, node: specs.Node, spec: specs.Process) -> None:
        stores = {store: self._stores[store] for store in spec.stores}
        operator = ProcessorOperator(node.name, spec.supplier, self._context, stores, self._forward(node))
        self._task._processors.append(operator)
        if spec.on_error is not None:
            self._task.policies[node.name] = spec.on_error
        self._streams[node.name] = operator.run


def internal_topic(application_id: str, name: str) -> str:
    """The real name of a repartition topic or changelog.

    >>> internal_topic("word-count", "counts-changelog")
    'word-count-counts-changelog'
    """
    return f"{application_id}-{name}"


def _timestamp_function(
    timestamp: str | Callable[[Any, Any], int] | None,
) -> Callable[[Any, Any], int] | None:
    if isinstance(timestamp, str):
        field = timestamp
        return lambda key, value: value[field]
    return timestamp
