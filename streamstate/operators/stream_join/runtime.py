"""Joins of two streams: each record with those of the other stream that are close in time and have its key.

Semantics are Kafka Streams': a record joins what came before it; its result has the greater of the two times. In left
and outer joins a record that has met nothing waits until stream time, of both streams together, has passed its window
and the grace, and is then sent alone, in the order of time, right before left, then by key. One whose window is over
when it comes is sent alone at once, as is one with a null key. Stream time is that of the records that are kept: those
without a key or a value do not move it (decision 0026).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any

from streamstate.graph.error_policy import FAIL, ErrorPolicy
from streamstate.operators.base.context import TaskContext
from streamstate.operators.base.due_results import each_by_itself
from streamstate.operators.base.failures import OperatorFailed, not_encoded
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.base.joiners import from_right
from streamstate.operators.base.schedules import NEVER_MS
from streamstate.state.staging import StagedStore
from streamstate.state.undo import MISSING
from streamstate.state.window_index import WindowIndex
from streamstate.windows.keys import BIAS, TIME_KEY, pack_sequenced, pack_time, unpack_sequenced, unpack_time

if TYPE_CHECKING:
    from streamstate.operators.stream_join.spec import StreamJoin

RIGHT, LEFT = b"\x00", b"\x01"
# Behind the key in the keys of records: time and number.
_SUFFIX = 12
# UnmatchedRecords records that are known in memory; at most twice as many.
_KNOWN = 1_000

# Of both values, or of the key and both values.
Joiner = Callable[..., Any]

_pack_prefix, _pack_time = Struct(">QI").pack, Struct(">Q").pack


class TimedRecords:
    """The records of one stream, by key and time.

    Args:
        store: has them in buckets.

    Attributes:
        put: of the store.
        undoing: what a failed record has done is taken back.
        segments: of the store.
        buckets: keys of records by what they begin with.
        length_ms: of a segment.
        retention_ms: how far behind the highest time records are kept.
    """

    def __init__(self, store: StagedStore) -> None:
        spec, segments = store.spec.segments, store.segments
        assert segments is not None, "a windowed store without segments"
        assert spec is not None, "a windowed store without segments"
        assert spec.retention_ms is not None, "records that are kept for ever"
        self._get = store.get
        self.put = store.put
        self.undoing = store.undo is not None
        self.segments: WindowIndex = segments
        self._clock = segments.clock
        self.buckets = segments.buckets
        self.length_ms = spec.length_ms
        self.retention_ms = spec.retention_ms

    def find(self, key: bytes, first_ms: int, last_ms: int) -> list[bytes]:
        """Entries' keys of records of ``key`` with ``first_ms <= time <= last_ms`` that have not expired, in order."""
        # Nothing is later than what the store has seen, and nothing is read that is older than its retention.
        now = self._clock[TIME_KEY]
        if first_ms <= now - self.retention_ms:
            first_ms = now - self.retention_ms + 1
        if last_ms > now:
            last_ms = now
        if first_ms < 0:
            first_ms = 0
        found: list[bytes] = []
        length, size = self.length_ms, len(key)
        for segment in range(first_ms - first_ms % length, last_ms + 1, length):
            prefix = _pack_prefix(segment + BIAS, size) + key
            keys = self.buckets.get(prefix)
            if keys is None:
                keys = self.segments.bucket(prefix)
            if keys:
                low = prefix + pack_time(first_ms)
                if keys[-1] >= low:
                    at = bisect_left(keys, low)
                    found += keys[at : bisect_left(keys, prefix + pack_time(last_ms + 1), at)]
        return found

    def value(self, at: bytes) -> Any:
        """The value of a record that was found."""
        entry = self._get(at)
        assert entry is not None, "a record in its bucket and not in the store"
        return entry[0]

    def keep(self, key: bytes, time_ms: int, value: Any) -> int:
        """Keep a record, unless it has expired already.

        Returns:
            Its number among the records of this key and time.
        """
        now = self._clock[TIME_KEY]
        if time_ms > now:
            self.segments.advance(time_ms)
            now = time_ms
        prefix = _pack_prefix(time_ms - time_ms % self.length_ms + BIAS, len(key)) + key
        at = prefix + pack_sequenced(time_ms, 0)
        keys = self.buckets.get(prefix)
        if keys is None:
            keys = self.segments.bucket(prefix)
        number = 0
        if keys and keys[-1] >= at:
            same = bisect_left(keys, prefix + pack_time(time_ms + 1))
            if same and keys[same - 1] >= at:
                number = unpack_sequenced(keys[same - 1], len(prefix))[1] + 1
                at = prefix + pack_sequenced(time_ms, number)
        if time_ms > now - self.retention_ms:
            self.put(at, value, time_ms)
            if self.undoing or (keys and keys[-1] > at):
                self.segments.insert(prefix, at)
            else:
                self.segments.append(prefix, keys, at)
        return number


