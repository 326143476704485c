"""Compile functions of tables with rows, of what is done row by row, and of joins that look rows up.

Rule of this module: what a table's children need of it is read off the graph, so that what nobody needs costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.operators import stream_table, table
from streamstate.operators.compilation import Compilation, CompileFunction, SourceLog
from streamstate.operators.table import Getter
from streamstate.topology import specs, table_specs


def needs_old(graph: specs.Graph, name: str) -> bool:
    """True when something behind this table compares old and new rows."""
    for child in graph.children(name):
        spec = graph.nodes[child].spec
        if isinstance(spec, table_specs.TableFilter | table_specs.TableMapValues) and needs_old(graph, child):
            return True
    return False


def rows(made: Compilation, name: str, by: str) -> Getter:
    """How the operator ``by`` looks up rows of the table ``name``."""
    node = made.graph.nodes[name]
    match node.spec:
        case specs.Count(store) | specs.Reduce(store):
            return table.rows_in(by, made.stores[store])
        case specs.Aggregate(store, result=result):
            return table.rows_in(by, made.stores[store], result)
        case table_specs.TableSource(store=str(store)):
            return table.rows_in(by, made.stores[store])
        case table_specs.TableFilter(store=store) | table_specs.TableMapValues(store=store):
            if store is not None:
                return table.rows_in(by, made.stores[store])
            return table.rows_through(rows(made, node.parents[0], by), _shown(node))
    raise AssertionError(f"table {name!r} has no rows to look up")


def _shown(node: specs.Node) -> Callable[[Any, Any], Any]:
    spec = node.spec
    if isinstance(spec, table_specs.TableFilter):
        return table.row_predicate(node.name, spec.predicate, spec.negate)
    assert isinstance(spec, table_specs.TableMapValues), "neither a filter nor a map"
    return table.row_function(node.name, spec.function)


def _table_source(made: Compilation, node: specs.Node, spec: table_specs.TableSource) -> None:
    forward = made.change(node)
    if spec.store is None:
        made.streams[node.name] = table.source_without_rows(made.context, forward)
        return
    asked = needs_old(made.graph, node.name)
    if spec.emit == "change":
        forward = table.only_changes(node.name, spec.value.serialize, forward)
        asked = True
    store = made.stores[spec.store]
    made.streams[node.name] = table.source(node.name, store, made.context, forward, needs_old=asked)
    if store.spec.reuse:
        source = made.graph.nodes[node.parents[0]].spec
        assert isinstance(source, specs.Source), "the log of something that is not a source"
        made.task.source_logs[spec.store] = SourceLog(spec.source, table.rebuilt(source))


def _row_wise(made: Compilation, node: specs.Node, spec: table_specs.TableFilter | table_specs.TableMapValues) -> None:
    forward, asked = made.change(node), needs_old(made.graph, node.name)
    drops = isinstance(spec, table_specs.TableFilter)
    shown = _shown(node)
    if spec.store is None:
        made.tables[node.name] = table.row_wise(shown, forward, needs_old=asked, drops=drops)
        return
    store = made.stores[spec.store]
    made.tables[node.name] = table.row_wise_kept(node.name, store, shown, forward, needs_old=asked, drops=drops)


def _stream_table_join(made: Compilation, node: specs.Node, spec: table_specs.StreamTableJoin) -> None:
    row = rows(made, spec.table, node.name)
    made.streams[node.name] = stream_table.join(
        node.name, spec.joiner, spec.left, row, made.context, made.forward(node)
    )


ROWS: dict[type, CompileFunction] = {
    table_specs.TableSource: _table_source,
    table_specs.TableFilter: _row_wise,
    table_specs.TableMapValues: _row_wise,
    table_specs.StreamTableJoin: _stream_table_join,
}
