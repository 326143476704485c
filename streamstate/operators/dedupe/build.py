"""``Stream.dedupe``: its node and its store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstate.functions import by_field
from streamstate.graph.builder import NodeRef
from streamstate.graph.names import checked
from streamstate.graph.store_settings import kept_ms
from streamstate.operators.dedupe.spec import Dedupe
from streamstate.operators.topics.build import through_repartition
from streamstate.serde import SerdeLike, long, serde_of
from streamstate.state.spec import StoreSpec
from streamstate.units import Duration

__all__ = ["deduplicated"]


def deduplicated(
    at: NodeRef,
    within: Duration,
    by: str | Callable[[Any, Any], Any] | None,
    identity: SerdeLike[Any] | None,
    store: str | None,
    name: str | None,
) -> NodeRef:
    """The records at ``at`` without those that came before; see ``Stream.dedupe``."""
    chosen = None if by is None else by_field(by)
    if chosen is not None:
        at.check(chosen, "dedupe", "key, value", argument="by=")
    if store is None:
        store = at.builder.lasting_name(at.node, "dedupe", "store")
        name = name or store
    name = name or f"{checked(store, 'name of a store')}.dedupe"
    if at.key_changed:
        at = through_repartition(at, store, "dedupe")
    if identity is not None:
        kept_by = serde_of(identity, f"identity= of dedupe after {at.node!r}", key=True)
    elif chosen is None:
        kept_by = at.key_serde("dedupe")
    else:
        # An identity is compared by its bytes, whatever it is.
        kept_by = at.builder.key or serde_of(dict, key=True)
    within_ms = kept_ms(within, store, "within=")
    at.builder.claim_store(StoreSpec(store, kept_by, long(), ttl_ms=within_ms, content="dedupe"))
    return at.then(Dedupe(store, within_ms, chosen), "dedupe", name)
