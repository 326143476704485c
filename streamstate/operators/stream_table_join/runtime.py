"""Joins of a stream with a table, as closures.

Rule of this module: only records of the stream make results, with the record's timestamp. A record with a null value
makes none; one with a null key makes one in a left join only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any

from streamstate.graph.error_policy import ErrorPolicy
from streamstate.operators.base.context import RecordWithHeaders, TaskContext
from streamstate.operators.base.due_results import each_by_itself
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Forward, with_encoded_key
from streamstate.operators.base.rows import Getter, GetterAsOf
from streamstate.state.staging import StagedStore
from streamstate.windows.keys import TIME_KEY, pack_time, unpack_time

if TYPE_CHECKING:
    from streamstate.operators.stream_table_join.spec import JoinGrace, StreamGlobalJoin, StreamTableJoin


def join(name: str, spec: StreamTableJoin, row: Getter, context: TaskContext, forward: Forward) -> Forward:
    """With the row as it is now."""
    joiner, left, with_key = spec.joiner, spec.left, spec.with_key
    store: StagedStore | None = getattr(row, "store", None)
    if store is not None:
        return _join_stored(name, spec, store, context, forward)

    def run(key: Any, value: Any, timestamp: int) -> None:
        if value is None or (key is None and not left):
            context.dropped += 1
            return
        found = None if key is None else row(key)
        if found is None and not left:
            return
        try:
            other = None if found is None else found[0]
            joined = joiner(key, value, other) if with_key else joiner(value, other)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, joined, timestamp)

    return run


def _join_stored(
    name: str, spec: StreamTableJoin, store: StagedStore, context: TaskContext, forward: Forward
) -> Forward:
    """The same where the row is what a store has. Written out: three calls less per record, and one encoding of the
    key for the store and for the topic that results go to."""
    joiner, left, with_key = spec.joiner, spec.left, spec.with_key
    serialize_key, row = store.spec.key.serialize, store.value
    keyed = with_encoded_key(forward, serialize_key)
    as_encoded, send = keyed is not None, keyed or forward

    def run(key: Any, value: Any, timestamp: int) -> None:
        encoded = found = None
        if value is None or (key is None and not left):
            context.dropped += 1
            return
        if key is not None:
            try:
                encoded = serialize_key(key)
            except Exception as error:
                raise not_encoded(name, "encoding the key", (store.spec.key, key)) from error
            found = row(encoded)
            if found is None and not left:
                return
        try:
            joined = joiner(key, value, found) if with_key else joiner(value, found)
        except Exception as error:
            raise OperatorFailed(name) from error
        send(encoded if as_encoded else key, joined, timestamp)

    return run


def _meeting(
    name: str, spec: StreamTableJoin | StreamGlobalJoin, forward: Forward
) -> Callable[[Any, Any, Any, int], None]:
    """What is done with a record and the row that was found for it, or None. ``join``, the commonest, has it written
    out: a call less per record."""

    joiner, left, with_key = spec.joiner, spec.left, spec.with_key

    def meet(key: Any, value: Any, found: Any, timestamp: int) -> None:
        if found is None and not left:
            return
        try:
            other = None if found is None else found[0]
            joined = joiner(key, value, other) if with_key else joiner(value, other)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, joined, timestamp)

    return meet


def join_global(
    name: str,
    spec: StreamGlobalJoin,
    row: Getter,
    context: TaskContext,
    forward: Forward,
) -> Forward:
    """With the row of a global table that the record asks for. The record's own key may be null."""
    function, left = spec.function, spec.left
    meet = _meeting(name, spec, forward)

    def run(key: Any, value: Any, timestamp: int) -> None:
        if value is None:
            context.dropped += 1
            return
        try:
            wanted = function(key, value)
        except Exception as error:
            raise OperatorFailed(name, "choosing the row") from error
        if wanted is None and not left:
            context.dropped += 1
            return
        found = None if wanted is None else row(wanted)
        meet(key, value, found, timestamp)

    return run


def join_as_of(
    name: str,
    spec: StreamTableJoin,
    version: GetterAsOf,
    context: TaskContext,
    forward: Forward,
) -> Forward:
    """With the row as it was at the record's time."""
    left, tolerance = spec.left, spec.tolerance_ms
    meet = _meeting(name, spec, forward)

    def run(key: Any, value: Any, timestamp: int) -> None:
        if value is None or (key is None and not left):
            context.dropped += 1
            return
        found = None if key is None else version(key, timestamp)
        if found is not None and tolerance is not None and timestamp - found[1] > tolerance:
            found = None
        meet(key, value, found, timestamp)

    return run


