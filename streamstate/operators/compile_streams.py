"""Compile functions of the operators on single records: sources, sinks, stateless ones, processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.operators import event_time, stateless
from streamstate.operators.compilation import Compilation, CompileFunction, SourceEntry
from streamstate.operators.process import ProcessorOperator
from streamstate.operators.process_values import ValueProcessorOperator
from streamstate.operators.stateless import Forward
from streamstate.operators.transform import TransformerOperator
from streamstate.state import StagedStore
from streamstate.topology import specs, table_specs
from streamstate.topology.event_time import out_of_order_ms
from streamstate.topology.graph import takes_null_keys
from streamstate.topology.names import repartition_topic


def _source(made: Compilation, node: specs.Node, spec: specs.Source) -> None:
    forward = made.forward(node)
    children = [made.graph.nodes[child].spec for child in made.graph.children(node.name)]
    rows = any(type(child) is table_specs.TableSource for child in children)
    timestamp = event_time.reader(node.name, spec.timestamp, made.context, rows=rows)
    behind_ms = out_of_order_ms(made.graph, node.name)
    place = list(made.graph.nodes).index(node.name)
    for number, topic in enumerate(spec.topics):
        real = repartition_topic(made.context.application_id, topic) if spec.internal else topic
        made.task.sources[real] = SourceEntry(
            node.name,
            real,
            spec.key.deserialize,
            spec.value.deserialize,
            timestamp,
            forward,
            spec.on_error,
            spec.reset,
            behind_ms,
            (not rows, place, number),
            (spec.key, spec.value),
        )


def _sink(made: Compilation, node: specs.Node, spec: specs.Sink) -> None:
    topic: str | None = None
    if isinstance(spec.topic, str):
        topic = repartition_topic(made.context.application_id, spec.topic) if spec.internal else spec.topic
    measured = made.undo is not None
    keys_only = spec.internal and not takes_null_keys(made.graph, node.name)
    made.streams[node.name] = stateless.sink(
        node.name, spec, topic, made.context, measured=measured, keys_only=keys_only
    )


def _single(operator: Callable[[str, Any, Forward], Forward]) -> CompileFunction:
    """For operators that need nothing but their spec and what follows."""

    def compile_(made: Compilation, node: specs.Node, spec: Any) -> None:
        made.streams[node.name] = operator(node.name, spec, made.forward(node))

    return compile_


def _pass_on(made: Compilation, node: specs.Node, spec: specs.Merge | specs.Branch) -> None:
    made.streams[node.name] = made.forward(node)


def _split(made: Compilation, node: specs.Node, spec: specs.Split) -> None:
    branches: list[list[Forward]] = [[] for _ in range(len(spec.predicates) + 1)]
    for child in made.graph.children(node.name):
        branch = made.graph.nodes[child].spec
        if isinstance(branch, specs.Branch):
            branches[branch.index].append(made.streams[child])
    forwards = [stateless.fan_out(branch) for branch in branches]
    made.streams[node.name] = stateless.split(node.name, spec, forwards)


def _process(made: Compilation, node: specs.Node, spec: specs.Process) -> None:
    kind = ValueProcessorOperator if isinstance(spec, specs.ProcessValues) else ProcessorOperator
    operator = kind(node.name, spec.supplier, made.context, _stores_of(made, spec), made.forward(node))
    made.streams[node.name] = operator.run
    _lives(made, node, spec, operator)


def _transform_values(made: Compilation, node: specs.Node, spec: specs.TransformValues) -> None:
    operator = TransformerOperator(node.name, spec.supplier, made.context, _stores_of(made, spec))
    transform, forward = operator.transform, made.forward(node)

    def run(key: Any, value: Any, timestamp: int) -> None:
        forward(key, transform(key, value, timestamp), timestamp)

    made.streams[node.name] = run
    _lives(made, node, spec, operator)


def _stores_of(made: Compilation, spec: specs.Process) -> dict[str, StagedStore]:
    """What a processor may ask for: what it was given, and the global tables."""
    return {**made.global_stores, **{store: made.stores[store] for store in spec.stores}}


def _lives(made: Compilation, node: specs.Node, spec: specs.Process, operator: ProcessorOperator) -> None:
    made.task.processors.append(operator)
    if spec.on_error is not None:
        made.task.policies[node.name] = spec.on_error


STREAMS: dict[type, CompileFunction] = {
    specs.Source: _source,
    specs.Sink: _sink,
    specs.Filter: _single(stateless.filter_),
    specs.Map: _single(stateless.map_),
    specs.MapValues: _single(stateless.map_values),
    specs.FlatMap: _single(stateless.flat_map),
    specs.FlatMapValues: _single(stateless.flat_map_values),
    specs.SelectKey: _single(stateless.select_key),
    specs.Peek: _single(stateless.peek),
    specs.Merge: _pass_on,
    specs.Branch: _pass_on,
    specs.Split: _split,
    specs.Process: _process,
    specs.ProcessValues: _process,
    specs.TransformValues: _transform_values,
}
