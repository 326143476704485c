"""Joins of two streams: what ``Stream.join`` and its like add to the builder.

Rule of this module: as of the handles; it checks what it is given and adds nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from streamstate.graph.builder import NodeRef, same_builder
from streamstate.graph.error_policy import FAIL
from streamstate.graph.names import checked
from streamstate.graph.wrong_handle import wrong_kind
from streamstate.operators.stream_join.spec import StreamJoin
from streamstate.operators.topics.build import through_repartition
from streamstate.serde import Serde
from streamstate.state.spec import SegmentSpec, StoreSpec
from streamstate.windows import JoinWindows, as_timedelta, join
from streamstate.windows.keys import record_key, segment_length, waiting_key


def join_streams(
    kind: str,
    left: NodeRef,
    right: NodeRef,
    joiner: Callable[..., Any],
    within: object,
    *,
    left_alone: bool,
    right_alone: bool,
    store: str | None,
    name: str | None,
    key: Serde[Any] | None,
    value: Serde[Any] | None,
    other_value: Serde[Any] | None,
) -> NodeRef:
    """Records at ``left`` with those at ``right`` that are close in time; see ``Stream.join``."""
    with_key = left.takes_key(joiner, kind, "left value", "right value")
    same_builder(left.builder, right.builder, kind)
    if as_timedelta(within) is not None:
        within = join(within)  # type: ignore[arg-type]
    if not isinstance(within, JoinWindows):
        takes = "within=, such as within='5m'"
        raise wrong_kind(f"{kind} of {left.node!r} with a stream", "join windows", within, takes)
    if store is None:
        store = left.builder.lasting_name(left.node, kind, "store")
        name = name or store
    name = name or f"{checked(store, 'name of a store')}.{kind}"
    key = left.with_serdes(key, None).key_serde(kind)
    same = left.node == right.node
    itself = same and not left_alone and not right_alone
    left = left.with_serdes(key, value)
    right = right.with_serdes(key, other_value)
    serdes = left.value_serde(kind), right.value_serde(f"{kind} (for the other stream: other_value=)")
    if left.key_changed:
        left = through_repartition(left, f"{store}-left", kind)
    if same:
        right = replace(left, value=right.value)
    elif right.key_changed:
        right = through_repartition(right, f"{store}-right", kind)
    stores = _stores(store, key, serdes, within, kind=kind, alone=left_alone or right_alone, itself=itself)
    for made in stores:
        left.builder.claim_store(made)
    spec = StreamJoin(
        left.node,
        right.node,
        within,
        joiner,
        left_alone,
        right_alone,
        key,
        tuple(made.name for made in stores),
        with_key,
    )
    parents = (left.node,) if same else (left.node, right.node)
    node = left.builder.add(spec, parents, kind, name)
    policy = left.on_error if left.on_error == right.on_error else FAIL
    return replace(left, node=node, value=None, key_changed=False, on_error=policy)


def _stores(
    store: str,
    key: Serde[Any],
    values: tuple[Serde[Any], Serde[Any]],
    windows: JoinWindows,
    *,
    kind: str,
    alone: bool,
    itself: bool,
) -> list[StoreSpec]:
    segments = SegmentSpec(windows.retention_ms, segment_length(windows.retention_ms))
    content = f"{kind} of streams {windows.content}"
    left = StoreSpec(
        f"{store}-left",
        record_key(key, segments.length_ms),
        values[0],
        segments=segments,
        content=content,
        keys=lambda length_ms: record_key(key, length_ms),
    )
    made = [left]
    if not itself:
        made.append(replace(left, name=f"{store}-right", value=values[1]))
    if alone:
        waiting = StoreSpec(f"{store}-waiting", waiting_key(key), _either(*values), segments=SegmentSpec(None))
        made.append(replace(waiting, content=content))
    return made


def _either(left: Serde[Any], right: Serde[Any]) -> Serde[tuple[bool, Any]]:
    """(is left, value), each side by its own serde."""

    def serialize(pair: tuple[bool, Any]) -> bytes:
        side = left if pair[0] else right
        try:
            return (b"\x01" if pair[0] else b"\x00") + side.serialize(pair[1])
        except Exception as error:
            raise side.refusal(pair[1], error) from error

    def deserialize(data: bytes) -> tuple[bool, Any]:
        return (True, left.deserialize(data[1:])) if data[0] else (False, right.deserialize(data[1:]))

    schema = f"{left.schema} or {right.schema}" if left.schema or right.schema else ""
    return Serde(f"{left.name} or {right.name}", serialize, deserialize, schema=schema)
