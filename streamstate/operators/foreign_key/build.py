"""Foreign-key joins of tables: what ``Table.join(foreign_key=...)`` adds to the builder.

Rule of this module: as of the handles. A left row asks, through one internal topic, the task that owns its foreign key;
that task remembers who asked and answers, now and whenever the right row changes, through another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from streamstate.graph.builder import GraphBuilder, NodeRef
from streamstate.graph.error_policy import FAIL
from streamstate.graph.names import checked
from streamstate.operators.foreign_key.messages import ASKED, answer_serde
from streamstate.operators.foreign_key.spec import (
    ForeignKeyChange,
    ForeignKeyResult,
    ForeignKeySend,
    ForeignKeySubscribe,
)
from streamstate.operators.topics.spec import Sink, Source
from streamstate.serde import Serde, bytes_
from streamstate.state.spec import StoreSpec


def join_by_foreign_key(
    left: NodeRef,
    right: NodeRef,
    rows: tuple[tuple[str, ...], tuple[str, ...]],
    function: Callable[[Any, Any], Any],
    joiner: Callable[..., Any],
    *,
    kind: str,
    value: Serde[Any] | None,
    store: str | None,
    name: str | None,
    with_key: bool,
) -> NodeRef:
    """The joined table.

    Args:
        rows: what the rows of both tables are found in. The store of the result is claimed already.
        with_key: the joiner takes the left row's key too, in front.
    """
    builder = left.builder
    key, asked, foreign = left.key_serde(kind), left.value_serde(kind), right.key_serde(kind)
    carried = right.value_serde(kind)
    base = builder.lasting_name(left.node, kind, "name") if name is None else checked(name, f"name of {kind}")
    alone = kind == "left_join"
    policy = left.on_error if left.on_error == right.on_error else FAIL
    kept = f"{base}-subscriptions"
    builder.claim_store(
        StoreSpec(kept, bytes_(), bytes_(), content=f"subscriptions of {foreign.identity} keys to {key.identity} rows")
    )

    send = builder.add(ForeignKeySend(function, key, asked, foreign, alone, rows[0]), (left.node,), kind, f"{base}.ask")
    asking = Sink(f"{base}-subscriptions-repartition", foreign, ASKED, internal=True)
    source = Source((str(asking.topic),), foreign, ASKED, on_error=policy, internal=True)
    subscribed = _through(builder, asking, source, (send,))
    subscribe = ForeignKeySubscribe(right.node, kept, foreign, key, rows[1])
    now = builder.add(subscribe, (subscribed,), kind, f"{base}.answer")
    later = builder.add(ForeignKeyChange(kept, foreign, key), (right.node,), kind, f"{base}.change")

    answer = answer_serde(carried)
    # Back to where the question came from, however the left table is partitioned.
    answering = Sink(
        f"{base}-answers-repartition", key, answer, internal=True, partition_of=lambda key, value: value[0]
    )
    source = Source((str(answering.topic),), key, answer, on_error=policy, internal=True)
    answered = _through(builder, answering, source, (now, later))
    result = ForeignKeyResult(left.node, send, joiner, alone, key, asked, value, rows[0], store, with_key)
    node = builder.add(result, (answered, send), kind, base)
    return replace(left, node=node, value=value, on_error=policy)


def _through(builder: GraphBuilder, sink: Sink, source: Source, parents: tuple[str, ...]) -> str:
    topic = checked(str(sink.topic), "name of a repartition topic")
    builder.add(sink, parents, "join", f"{topic}-sink")
    return builder.add(source, (), "join", topic)
