"""Joins of a stream with a table: what ``Stream.join`` and ``Stream.left_join`` add to the draft.

Rule of this module: as of the handles; it checks what it is given and adds nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.serde import Serde
from streamstate.topology.draft import Position, checked_function, same_draft
from streamstate.topology.names import checked
from streamstate.topology.table import Table, looked_up
from streamstate.topology.table_specs import StreamTableJoin


def join_table(
    at: Position,
    table: Table[Any, Any],
    joiner: Callable[[Any, Any], Any],
    *,
    left: bool,
    key: Serde[Any] | None,
    value: Serde[Any] | None,
    name: str | None,
) -> Position:
    """Each record at ``at`` with the table's row of its key; see ``Stream.join``."""
    kind = "left_join" if left else "join"
    checked_function(joiner, kind, at.node)
    same_draft(at.draft, table._at.draft, kind)
    at = at.with_serdes(key, value)
    if at.key_changed:
        at = _meeting_by_key(at, kind, name)
    node, stores = looked_up(table, kind)
    return at.then(StreamTableJoin(node, stores, joiner, left), kind, name).with_new_value()


def _meeting_by_key(at: Position, kind: str, name: str | None) -> Position:
    """The records behind a repartition topic, where those of equal keys meet in the same task."""
    base = at.draft.lasting_name(at.node, kind, "name") if name is None else checked(name, f"name of {kind}")
    return at.through_repartition(base, kind)
