"""Where the rows of a table are found, for the operators that look into it.

Rule of this module: a table gets a store only when something needs its rows, and then the one store nearest to its
source: what filters and maps make of those rows is computed when it is asked for.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from streamstate.errors import TopologyError
from streamstate.store_spec import SegmentSpec
from streamstate.topology.draft import Draft
from streamstate.topology.specs import Aggregate, Count, Reduce, StoreSpec
from streamstate.topology.table_specs import (
    ForeignKeyResult,
    TableAggregate,
    TableFilter,
    TableJoin,
    TableMapValues,
    TableReduce,
    TableSource,
    TableTransformValues,
)
from streamstate.topology.window_specs import Suppress, WindowedAggregate
from streamstate.window_keys import segment_length

__all__ = ["rows_of", "store_of", "ttl_ms", "versioned_by", "versioned_spec"]


def ttl_ms(ttl: timedelta | None, store: str) -> int | None:
    """How long entries of ``store`` live after their last write, in ms; None: for ever.

    Raises:
        TopologyError: it is no timedelta, or below a millisecond.
    """
    return None if ttl is None else kept_ms(ttl, store, "ttl")


def kept_ms(duration: object, store: str, what: str) -> int:
    """A duration that a store is given, in ms.

    Args:
        what: it is, for the error.

    Raises:
        TopologyError: it is no timedelta, or below a millisecond.
    """
    if not isinstance(duration, timedelta) or duration < timedelta(milliseconds=1):
        raise TopologyError(
            f"the {what} of store {store!r} is a timedelta of one millisecond or more, not {duration!r}"
        )
    return duration // timedelta(milliseconds=1)


def versioned_spec(store: StoreSpec, history: timedelta) -> StoreSpec:
    """The same store with versions.

    Raises:
        TopologyError: the history is negative or not a timedelta.
    """
    if not isinstance(history, timedelta) or history < timedelta(0):
        raise TopologyError(
            f"the history of versioned store {store.name!r} is a timedelta of zero or more, not {history!r}"
        )
    history_ms = history // timedelta(milliseconds=1)
    segments = SegmentSpec(history_ms, segment_length(history_ms))
    return replace(store, segments=segments, history_ms=history_ms, reuse=False, content=f"versions of {store.content}")


def versioned_by(draft: Draft, node: str) -> StoreSpec | None:
    """The versioned store from which rows of a table can be told as of a time; None where they cannot."""
    spec = draft.nodes[node].spec
    if isinstance(spec, TableSource) and spec.store is not None:
        store = draft.stores[spec.store]
        return None if store.history_ms is None else store
    if isinstance(spec, (TableFilter, TableMapValues)) and spec.store is None:
        return versioned_by(draft, draft.nodes[node].parents[0])
    return None


def store_of(draft: Draft, node: str) -> str | None:
    """The store that holds exactly what the table shows, if there is one."""
    spec = draft.nodes[node].spec
    # Of a table that is held back, the store has what it does not show yet.
    store: str | None = None if isinstance(spec, Suppress) else getattr(spec, "store", None)
    return store


def rows_of(draft: Draft, node: str, kind: str) -> tuple[str, ...]:
    """Names of the stores in which the rows of a table are found; makes one where there is none yet.

    Args:
        draft: the topology being described.
        node: the table's node.
        kind: the operator that needs them, for the error.

    Raises:
        TopologyError: rows of such a table cannot be looked up.
    """
    spec = draft.nodes[node].spec
    if isinstance(spec, (Count, Reduce, Aggregate)):
        if kind == "group_by" and draft.stores[spec.store].ttl_ms is not None:
            raise TopologyError(
                f"group_by after {node!r} takes the old row out of its group, but rows in the store {spec.store!r} "
                "expire and would stay in theirs for ever: leave out ttl=, or use windows"
            )
        return (spec.store,)
    if isinstance(spec, TableSource):
        if spec.store is None:
            draft.claim_store(
                StoreSpec(node, spec.key, spec.value, source=spec.source, reuse=spec.reuse, content="table")
            )
            spec = replace(spec, store=node)
            draft.replace(node, spec)
        return spec.stores
    if isinstance(spec, (TableReduce, TableAggregate)):
        return spec.stores
    if isinstance(spec, TableJoin):
        return spec.stores if spec.store is None else (spec.store,)
    if isinstance(spec, (TableTransformValues, ForeignKeyResult)):
        # A transformer may have state of its own, so that calling it again would not give the same row; and the right
        # row of a foreign key is in another task.
        if spec.store is None:
            if spec.value is None:
                raise TopologyError(
                    f"{kind} needs the rows of {node!r} and therefore the serde of its values: pass value= to "
                    f"{'transform_values' if isinstance(spec, TableTransformValues) else 'the join'}, such as "
                    f"value=serde.json()"
                )
            what = "transform_values" if isinstance(spec, TableTransformValues) else "a foreign-key join"
            draft.claim_store(StoreSpec(node, spec.key, spec.value, content=f"table of {what}"))
            spec = replace(spec, store=node)
            draft.replace(node, spec)
        assert spec.store is not None, "no store was made"
        return (spec.store,)
    if isinstance(spec, (TableFilter, TableMapValues)):
        return spec.stores or rows_of(draft, draft.nodes[node].parents[0], kind)
    if isinstance(spec, WindowedAggregate):
        return spec.stores
    if isinstance(spec, Suppress):
        return (*spec.stores, *rows_of(draft, draft.nodes[node].parents[0], kind))
    raise TopologyError(f"{kind} cannot look into the table {node!r}: its rows are not kept by key")