# All waiting records lie behind this, in order of their times and then of their arrival.
_WAITING = b"\x01"
_SEQUENCE = Struct(">Q")
_LENGTH = Struct(">i")
_ABSENT = -1


class GraceBuffer:
    """Records of a stream that wait until the stream's time is ``grace_ms`` past theirs.

    That time is the greatest of the records that were kept here; it is kept with them. As in Kafka Streams, a record
    that is later than the grace when it comes does not wait, and one without a value moves no time and releases none.
    One without a key, of a left join, is joined at once and moves no time either.

    Args:
        name: the operator's.
        grace: what waits, for how long, and where.
        store: its overlay.
        context: the task's.
        join: takes a record when it has waited long enough.
        on_error: the policy of the sources, for a record that fails then.
    """

    def __init__(
        self,
        name: str,
        grace: JoinGrace,
        store: StagedStore,
        context: TaskContext,
        join: Forward,
        on_error: ErrorPolicy,
    ) -> None:
        assert store.segments is not None, "records wait in order of time"
        self._name = name
        self._grace_ms = grace.grace_ms
        self._key, self._value = grace.key, grace.value
        self._store = store
        self._segments = store.segments
        self._context = context
        self._join = join
        self._due = each_by_itself(join, grace.key.serialize, context, store.undo, on_error, grace.value.serialize)

    def run(self, key: Any, value: Any, timestamp: int) -> None:
        """Take one record, and release those whose time has come."""
        segments = self._segments
        now = segments.clock[TIME_KEY]
        if key is None or value is None or timestamp < now - self._grace_ms:
            # Not kept, so it moves no time: a record that the join leaves out would else rob others of their grace.
            self._join(key, value, timestamp)
            return
        self._keep(key, value, timestamp)
        if timestamp > now:
            segments.advance(timestamp)
            now = timestamp
        self._release(now - self._grace_ms)

    def _keep(self, key: Any, value: Any, timestamp: int) -> None:
        record = self._context.record
        try:
            parts: list[bytes | None] = [self._key.serialize(key), self._value.serialize(value)]
        except Exception as error:
            given = (self._key, key), (self._value, value)
            raise not_encoded(self._name, "encoding a record that waits", *given) from error
        for header, data in (None if record is None else record.headers()) or ():
            parts += [header.encode(), data]
        of_time = _WAITING + pack_time(timestamp)
        keys = self._segments.bucket(_WAITING)
        last = bisect_right(keys, of_time + b"\xff" * 8)
        sequence = 0
        if last and keys[last - 1].startswith(of_time):
            sequence = _SEQUENCE.unpack(keys[last - 1][-8:])[0] + 1
        at = of_time + _SEQUENCE.pack(sequence)
        self._segments.created(at)
        self._segments.insert(_WAITING, at)
        self._store.put(at, _joined(parts), timestamp)

    def _release(self, until: int) -> None:
        keys = self._segments.bucket(_WAITING)
        due = keys[: bisect_left(keys, _WAITING + pack_time(until + 1))]
        if not due:
            return
        mine = self._context.record
        try:
            for at in due:
                entry = self._store.get(at)
                assert entry is not None, "a record that is listed and not there"
                key, value, *headers = _parts(entry[0])
                self._segments.remove(_WAITING, at)
                self._segments.delete(at)
                assert key is not None and value is not None, "records without do not wait"  # noqa: PT018
                names = [name.decode() for name in headers[::2] if name is not None]
                self._context.record = RecordWithHeaders(mine, list(zip(names, headers[1::2], strict=True)))
                self._due(self._key.deserialize(key), self._value.deserialize(value), unpack_time(at, 1))
        finally:
            self._context.record = mine


def _joined(parts: list[bytes | None]) -> bytes:
    return b"".join(_LENGTH.pack(_ABSENT) if part is None else _LENGTH.pack(len(part)) + part for part in parts)


def _parts(data: bytes) -> list[bytes | None]:
    parts: list[bytes | None] = []
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length == _ABSENT:
            parts.append(None)
            continue
        parts.append(data[at : at + length])
        at += length
    return parts