class _LetGo(dict[bytes, Any]):
    """In an undo log: lets what was let go wait again."""

    def __init__(self, unmatched: UnmatchedRecords) -> None:
        super().__init__()
        self._unmatched = unmatched

    def __setitem__(self, at: bytes, nothing: None) -> None:
        self._unmatched.take_back(at)


class UnmatchedRecords:
    """Records of left and outer joins that have met nothing yet.

    Of each side the first ones are known in memory, up to a horizon; what lies behind it is read when it is reached.

    Args:
        name: of the node.
        spec: of the node.
        store: has them by side, time, key and number.
        context: the task's.
        forward: takes those that stay alone.
        on_error: the policy of the sources, for those that fail.
    """

    def __init__(
        self,
        name: str,
        spec: StreamJoin,
        store: StagedStore,
        context: TaskContext,
        forward: Forward,
        on_error: ErrorPolicy = FAIL,
    ) -> None:
        assert store.segments is not None, "a windowed store without segments"
        self._name = name
        self._spec = spec
        self._store = store
        self._segments: WindowIndex = store.segments
        self._context = context
        self._forward = forward
        self._undo = store.undo
        self._let_go = _LetGo(self)
        self._due_alone = each_by_itself(self._send, spec.key.serialize, context, store.undo, on_error)
        grace = spec.within.grace_ms
        # How long after its time a record is alone for good.
        self._delay = {LEFT: spec.within.after_ms + grace, RIGHT: spec.within.before_ms + grace}
        # By side: keys in order, some of them of records that do not wait any more; what they end at; and a time
        # before which nothing waits.
        self._known: dict[bytes, list[bytes]] = {LEFT: [], RIGHT: []}
        self._horizon: dict[bytes, bytes] = {LEFT: LEFT, RIGHT: RIGHT}
        self._least: dict[bytes, int] = {LEFT: 0, RIGHT: 0}

    def init(self) -> None:
        """State is restored: what waits may be of any time."""
        for side in (LEFT, RIGHT):
            self._known[side], self._horizon[side], self._least[side] = [], side, 0

    def close(self) -> None:
        """Nothing to release."""

    @property
    def now(self) -> int:
        """The highest time that both streams together have seen."""
        return self._segments.clock[TIME_KEY]

    def see(self, time_ms: int) -> None:
        """A record of either stream came that is kept."""
        if time_ms > self._segments.clock[TIME_KEY]:
            self._segments.advance(time_ms)

    def take_back(self, at: bytes) -> None:
        """A record was let go for one that has failed: it waits again."""
        side, time = at[:1], unpack_time(at, 1)
        if at < self._horizon[side]:
            insort(self._known[side], at)
        self._least[side] = min(time, self._least[side])

    def _is_there(self, at: bytes) -> bool:
        store = self._store
        found = store.staged.get(at, MISSING)
        return (store.load(at) if found is MISSING else found) is not None

    def put(self, side: bytes, key: bytes, time_ms: int, number: int, value: Any) -> None:
        """Let a record wait."""
        at = side + pack_time(time_ms) + key + number.to_bytes(4, "big")
        self._segments.created(at)
        self._segments.noted.add(at)
        self._store.put(at, (side == LEFT, value), time_ms)
        if at < self._horizon[side]:
            known = self._known[side]
            if known and known[-1] > at:
                insort(known, at)
            else:
                known.append(at)
            if len(known) > 2 * _KNOWN:
                self._horizon[side] = known[_KNOWN]
                del known[_KNOWN:]
        if time_ms < self._least[side]:
            self._least[side] = time_ms

    def met(self, side: bytes, key: bytes, time_ms: int, number: int) -> None:
        """A record has met another, and does not wait any more if it did."""
        if time_ms < self._least[side]:
            return
        at = side + pack_time(time_ms) + key + number.to_bytes(4, "big")
        if self._is_there(at):
            self._segments.delete(at)

    def _due(self, side: bytes, end_ms: int) -> list[bytes]:
        """Take the keys of earlier times out of the known ones."""
        bound, last = side + pack_time(end_ms), side + TIME_KEY
        due: list[bytes] = []
        while True:
            known = self._known[side]
            taken = bisect_left(known, bound)
            due += known[:taken]
            del known[:taken]
            if known or self._horizon[side] >= bound:
                break
            known += self._store.keys_between(self._horizon[side], last, _KNOWN)
            # The shortest key behind another is itself and a zero byte.
            self._horizon[side] = last if len(known) < _KNOWN else known[-1] + b"\x00"
        horizon = self._horizon[side]
        first = known[0] if known else horizon
        self._least[side] = NEVER_MS if first == last else unpack_time(first, 1)
        return due

    def release(self) -> None:
        """Send on what is alone for good."""
        now = self.now
        alone: list[tuple[int, bytes, bytes, Any]] = []
        for side in (RIGHT, LEFT):
            end = now - self._delay[side]
            if end <= self._least[side]:
                continue
            due = self._due(side, end)
            if self._undo is not None:
                self._undo += [(self._let_go, at, None) for at in due]
            for at in due:
                entry = self._store.get(at)
                if entry is not None:
                    alone.append((entry[1], side, at, entry[0][1]))
        if not alone:
            return
        for _, _, at, _ in alone:
            self._segments.delete(at)
        decode_key, due_alone = self._spec.key.deserialize, self._due_alone
        for time, side, at, value in sorted(alone, key=lambda item: (item[0], item[1], item[2])):
            try:
                key = decode_key(at[9:-4])
            except Exception as error:
                raise OperatorFailed(self._name, "decoding the key") from error
            due_alone(key, side, value, time)

    def _send(self, key: Any, side: bytes, value: Any, timestamp: int) -> None:
        values = (value, None) if side == LEFT else (None, value)
        try:
            joined = self._spec.joiner(key, *values) if self._spec.with_key else self._spec.joiner(*values)
        except Exception as error:
            raise OperatorFailed(self._name) from error
        self._forward(key, joined, timestamp)


