"""Compile functions of tables with rows, of what is done row by row, and of joins that look rows up.

Rule of this module: what a table's children need of it is read off the graph, so that what nobody needs costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.operators import stream_table, table, table_groups, table_join
from streamstate.operators.aggregate import Change, fan_out_changes
from streamstate.operators.compilation import Compilation, CompileFunction, SourceLog
from streamstate.operators.suppress import Suppressor
from streamstate.operators.table import Getter, GetterAsOf
from streamstate.operators.transform import TransformerOperator
from streamstate.state import Versions
from streamstate.topology import specs, table_specs, window_specs


def needs_old(graph: specs.Graph, name: str) -> bool:
    """True when something behind this table compares old and new rows."""
    return any(_asks_for_old(graph, child, name) for child in graph.children(name))


def _asks_for_old(graph: specs.Graph, name: str, parent: str) -> bool:
    match graph.nodes[name].spec:
        case table_specs.TableGroupBy() | table_specs.ForeignKeySend() | window_specs.Suppress():
            return True
        case specs.ToStream(emit="change"):
            return True
        case table_specs.TableFilter(store=store):
            # One with a store finds old rows there.
            return store is None and (needs_old(graph, name) or gives_old(graph, parent))
        case table_specs.TableMapValues(store=store):
            return store is None and needs_old(graph, name)
        case table_specs.TableJoin() as join:
            if (join.left_alone and parent == join.left) or (join.right_alone and parent == join.right):
                return True
            return join.store is None and needs_old(graph, name)
    return False


def gives_old(graph: specs.Graph, name: str) -> bool:
    """True when a table can say what a row was before without a store of its own for it. A filter behind such a table
    leaves out deletions of what it never let through, as in Kafka Streams (KAFKA-10077)."""
    match graph.nodes[name].spec:
        case table_specs.TableFilter(store=None) | table_specs.TableMapValues(store=None):
            return gives_old(graph, graph.nodes[name].parents[0])
        case table_specs.TableJoin() | window_specs.Suppress():
            return True
        case spec:
            return getattr(spec, "store", None) is not None


def suppressor(made: Compilation, node: specs.Node, spec: window_specs.Suppress) -> Suppressor:
    """The one of ``node``; whoever looks into it comes before it."""
    operator: Suppressor | None = made.looked_into.get(node.name)
    if operator is None:
        operator = Suppressor(node.name, spec, made.stores[spec.store], made.context, made.undo)
        made.looked_into[node.name] = operator
    return operator


def rows_held_back(held: Suppressor, rows_below: Getter) -> Getter:
    """Rows as they were let go: of what is held back, as it was before."""

    def row(key: Any) -> tuple[Any, int] | None:
        try:
            return held.row(key)
        except LookupError:
            return rows_below(key)

    return row


def rows(made: Compilation, name: str, by: str) -> Getter:
    """How the operator ``by`` looks up rows of the table ``name``."""
    node = made.graph.nodes[name]
    match node.spec:
        case specs.Count(store) | specs.Reduce(store):
            return table.rows_in(by, made.stores[store])
        case specs.Aggregate(store, result=result):
            return table.rows_in(by, made.stores[store], result)
        case window_specs.WindowedAggregate(store=store, result=result):
            return table.rows_in(by, made.stores[store], result)
        case window_specs.Suppress():
            return rows_held_back(suppressor(made, node, node.spec), rows(made, node.parents[0], by))
        case table_specs.TableReduce(store) | table_specs.TableAggregate(store):
            return table.rows_in(by, made.stores[store])
        case table_specs.TableSource(store=str(store)) if made.graph.stores[store].history_ms is not None:
            version = versions(made, name, by)
            assert version is not None, "a versioned store without versions"
            find = version
            return lambda key: find(key, None)
        case (
            table_specs.TableSource(store=str(store))
            | table_specs.TableTransformValues(store=str(store))
            | table_specs.TableJoin(store=str(store))
            | table_specs.ForeignKeyResult(store=str(store))
        ):
            return table.rows_in(by, made.stores[store])
        case table_specs.TableJoin() as join:
            left, right = rows(made, join.left, by), rows(made, join.right, by)
            return table_join.rows_joined(
                by,
                join.joiner,
                left,
                right,
                left_alone=join.left_alone,
                right_alone=join.right_alone,
                with_key=join.with_key,
            )
        case table_specs.TableFilter(store=store) | table_specs.TableMapValues(store=store):
            if store is not None:
                return table.rows_in(by, made.stores[store])
            return table.rows_through(rows(made, node.parents[0], by), _shown(node))
    raise AssertionError(f"table {name!r} has no rows to look up")


def versions(made: Compilation, name: str, by: str) -> GetterAsOf | None:
    """How the operator ``by`` looks up rows of the table ``name`` as of a time; None where it cannot."""
    node = made.graph.nodes[name]
    match node.spec:
        case table_specs.TableSource(store=str(store)) if made.graph.stores[store].history_ms is not None:
            return table.versions_in(by, Versions(made.stores[store]), made.graph.stores[store])
        case table_specs.TableFilter(store=None) | table_specs.TableMapValues(store=None):
            found = versions(made, node.parents[0], by)
            return None if found is None else table.versions_through(found, _shown(node))
    return None


def _stale(made: Compilation, name: str) -> Change:
    """What a versioned table calls for changes that are not the newest of their row."""
    entered = []
    for child in made.graph.children(name):
        node = made.graph.nodes[child]
        match node.spec:
            case table_specs.TableFilter(store=None) | table_specs.TableMapValues(store=None):
                entered.append(table.row_wise(_shown(node), _stale(made, child), needs_old=False, drops=False))
            case table_specs.TableJoin() | table_specs.TableGroupBy() | table_specs.ForeignKeySend():
                entered.append(table.left_out(made.context))
            case table_specs.ForeignKeyChange():
                entered.append(table.left_out(made.context))
            case _:
                entered.append(made.sides.get((child, name)) or made.tables[child])
    return fan_out_changes(entered)


def _shown(node: specs.Node) -> Callable[[Any, Any], Any]:
    spec = node.spec
    if isinstance(spec, table_specs.TableFilter):
        return table.row_predicate(node.name, spec.predicate, spec.negate)
    assert isinstance(spec, table_specs.TableMapValues), "neither a filter nor a map"
    return table.row_function(node.name, spec.function, spec.with_key)


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
    if store.spec.history_ms is not None:
        made.streams[node.name] = table.versioned_source(
            node.name,
            Versions(store),
            store.spec,
            made.context,
            forward,
            _stale(made, node.name),
            needs_old=asked,
        )
        return
    made.streams[node.name] = table.source(node.name, store, made.context, forward, needs_old=asked)
    if store.spec.reuse:
        source = made.graph.nodes[node.parents[0]].spec
        assert isinstance(source, specs.Source), "the log of something that is not a source"
        assert spec.source is not None, "the log of no topic"
        made.task.source_logs[spec.store] = SourceLog(spec.source, table.rebuilt(source))


def _row_wise(made: Compilation, node: specs.Node, spec: table_specs.TableFilter | table_specs.TableMapValues) -> None:
    forward, asked = made.change(node), needs_old(made.graph, node.name)
    drops = isinstance(spec, table_specs.TableFilter) and versions(made, node.parents[0], node.name) is None
    if drops:
        asked = asked or gives_old(made.graph, node.parents[0])
    shown = _shown(node)
    if spec.store is None:
        made.tables[node.name] = table.row_wise(shown, forward, needs_old=asked, drops=drops)
        return
    store = made.stores[spec.store]
    made.tables[node.name] = table.row_wise_kept(node.name, store, shown, forward, needs_old=asked, drops=drops)


def _transform_values(made: Compilation, node: specs.Node, spec: table_specs.TableTransformValues) -> None:
    stores = {**made.global_stores, **{store: made.stores[store] for store in spec.uses}}
    operator = TransformerOperator(node.name, spec.supplier, made.context, stores)
    made.task.processors.append(operator)
    transform, forward = operator.transform, made.change(node)
    if spec.store is not None:
        asked = needs_old(made.graph, node.name)
        forward = table.rows_kept(node.name, made.stores[spec.store], forward, needs_old=asked)

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        forward(key, transform(key, new, timestamp), None, timestamp)

    made.tables[node.name] = run


def _table_join(made: Compilation, node: specs.Node, spec: table_specs.TableJoin) -> None:
    name, joiner, forward = node.name, spec.joiner, made.change(node)
    asked = needs_old(made.graph, name)
    if spec.store is not None:
        forward = table.rows_kept(name, made.stores[spec.store], forward, needs_old=asked)
        asked = False
    left = table_join.side(
        name,
        joiner,
        rows(made, spec.right, name),
        forward,
        mine_alone=spec.left_alone,
        other_alone=spec.right_alone,
        needs_old=asked,
        with_key=spec.with_key,
    )
    right = table_join.side(
        name,
        table_join.from_right(joiner, spec.with_key),
        rows(made, spec.left, name),
        forward,
        mine_alone=spec.right_alone,
        other_alone=spec.left_alone,
        needs_old=asked,
        with_key=spec.with_key,
    )
    if spec.left == spec.right:
        made.tables[name] = fan_out_changes([left, right])
        return
    made.sides[name, spec.left] = left
    made.sides[name, spec.right] = right


def _group_by(made: Compilation, node: specs.Node, spec: table_specs.TableGroupBy) -> None:
    made.tables[node.name] = table_groups.group_by(node.name, spec, made.forward(node))


def _fold(made: Compilation, node: specs.Node, spec: table_specs.TableReduce | table_specs.TableAggregate) -> None:
    if isinstance(spec, table_specs.TableReduce):
        fold = table_groups.reduce(spec)
    else:
        fold = table_groups.aggregate(spec)
    asked = needs_old(made.graph, node.name)
    made.streams[node.name] = table_groups.folded(
        node.name, fold, made.stores[spec.store], made.change(node), needs_old=asked
    )


def _stream_table_join(made: Compilation, node: specs.Node, spec: table_specs.StreamTableJoin) -> None:
    name, forward = node.name, made.forward(node)
    version = versions(made, spec.table, name)
    if version is None:
        row = rows(made, spec.table, name)
        made.streams[name] = stream_table.join(name, spec, row, made.context, forward)
        return
    join = stream_table.join_as_of(name, spec, version, made.context, forward)
    if spec.grace is not None:
        join = stream_table.Waiting(name, spec.grace, made.stores[spec.grace.store], made.context, join).run
    made.streams[name] = join


def _stream_global_join(made: Compilation, node: specs.Node, spec: table_specs.StreamGlobalJoin) -> None:
    row = table.rows_in(node.name, made.global_stores[spec.table])
    made.streams[node.name] = stream_table.join_global(node.name, spec, row, made.context, made.forward(node))


ROWS: dict[type, CompileFunction] = {
    table_specs.TableSource: _table_source,
    table_specs.ToTable: _table_source,
    table_specs.TableFilter: _row_wise,
    table_specs.TableMapValues: _row_wise,
    table_specs.TableTransformValues: _transform_values,
    table_specs.TableJoin: _table_join,
    table_specs.TableGroupBy: _group_by,
    table_specs.TableReduce: _fold,
    table_specs.TableAggregate: _fold,
    table_specs.StreamTableJoin: _stream_table_join,
    table_specs.StreamGlobalJoin: _stream_global_join,
}
