"""Foreign-key joins of tables: what ``Table.join(foreign_key=...)`` adds to the draft.

Rule of this module: as of the handles. A left row asks, through one internal topic, the task that owns its foreign key;
that task remembers who asked and answers, now and whenever the right row changes, through another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from struct import Struct
from typing import Any

from streamstate.serde import Serde, bytes_
from streamstate.topology.draft import Draft, Position
from streamstate.topology.names import checked
from streamstate.topology.specs import FAIL, Sink, Source, StoreSpec
from streamstate.topology.table_specs import (
    ForeignKeyChange,
    ForeignKeyResult,
    ForeignKeySend,
    ForeignKeySubscribe,
)

HASH_BYTES = 16
_ASK = Struct(">bI")
_NO_HASH = bytes(HASH_BYTES)


def join_by_foreign_key(
    left: Position,
    right: Position,
    rows: tuple[tuple[str, ...], tuple[str, ...]],
    function: Callable[[Any, Any], Any],
    joiner: Callable[..., Any],
    *,
    kind: str,
    value: Serde[Any] | None,
    store: str | None,
    name: str | None,
    with_key: bool,
) -> Position:
    """The joined table.

    Args:
        rows: what the rows of both tables are found in. The store of the result is claimed already.
        with_key: the joiner takes the left row's key too, in front.
    """
    draft = left.draft
    key, asked, foreign = left.key_serde(kind), left.value_serde(kind), right.key_serde(kind)
    carried = right.value_serde(kind)
    base = draft.lasting_name(left.node, kind, "name") if name is None else checked(name, f"name of {kind}")
    alone = kind == "left_join"
    policy = left.on_error if left.on_error == right.on_error else FAIL
    kept = f"{base}-subscriptions"
    draft.claim_store(
        StoreSpec(kept, bytes_(), bytes_(), content=f"subscriptions of {foreign.identity} keys to {key.identity} rows")
    )

    send = draft.add(ForeignKeySend(function, key, asked, foreign, alone, rows[0]), (left.node,), kind, f"{base}.ask")
    asking = Sink(f"{base}-subscriptions-repartition", foreign, ASKED, internal=True)
    source = Source((str(asking.topic),), foreign, ASKED, on_error=policy, internal=True)
    subscribed = _through(draft, asking, source, (send,))
    subscribe = ForeignKeySubscribe(right.node, kept, foreign, key, rows[1])
    now = draft.add(subscribe, (subscribed,), kind, f"{base}.answer")
    later = draft.add(ForeignKeyChange(kept, foreign, key), (right.node,), kind, f"{base}.change")

    answer = answer_serde(carried)
    # Back to where the question came from, however the left table is partitioned.
    answering = Sink(
        f"{base}-answers-repartition", key, answer, internal=True, partition_of=lambda key, value: value[0]
    )
    source = Source((str(answering.topic),), key, answer, on_error=policy, internal=True)
    answered = _through(draft, answering, source, (now, later))
    result = ForeignKeyResult(left.node, send, joiner, alone, key, asked, value, rows[0], store, with_key)
    node = draft.add(result, (answered, send), kind, base)
    return replace(left, node=node, value=value, on_error=policy)


def _through(draft: Draft, sink: Sink, source: Source, parents: tuple[str, ...]) -> str:
    topic = checked(str(sink.topic), "name of a repartition topic")
    draft.add(sink, parents, "join", f"{topic}-sink")
    return draft.add(source, (), "join", topic)


# -- what is asked and answered ----------------------------------------------------------------------------------

# (what to do, partition of the left row, its key, hash of its value or None)
Asked = tuple[int, int, bytes, "bytes | None"]


def _ask(asked: Asked) -> bytes:
    what, partition, key, value_hash = asked
    return _ASK.pack(what, partition) + (value_hash or _NO_HASH) + key


def _asked(data: bytes) -> Asked:
    what, partition = _ASK.unpack_from(data)
    end = _ASK.size + HASH_BYTES
    value_hash = data[_ASK.size : end]
    return what, partition, data[end:], None if value_hash == _NO_HASH else value_hash


ASKED: Serde[Asked] = Serde("subscription", _ask, _asked, immutable=True)


def answer_serde(value: Serde[Any]) -> Serde[tuple[int, bytes | None, Any]]:
    """(partition of the left row, hash of the value that asked or None, the right row's value or None).

    >>> from streamstate import serde
    >>> answer = answer_serde(serde.string())
    >>> [answer.deserialize(answer.serialize(given)) for given in ((3, None, "row"), (0, b"h" * 16, None))]
    [(3, None, 'row'), (0, b'hhhhhhhhhhhhhhhh', None)]
    """

    def serialize(answer: tuple[int, bytes | None, Any]) -> bytes:
        partition, value_hash, row = answer
        there = 0 if row is None else 1
        encoded = value.encode(row) or b""
        return _ASK.pack(there, partition) + (value_hash or _NO_HASH) + encoded

    def deserialize(data: bytes) -> tuple[int, bytes | None, Any]:
        there, partition = _ASK.unpack_from(data)
        end = _ASK.size + HASH_BYTES
        value_hash = data[_ASK.size : end]
        row = value.deserialize(data[end:]) if there else None
        return partition, None if value_hash == _NO_HASH else value_hash, row

    return Serde(f"answer({value.name})", serialize, deserialize, schema=value.schema)
