"""A stream as a table.

Rule of this module: rows of a stream are kept as those of a topic are, but never in the topic itself.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from streamstate.topology.draft import Position
from streamstate.topology.emit import TableEmit, checked_emit
from streamstate.topology.names import checked
from streamstate.topology.rows import rows_of, versioned_spec
from streamstate.topology.specs import StoreSpec
from streamstate.topology.table_specs import ToTable

__all__ = ["as_table"]


def as_table(
    at: Position, store: str | None, versioned: timedelta | None, emit: TableEmit, name: str | None
) -> Position:
    """The table whose rows are the records at ``at``. See ``Stream.to_table``."""
    checked_emit(emit, f"to_table after {at.node!r}", TableEmit)
    key, value = at.key_serde("to_table"), at.value_serde("to_table")
    if store is not None:
        name = name or f"{checked(store, 'name of a store')}.to_table"
    elif name is None:
        # Its store and its repartition topic may be called after it.
        name = at.draft.lasting_name(at.node, "to_table", "store")
    if at.key_changed:
        at = at.through_repartition(store or name, "to_table")
    spec = ToTable(key, value, None, reuse=False, store=store, emit=emit)
    at = at.then(spec, "to_table", name)
    if store is not None or versioned is not None:
        kept = StoreSpec(store or at.node, key, value, content="table")
        at.draft.claim_store(kept if versioned is None else versioned_spec(kept, versioned))
        at.draft.replace(at.node, replace(spec, store=kept.name))
    if emit == "change":
        rows_of(at.draft, at.node, "emit='change'")
    return at
