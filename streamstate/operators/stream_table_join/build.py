"""Joins of a stream with a table: what ``Stream.join`` and ``Stream.left_join`` add to the builder.

Rule of this module: as of the handles; it checks what it is given and adds nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from streamstate.errors import TopologyError
from streamstate.functions import by_field
from streamstate.graph.builder import GlobalTableRef, NodeRef, same_builder
from streamstate.graph.names import checked
from streamstate.operators.base.tables import materialized, versioned_store
from streamstate.operators.stream_table_join.spec import JoinGrace, StreamGlobalJoin, StreamTableJoin
from streamstate.operators.topics.build import through_repartition
from streamstate.serde import Serde, bytes_
from streamstate.state.spec import SegmentSpec, StoreSpec
from streamstate.units import Duration
from streamstate.windows import as_timedelta, whole_ms


def join_table(
    at: NodeRef,
    table: NodeRef,
    joiner: Callable[..., Any],
    *,
    left: bool,
    grace: Duration | None,
    tolerance: Duration | None,
    key: Serde[Any] | None,
    value: Serde[Any] | None,
    name: str | None,
) -> NodeRef:
    """Each record at ``at`` with the table's row of its key; see ``Stream.join``."""
    kind = "left_join" if left else "join"
    with_key = at.takes_key(joiner, kind, "value", "row's value")
    same_builder(at.builder, table.builder, kind)
    at = at.with_serdes(key, value)
    if at.key_changed:
        at = through_repartition(at, _base(at, kind, name), kind)
    looked_up = materialized(at.builder, table.node, kind)
    versions = versioned_store(at.builder, table.node)
    for what, given in (("grace", grace), ("tolerance", tolerance)):
        if given is None:
            continue
        duration = as_timedelta(given)
        if duration is None or duration < timedelta(0):
            raise TopologyError(f"{kind} after {at.node!r} takes {what}= of a duration of zero or more, not {given!r}")
        if versions is None:
            raise TopologyError(
                f"{kind} after {at.node!r} takes {what}= with a versioned table only, in which rows can be looked up "
                f"as of a time: topology.table(..., versioned=timedelta(...))"
            )
    waits = None
    if grace is not None:
        waits = _grace(at, kind, grace, versions, name)
    tolerance_ms = None if tolerance is None else whole_ms(tolerance)
    spec = StreamTableJoin(table.node, looked_up, joiner, left, tolerance_ms, waits, with_key)
    return at.then(spec, kind, name).with_new_value()


def join_global_table(
    at: NodeRef,
    table: GlobalTableRef,
    joiner: Callable[..., Any],
    *,
    left: bool,
    on: str | Callable[[Any, Any], Any] | None,
    name: str | None,
) -> NodeRef:
    """Each record at ``at`` with the row that ``on`` chooses; see ``Stream.join``."""
    kind = "left_join" if left else "join"
    with_key = at.takes_key(joiner, kind, "value", "row's value")
    same_builder(at.builder, table.builder, kind)
    if on is None:
        raise TopologyError(
            f"{kind} after {at.node!r} with global table {table.store!r} takes on=, a field of the value or a function "
            f"of (key, value) that gives the row's key, such as on=lambda key, value: key"
        )
    chosen = by_field(on)
    at.check(chosen, kind, "key, value", argument="on=")
    return at.then(StreamGlobalJoin(table.store, chosen, joiner, left, with_key), kind, name).with_new_value()


def _base(at: NodeRef, kind: str, name: str | None) -> str:
    return at.builder.lasting_name(at.node, kind, "name") if name is None else checked(name, f"name of {kind}")


def _grace(at: NodeRef, kind: str, grace: Duration, versions: StoreSpec | None, name: str | None) -> JoinGrace:
    grace_ms = whole_ms(grace)
    assert versions is not None, "checked before"
    assert versions.history_ms is not None, "not versioned"
    if grace_ms > versions.history_ms:
        raise TopologyError(
            f"{kind} after {at.node!r} keeps records back for {grace}, but the table's history is only "
            f"{versions.history_ms} ms: by then their rows are gone. Make its versioned= at least as long"
        )
    store = f"{_base(at, kind, name)}-buffer"
    held = f"records held back, keys {at.key_serde(kind).identity}, values {at.value_serde(kind).identity}"
    at.builder.claim_store(StoreSpec(store, bytes_(), bytes_(), segments=SegmentSpec(None), content=held))
    return JoinGrace(store, grace_ms, at.key_serde(kind), at.value_serde(kind))
