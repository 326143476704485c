"""Compile functions of aggregations per key and of tables."""

from __future__ import annotations

from dataclasses import replace

from streamstate.operators import aggregate as aggregations
from streamstate.operators.aggregate import NewestPerCommit
from streamstate.operators.compilation import Compilation, CompileFunction, policy_behind
from streamstate.operators.compile_rows import needs_old
from streamstate.operators.table import only_changed
from streamstate.topology import specs


def _count(made: Compilation, node: specs.Node, spec: specs.Count) -> None:
    store = made.stores[spec.store]
    made.streams[node.name] = aggregations.count(node.name, store, made.context, made.change(node))


def _reduce(made: Compilation, node: specs.Node, spec: specs.Reduce) -> None:
    store = made.stores[spec.store]
    made.streams[node.name] = aggregations.reduce(
        node.name, spec, store, made.context, made.change(node), needs_old=needs_old(made.graph, node.name)
    )


def _aggregate(made: Compilation, node: specs.Node, spec: specs.Aggregate) -> None:
    store, forward = made.stores[spec.store], made.change(node)
    asked = needs_old(made.graph, node.name)
    for parent, aggregator in zip(node.parents, (spec.aggregator, *spec.others), strict=True):
        one = replace(spec, aggregator=aggregator)
        entry = aggregations.aggregate(node.name, one, store, made.context, forward, needs_old=asked)
        made.sides[node.name, parent] = aggregations.stamped(entry) if spec.timed else entry


def _to_stream(made: Compilation, node: specs.Node, spec: specs.ToStream) -> None:
    forward = made.forward(node)
    if spec.emit == "update":
        made.tables[node.name] = aggregations.every_update(forward)
        return
    if spec.emit == "change":
        serialize = None if spec.value is None else spec.value.serialize
        made.tables[node.name] = only_changed(node.name, serialize, forward)
        return
    policy = policy_behind(made.graph, node.name)
    emitter = NewestPerCommit(spec.key.serialize, forward, made.undo, policy)
    made.task.commit_emitters.append(emitter)
    made.tables[node.name] = aggregations.newest_only(emitter) if made.undo is None else emitter.change


TABLES: dict[type, CompileFunction] = {
    specs.Count: _count,
    specs.Reduce: _reduce,
    specs.Aggregate: _aggregate,
    specs.ToStream: _to_stream,
}