def stream_join(
    name: str,
    spec: StreamJoin,
    own: TimedRecords,
    other: TimedRecords,
    waiting: UnmatchedRecords | None,
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
    joiner, with_key = spec.joiner if left else from_right(spec.joiner, spec.with_key), spec.with_key
    find, value_of, keep = other.find, other.value, own.keep

    def send(key: Any, value: Any, found: Any, timestamp: int) -> None:
        try:
            joined = joiner(key, value, found) if with_key else joiner(value, found)
        except Exception as error:
            raise OperatorFailed(name) from error
        forward(key, joined, timestamp)

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            # Not kept, so it moves no time: it would else rob records that come later of their window and grace.
            if alone and value is not None:
                send(None, value, None, timestamp)
            else:
                context.dropped += 1
            return
        if waiting is not None:
            waiting.see(timestamp)
        try:
            encoded = serialize_key(key)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (spec.key, key)) from error
        if waiting is not None and timestamp == waiting.now:
            waiting.release()
        found = find(encoded, timestamp - before, timestamp + after)
        for at in found:
            time, number = unpack_sequenced(at, len(at) - _SUFFIX)
            if waiting is not None:
                waiting.met(others, encoded, time, number)
            other_value = value_of(at)
            try:
                joined = joiner(key, value, other_value) if with_key else joiner(value, other_value)
            except Exception as error:
                raise OperatorFailed(name) from error
            forward(key, joined, time if time > timestamp else timestamp)
        waits = False
        if alone and not found:
            assert waiting is not None, "a left or outer join in which nothing waits"
            waits = timestamp + after >= waiting.now
            if not waits:
                send(key, value, None, timestamp)
        try:
            number = keep(encoded, timestamp, value)
            if waits:
                assert waiting is not None, "a left or outer join in which nothing waits"
                waiting.put(mine, encoded, timestamp, number, value)
        except Exception as error:
            raise OperatorFailed(name, "encoding the value") from error

    return run


