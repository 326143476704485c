"""Compile functions of foreign-key joins."""

from __future__ import annotations

from typing import Any

from streamstate.operators import foreign_key, table
from streamstate.operators.compilation import Compilation, CompileFunction
from streamstate.operators.compile_rows import needs_old, rows
from streamstate.operators.stateless import fan_out
from streamstate.topology import specs, table_specs


def _send(made: Compilation, node: specs.Node, spec: table_specs.ForeignKeySend) -> None:
    children = made.graph.children(node.name)
    (result,) = [c for c in children if isinstance(made.graph.nodes[c].spec, table_specs.ForeignKeyResult)]
    ask = fan_out([made.streams[child] for child in children if child != result])
    answer: Any = made.sides[result, node.name]
    made.tables[node.name] = foreign_key.send(node.name, spec, made.context, ask, answer)


def _subscribe(made: Compilation, node: specs.Node, spec: table_specs.ForeignKeySubscribe) -> None:
    row = rows(made, spec.right, node.name)
    store = made.stores[spec.subscriptions]
    made.streams[node.name] = foreign_key.subscribe(node.name, spec, store, row, made.forward(node))


def _change(made: Compilation, node: specs.Node, spec: table_specs.ForeignKeyChange) -> None:
    store = made.stores[spec.subscriptions]
    made.tables[node.name] = foreign_key.change(node.name, spec, store, made.forward(node))


def _result(made: Compilation, node: specs.Node, spec: table_specs.ForeignKeyResult) -> None:
    forward = made.change(node)
    if spec.store is not None:
        asked = needs_old(made.graph, node.name)
        forward = table.rows_kept(node.name, made.stores[spec.store], forward, needs_old=asked)
    row = rows(made, spec.table, node.name)
    made.streams[node.name], made.sides[node.name, spec.send] = foreign_key.result(
        node.name, spec, row, made.context, forward
    )


FOREIGN_KEYS: dict[type, CompileFunction] = {
    table_specs.ForeignKeySend: _send,
    table_specs.ForeignKeySubscribe: _subscribe,
    table_specs.ForeignKeyChange: _change,
    table_specs.ForeignKeyResult: _result,
}
