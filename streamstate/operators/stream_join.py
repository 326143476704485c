"""Joins of two streams: each record with those of the other stream that are close in time and have its key.

Semantics are Kafka Streams': a record joins what came before it; its result has the greater of the two times. In left
and outer joins a record that has met nothing waits until stream time, of both streams together, has passed its window
and the grace, and is then sent alone, in the order of time, right before left, then by key. One whose window is over
when it comes is sent alone at once, as is one with a null key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from streamstate.operators.context import NEVER_MS, OperatorFailed, TaskContext
from streamstate.operators.stateless import Forward
from streamstate.state import Segments, StagedStore
from streamstate.topology.window_specs import StreamJoin
from streamstate.window_keys import TIME_KEY, bucket, pack_sequenced, pack_time, unpack_sequenced, unpack_time

RIGHT, LEFT = b"\x00", b"\x01"

Joiner = Callable[[Any, Any], Any]
# (time, number among those of the same time, entry's key)
Found = tuple[int, int, bytes]


class TimedRecords:
    """The records of one stream, by key and time.

    Args:
        store: has them in buckets.
    """

    def __init__(self, store: StagedStore) -> None:
        assert store.segments is not None, "a windowed store without segments"
        assert store.spec.segments is not None, "a windowed store without segments"
        self._store = store
        self._segments: Segments = store.segments
        self._length = store.spec.segments.length_ms

    def find(self, key: bytes, first_ms: int, last_ms: int) -> list[Found]:
        """Records of ``key`` with ``first_ms <= time <= last_ms`` that have not expired, in order."""
        live = self._segments.first_live_ms
        if live is not None and live > first_ms:
            first_ms = live
        # Nothing is later than what the store has seen.
        last_ms = min(last_ms, self._segments.clock[TIME_KEY])
        found: list[Found] = []
        for segment in range(first_ms // self._length * self._length, last_ms + 1, self._length):
            prefix = bucket(segment, key)
            keys = self._segments.bucket(prefix)
            if keys:
                low = bisect_left(keys, prefix + pack_time(first_ms))
                high = bisect_left(keys, prefix + pack_time(last_ms + 1), low)
                found += [(*unpack_sequenced(at, len(prefix)), at) for at in keys[low:high]]
        return found

    def value(self, at: bytes) -> Any:
        """The value of a record that was found."""
        entry = self._store.get(at)
        assert entry is not None, "a record in its bucket and not in the store"
        return entry[0]

    def next_number(self, key: bytes, time_ms: int) -> int:
        """The number that the next record of this key and time gets."""
        same = self.find(key, time_ms, time_ms)
        return same[-1][1] + 1 if same else 0

    def put(self, key: bytes, time_ms: int, number: int, value: Any) -> None:
        """Keep a record, unless it has expired already."""
        if time_ms > self._segments.clock[TIME_KEY]:
            self._segments.advance(time_ms)
        live = self._segments.first_live_ms
        if live is not None and time_ms < live:
            return
        prefix = bucket(time_ms // self._length * self._length, key)
        at = prefix + pack_sequenced(time_ms, number)
        self._store.put(at, value, time_ms)
        self._segments.insert(prefix, at)


class Waiting:
    """Records of left and outer joins that have met nothing yet.

    Args:
        name: of the node.
        spec: of the node.
        store: has them by side, time, key and number.
        context: the task's.
        forward: takes those that stay alone.
    """

    def __init__(self, name: str, spec: StreamJoin, store: StagedStore, context: TaskContext, forward: Forward) -> None:
        assert store.segments is not None, "a windowed store without segments"
        self._name = name
        self._spec = spec
        self._store = store
        self._segments: Segments = store.segments
        self._context = context
        self._forward = forward
        self._undo = store.undo
        grace = spec.within.grace_ms
        # How long after its time a record is alone for good.
        self._delay = {LEFT: spec.within.after_ms + grace, RIGHT: spec.within.before_ms + grace}
        # Nothing of that side is earlier.
        self._least: dict[bytes, int] = {LEFT: 0, RIGHT: 0}

    def init(self) -> None:
        """State is restored: what waits may be of any time."""
        self._least.update({LEFT: 0, RIGHT: 0})

    def close(self) -> None:
        """Nothing to release."""

    @property
    def now(self) -> int:
        """The highest time that both streams together have seen."""
        return self._segments.clock[TIME_KEY]

    def see(self, time_ms: int) -> None:
        """A record of either stream came."""
        if time_ms > self._segments.clock[TIME_KEY]:
            self._segments.advance(time_ms)

    def put(self, side: bytes, key: bytes, time_ms: int, number: int, value: Any) -> None:
        """Let a record wait."""
        at = side + pack_time(time_ms) + key + number.to_bytes(4, "big")
        self._segments.created(at)
        self._segments.noted.add(at)
        self._store.put(at, (side == LEFT, value), time_ms)
        if time_ms < self._least[side]:
            self._set_least(side, time_ms)

    def met(self, side: bytes, key: bytes, time_ms: int, number: int) -> None:
        """A record has met another, and does not wait any more if it did."""
        if time_ms < self._least[side]:
            return
        at = side + pack_time(time_ms) + key + number.to_bytes(4, "big")
        if self._store.get(at) is not None:
            self._segments.delete(at)

    def _set_least(self, side: bytes, time_ms: int) -> None:
        if self._undo is not None:
            self._undo.append((self._least, side, self._least[side]))
        self._least[side] = time_ms

    def release(self) -> None:
        """Send on what is alone for good."""
        now = self.now
        alone: list[tuple[int, bytes, bytes, Any]] = []
        for side in (RIGHT, LEFT):
            end = now - self._delay[side]
            if end <= self._least[side]:
                continue
            for at, ((_, value), time) in self._store.between(side, side + pack_time(end)):
                alone.append((time, side, at, value))
            first = self._store.first_from(side + pack_time(end), side + TIME_KEY)
            self._set_least(side, NEVER_MS if first is None else unpack_time(first, 1))
        if not alone:
            return
        for _, _, at, _ in alone:
            self._segments.delete(at)
        joiner, decode_key = self._spec.joiner, self._spec.key.deserialize
        for time, side, at, value in sorted(alone, key=lambda item: (item[0], item[1], item[2])):
            try:
                key = decode_key(at[9:-4])
                joined = joiner(value, None) if side == LEFT else joiner(None, value)
            except Exception as error:
                raise OperatorFailed(self._name) from error
            self._forward(key, joined, time)


def stream_join(
    name: str,
    spec: StreamJoin,
    own: TimedRecords,
    other: TimedRecords,
    waiting: Waiting | None,
    context: TaskContext,
    forward: Forward,
    *,
    left: bool,
) -> Forward:
    """One side of a join.

    Args:
        name: of the node.
        spec: of the node.
        own: records of this stream.
        other: records of the other one.
        waiting: for left and outer joins.
        context: the task's.
        forward: takes the results.
        left: this is the left stream.
    """
    windows, serialize_key = spec.within, spec.key.serialize
    before, after = (windows.before_ms, windows.after_ms) if left else (windows.after_ms, windows.before_ms)
    alone = spec.left_alone if left else spec.right_alone
    mine, others = (LEFT, RIGHT) if left else (RIGHT, LEFT)
    joiner: Joiner = spec.joiner if left else lambda value, found: spec.joiner(found, value)

    def send(key: Any, value: Any, found: Any, timestamp: int) -> None:
        try:
            joined = joiner(value, found)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, joined, timestamp)

    def run(key: Any, value: Any, timestamp: int) -> None:
        if waiting is not None:
            waiting.see(timestamp)
        if key is None or value is None:
            if alone and value is not None:
                send(None, value, None, timestamp)
            else:
                context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
        if waiting is not None and timestamp == waiting.now:
            waiting.release()
        found = other.find(encoded, max(0, timestamp - before), timestamp + after)
        for time, number, at in found:
            if waiting is not None:
                waiting.met(others, encoded, time, number)
            send(key, value, other.value(at), time if time > timestamp else timestamp)
        number = own.next_number(encoded, timestamp)
        waits = False
        if alone and not found:
            assert waiting is not None, "a left or outer join in which nothing waits"
            waits = timestamp + after >= waiting.now
            if not waits:
                send(key, value, None, timestamp)
        try:
            if waits:
                assert waiting is not None, "a left or outer join in which nothing waits"
                waiting.put(mine, encoded, timestamp, number, value)
            own.put(encoded, timestamp, number, value)
        except Exception as error:
            raise OperatorFailed(name, "encoding the value") from error

    return run


def self_join(name: str, spec: StreamJoin, own: TimedRecords, context: TaskContext, forward: Forward) -> Forward:
    """An inner join of a stream with itself: its records are kept once. Results come as if they were kept twice: those
    in which the record is the left one, then those in which it is the right one, itself included."""
    windows, serialize_key, joiner = spec.within, spec.key.serialize, spec.joiner

    def send(key: Any, left: Any, right: Any, timestamp: int) -> None:
        try:
            joined = joiner(left, right)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, joined, timestamp)

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise OperatorFailed(name, "encoding the key") from error
        before, after = windows.before_ms, windows.after_ms
        for time, _, at in own.find(encoded, max(0, timestamp - before), timestamp + after):
            send(key, value, own.value(at), max(time, timestamp))
        try:
            own.put(encoded, timestamp, own.next_number(encoded, timestamp), value)
        except Exception as error:
            raise OperatorFailed(name, "encoding the value") from error
        for time, _, at in own.find(encoded, max(0, timestamp - after), timestamp + before):
            send(key, own.value(at), value, max(time, timestamp))

    return run
