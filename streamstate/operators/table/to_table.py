"""A stream as a table.

Rows of a stream are kept as those of a topic are, but never in the topic itself.
"""

from __future__ import annotations

from dataclasses import replace

from streamstate.graph.builder import NodeRef
from streamstate.graph.emit import TableEmit, checked_emit
from streamstate.graph.names import checked
from streamstate.graph.store_settings import versioned_spec
from streamstate.operators.base.tables import materialized
from streamstate.operators.table.spec import ToTable
from streamstate.operators.topics.build import through_repartition
from streamstate.state.spec import StoreSpec
from streamstate.units import Duration

__all__ = ["rows_of_stream"]


def rows_of_stream(
    at: NodeRef, store: str | None, versioned: Duration | None, emit: TableEmit, name: str | None
) -> NodeRef:
    """The table whose rows are the records at ``at``. See ``Stream.to_table``."""
    checked_emit(emit, f"to_table after {at.node!r}", TableEmit)
    key, value = at.key_serde("to_table"), at.value_serde("to_table")
    if store is not None:
        name = name or f"{checked(store, 'name of a store')}.to_table"
    elif name is None:
        # Its store and its repartition topic may be called after it.
        name = at.builder.lasting_name(at.node, "to_table", "store")
    if at.key_changed:
        at = through_repartition(at, store or name, "to_table")
    spec = ToTable(key, value, None, reuse=False, store=store, emit=emit)
    at = at.then(spec, "to_table", name)
    if store is not None or versioned is not None:
        kept = StoreSpec(store or at.node, key, value, content="table")
        at.builder.claim_store(kept if versioned is None else versioned_spec(kept, versioned))
        at.builder.replace(at.node, replace(spec, store=kept.name))
    if emit == "change":
        materialized(at.builder, at.node, "emit='change'")
    return at
