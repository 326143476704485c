"""Joins of a stream with a table: what ``Stream.join`` and ``Stream.left_join`` add to the draft.

Rule of this module: as of the handles; it checks what it is given and adds nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from streamstate.errors import TopologyError
from streamstate.serde import Serde, bytes_
from streamstate.store_spec import SegmentSpec
from streamstate.topology.draft import Position, same_draft
from streamstate.topology.global_table import GlobalTable
from streamstate.topology.names import checked
from streamstate.topology.rows import versioned_by
from streamstate.topology.specs import StoreSpec
from streamstate.topology.table import Table, looked_up
from streamstate.topology.table_specs import JoinGrace, StreamGlobalJoin, StreamTableJoin


def join_table(
    at: Position,
    table: Table[Any, Any],
    joiner: Callable[..., Any],
    *,
    left: bool,
    grace: timedelta | None,
    tolerance: timedelta | None,
    key: Serde[Any] | None,
    value: Serde[Any] | None,
    name: str | None,
) -> Position:
    """Each record at ``at`` with the table's row of its key; see ``Stream.join``."""
    kind = "left_join" if left else "join"
    with_key = at.takes_key(joiner, kind, "value", "row's value")
    same_draft(at.draft, table._at.draft, kind)
    at = at.with_serdes(key, value)
    if at.key_changed:
        at = at.through_repartition(_base(at, kind, name), kind)
    node, rows = looked_up(table, kind)
    versions = versioned_by(at.draft, node)
    for what, given in (("grace", grace), ("tolerance", tolerance)):
        if given is None:
            continue
        if not isinstance(given, timedelta) or given < timedelta(0):
            raise TopologyError(f"{kind} after {at.node!r} takes {what}= of a timedelta of zero or more, not {given!r}")
        if versions is None:
            raise TopologyError(
                f"{kind} after {at.node!r} takes {what}= with a versioned table only, in which rows can be looked up "
                f"as of a time: topology.table(..., versioned=timedelta(...))"
            )
    waits = None
    if grace is not None:
        waits = _grace(at, kind, grace, versions, name)
    tolerance_ms = None if tolerance is None else tolerance // timedelta(milliseconds=1)
    spec = StreamTableJoin(node, rows, joiner, left, tolerance_ms, waits, with_key)
    return at.then(spec, kind, name).with_new_value()


def join_global_table(
    at: Position,
    table: GlobalTable[Any, Any],
    joiner: Callable[..., Any],
    *,
    left: bool,
    on: Callable[[Any, Any], Any] | None,
    name: str | None,
) -> Position:
    """Each record at ``at`` with the row that ``on`` chooses; see ``Stream.join``."""
    kind = "left_join" if left else "join"
    with_key = at.takes_key(joiner, kind, "value", "row's value")
    same_draft(at.draft, table._draft, kind)
    if on is None:
        raise TopologyError(
            f"{kind} after {at.node!r} with global table {table.store!r} takes on=, a function of (key, value) that "
            f"gives the row's key, such as on=lambda key, value: key"
        )
    at.check(on, kind, "key, value", argument="on=")
    return at.then(StreamGlobalJoin(table.store, on, joiner, left, with_key), kind, name).with_new_value()


def _base(at: Position, kind: str, name: str | None) -> str:
    return at.draft.lasting_name(at.node, kind, "name") if name is None else checked(name, f"name of {kind}")


def _grace(at: Position, kind: str, grace: timedelta, versions: StoreSpec | None, name: str | None) -> JoinGrace:
    grace_ms = grace // timedelta(milliseconds=1)
    assert versions is not None, "checked before"
    assert versions.history_ms is not None, "not versioned"
    if grace_ms > versions.history_ms:
        raise TopologyError(
            f"{kind} after {at.node!r} keeps records back for {grace}, but the table's history is only "
            f"{versions.history_ms} ms: by then their rows are gone. Make its versioned= at least as long"
        )
    store = f"{_base(at, kind, name)}-buffer"
    held = f"records held back, keys {at.key_serde(kind).identity}, values {at.value_serde(kind).identity}"
    at.draft.claim_store(StoreSpec(store, bytes_(), bytes_(), segments=SegmentSpec(None), content=held))
    return JoinGrace(store, grace_ms, at.key_serde(kind), at.value_serde(kind))