def inner_join(
    name: str,
    spec: StreamJoin,
    own: TimedRecords,
    other: TimedRecords,
    context: TaskContext,
    forward: Forward,
    *,
    left: bool,
) -> Forward:
    """One side of an inner join in a task that takes nothing back: ``stream_join`` with ``find`` and ``keep`` written
    out for the commonest record. All that it can meet lies in one segment, and it is the newest of its key.

    Args:
        name: of the node.
        spec: of the node.
        own: records of this stream.
        other: records of the other one, in segments as long.
        context: the task's.
        forward: takes the results.
        left: this is the left stream.
    """
    windows, serialize_key = spec.within, spec.key.serialize
    before, after = (windows.before_ms, windows.after_ms) if left else (windows.after_ms, windows.before_ms)
    joiner, with_key = spec.joiner if left else from_right(spec.joiner, spec.with_key), spec.with_key
    find, value_of, keep = other.find, other.value, own.keep
    theirs, their_bucket, their_clock = other.buckets, other.segments.bucket, other.segments.clock
    ours, our_bucket, our_clock = own.buckets, own.segments.bucket, own.segments.clock
    put, append, length = own.put, own.segments.append, own.length_ms
    retention, their_retention = own.retention_ms, other.retention_ms
    assert other.length_ms == length, "streams in segments of different lengths"

    def run(key: Any, value: Any, timestamp: int) -> None:
        if key is None or value is None:
            context.dropped += 1
            return
        found: Sequence[bytes] = ()
        segment = timestamp - timestamp % length
        try:
            encoded = serialize_key(key)
            prefix = _pack_prefix(segment + BIAS, len(encoded)) + encoded
            own_at = prefix + pack_sequenced(timestamp, 0)
        except Exception as error:
            raise not_encoded(name, "encoding the key", (spec.key, key)) from error
        first, last = timestamp - before, timestamp + after
        if last > their_clock[TIME_KEY]:
            last = their_clock[TIME_KEY]
        # Nothing meets what is before 1970, as in Kafka Streams: ``find`` sees to that.
        if first < segment or first < 0 or last >= segment + length or first <= their_clock[TIME_KEY] - their_retention:
            found = find(encoded, first, last)
        else:
            keys = theirs.get(prefix)
            if keys is None:
                keys = their_bucket(prefix)
            if keys and keys[-1] >= (low := prefix + _pack_time(first + BIAS)):
                at_first = bisect_left(keys, low)
                found = keys[at_first : bisect_left(keys, prefix + _pack_time(last + 1 + BIAS), at_first)]
        for at in found:
            time = unpack_time(at, len(at) - _SUFFIX)
            other_value = value_of(at)
            try:
                joined = joiner(key, value, other_value) if with_key else joiner(value, other_value)
            except Exception as error:
                raise OperatorFailed(name) from error
            forward(key, joined, time if time > timestamp else timestamp)
        now = our_clock[TIME_KEY]
        if timestamp > now:
            our_clock[TIME_KEY] = now = timestamp
        keys = ours.get(prefix)
        if keys is None:
            keys = our_bucket(prefix)
        try:
            if keys and keys[-1] >= own_at:
                keep(encoded, timestamp, value)
            elif timestamp > now - retention:
                put(own_at, value, timestamp)
                append(prefix, keys, own_at)
        except Exception as error:
            raise OperatorFailed(name, "encoding the value") from error

    return run


def self_join(name: str, spec: StreamJoin, own: TimedRecords, context: TaskContext, forward: Forward) -> Forward:
    """An inner join of a stream with itself: its records are kept once. Results come as if they were kept twice: those
    in which the record is the left one, then those in which it is the right one, itself included."""
    serialize_key, joiner, with_key = spec.key.serialize, spec.joiner, spec.with_key
    before, after = spec.within.before_ms, spec.within.after_ms

    def send(key: Any, left: Any, right: Any, timestamp: int) -> None:
        try:
            joined = joiner(key, left, right) if with_key else joiner(left, right)
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
            raise not_encoded(name, "encoding the key", (spec.key, key)) from error
        for at in own.find(encoded, timestamp - before, timestamp + after):
            send(key, value, own.value(at), max(unpack_sequenced(at, len(at) - _SUFFIX)[0], timestamp))
        try:
            own.keep(encoded, timestamp, value)
        except Exception as error:
            raise OperatorFailed(name, "encoding the value") from error
        for at in own.find(encoded, timestamp - after, timestamp + before):
            send(key, own.value(at), value, max(unpack_sequenced(at, len(at) - _SUFFIX)[0], timestamp))

    return run
