"""Foreign-key joins of tables, as closures.

Rule of this module: a left row asks with the hash of its value, and an answer counts only while the left row still has
that hash, so that answers which arrive late, or in another order than they were asked for, change nothing. The ways to
ask:

================  ====================================================================================
``FORGET``        the row does not want this right row any more; no answer
``FORGET_TELL``   the same, and answer with no row, so that the result is deleted
``TELL``          remember, and answer with the row or with none
``TELL_IF_THERE`` remember, and answer if there is a row: there was no result that would have to go
================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any

from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Change, Forward
from streamstate.operators.base.rows import Getter
from streamstate.operators.foreign_key.messages import ASKED, HASH_BYTES
from streamstate.state.key_value import after_prefix
from streamstate.state.staging import StagedStore

if TYPE_CHECKING:
    from streamstate.operators.foreign_key.spec import (
        ForeignKeyChange,
        ForeignKeyResult,
        ForeignKeySend,
        ForeignKeySubscribe,
    )

FORGET, FORGET_TELL, TELL, TELL_IF_THERE = range(4)

_LENGTH = Struct(">I").pack

# (key of the left row, hash of its value or None, timestamp): an answer of no row.
Answer = Callable[[Any, "bytes | None", int], None]


def value_hash(serialize: Callable[[Any], bytes], value: Any) -> bytes | None:
    """Of a row's value; None for no row."""
    return None if value is None else blake2b(serialize(value), digest_size=HASH_BYTES).digest()


def send(name: str, spec: ForeignKeySend, context: TaskContext, ask: Forward, answer: Answer) -> Change:
    """Changes of left rows as questions; ``answer`` takes what needs no question."""
    function, left = spec.function, spec.left
    serialize_key, serialize_value = spec.key.serialize, spec.value.serialize
    serialize_foreign = spec.foreign.serialize
    partition = int(context.task_id.rpartition("_")[2])

    def foreign_key(key: Any, value: Any) -> tuple[Any, bytes | None]:
        if value is None:
            return None, None
        try:
            foreign = function(key, value)
        except Exception as error:
            raise OperatorFailed(name, "in the foreign key") from error
        try:
            return foreign, None if foreign is None else serialize_foreign(foreign)
        except Exception as error:
            raise not_encoded(name, "encoding the foreign key", (spec.foreign, foreign)) from error

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        if new is None and old is None:
            return
        before, before_bytes = foreign_key(key, old)
        after, after_bytes = foreign_key(key, new)
        try:
            mine = serialize_key(key)
            now = value_hash(serialize_value, new)
        except Exception as error:
            given = (spec.key, key), (spec.value, new)
            raise not_encoded(name, "encoding the row", *given) from error
        moved = before_bytes is not None and before_bytes != after_bytes
        if after_bytes is not None:
            if moved:
                ask(before, (FORGET, partition, mine, None), timestamp)
            what = TELL if left or moved else TELL_IF_THERE
            ask(after, (what, partition, mine, now), timestamp)
            return
        if new is not None and not left:
            context.dropped += 1
        if before_bytes is None:
            if left:
                answer(key, now, timestamp)
            return
        if left:
            ask(before, (FORGET, partition, mine, None), timestamp)
            answer(key, now, timestamp)
        else:
            ask(before, (FORGET_TELL, partition, mine, now), timestamp)

    return run


def subscribe(
    name: str,
    spec: ForeignKeySubscribe,
    store: StagedStore,
    row: Getter,
    forward: Forward,
) -> Forward:
    """Questions, at the task that owns the right key: (right key, asked) to (left key, answer)."""
    serialize_foreign, decode_key = spec.foreign.serialize, spec.key.deserialize
    put, encode = store.put, ASKED.serialize

    def run(key: Any, value: Any, timestamp: int) -> None:
        what, partition, mine, asked = value
        try:
            foreign = serialize_foreign(key)
            left_key = decode_key(mine)
        except Exception as error:
            raise OperatorFailed(name, "decoding what was asked") from error
        entry = _LENGTH(len(foreign)) + foreign + mine
        if what in (FORGET, FORGET_TELL):
            put(entry, None, timestamp)
            if what == FORGET_TELL:
                found = row(key)
                forward(left_key, (partition, asked, None), timestamp if found is None else max(timestamp, found[1]))
            return
        put(entry, encode(value), timestamp)
        found = row(key)
        if found is None:
            if what == TELL:
                forward(left_key, (partition, asked, None), timestamp)
            return
        forward(left_key, (partition, asked, found[0]), max(timestamp, found[1]))

    return run


def change(name: str, spec: ForeignKeyChange, store: StagedStore, forward: Forward) -> Change:
    """Changes of right rows, to all who asked for them."""
    serialize_foreign, decode_key = spec.foreign.serialize, spec.key.deserialize
    decode = ASKED.deserialize

    def run(key: Any, new: Any, old: Any, timestamp: int) -> None:
        try:
            foreign = serialize_foreign(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (spec.foreign, key)) from error
        prefix = _LENGTH(len(foreign)) + foreign
        # Read whole first: what follows may write to this store.
        for _, (data, _) in list(store.scan(prefix, after_prefix(prefix))):
            _, partition, mine, asked = decode(data)
            forward(decode_key(mine), (partition, asked, new), timestamp)

    return run


def result(
    name: str,
    spec: ForeignKeyResult,
    row: Getter,
    context: TaskContext,
    forward: Change,
) -> tuple[Forward, Answer]:
    """Answers, at the task of the left row: entered by those from afar, and by those that needed no question."""
    joiner, left, serialize, with_key = spec.joiner, spec.left, spec.asked.serialize, spec.with_key

    def joined(key: Any, asked: bytes | None, right: Any, timestamp: int) -> None:
        found = row(key)
        mine = None if found is None else found[0]
        try:
            now = value_hash(serialize, mine)
        except Exception as error:
            raise not_encoded(name, "encoding the row", (spec.asked, mine)) from error
        if now != asked:
            # Nothing is lost: the row has changed since, and has asked again.
            return
        if mine is None or (right is None and not left):
            forward(key, None, None, timestamp)
            return
        try:
            value = joiner(key, mine, right) if with_key else joiner(mine, right)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, value, None, timestamp)

    def run(key: Any, value: Any, timestamp: int) -> None:
        _, asked, right = value
        joined(key, asked, right, timestamp)

    def answer(key: Any, asked: bytes | None, timestamp: int) -> None:
        joined(key, asked, None, timestamp)

    return run, answer
