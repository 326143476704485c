"""How long ``Table.suppress`` holds changes back, and the store in which it does.

Rule of this module: descriptions only. When windows close is read off the operators before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Literal

import orjson

from streamstate.errors import TopologyError
from streamstate.graph.builder import GraphBuilder, NodeRef
from streamstate.operators.suppress.spec import Suppress
from streamstate.operators.windows.spec import WindowedAggregate
from streamstate.serde import Serde
from streamstate.state.spec import SegmentSpec, StoreSpec
from streamstate.units import Duration
from streamstate.windows import SessionWindows, TimeWindows, UnlimitedWindows, milliseconds
from streamstate.windows.keys import pack_time, unpack_time

__all__ = ["TimeLimit", "WindowClose", "buffer_store", "suppress_spec", "time_limit", "window_close", "window_delay"]

_LENGTHS = Struct(">iiI")


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """Made by ``time_limit``."""

    wait_ms: int | None


@dataclass(frozen=True, slots=True)
class WindowClose:
    """Made by ``window_close``."""


def time_limit(wait: Duration | None) -> TimeLimit:
    """Until so much stream time has passed since the first change (Kafka Streams: ``Suppressed.untilTimeLimit``).

    Args:
        wait: how long; 0 lets each change go at once; None sets no limit, so that changes go when ``max_records`` or
            ``max_bytes`` is reached.

    Raises:
        TopologyError: it is negative.

    >>> time_limit("10s")
    TimeLimit(wait_ms=10000)
    """
    return TimeLimit(None if wait is None else milliseconds(wait, "the time limit"))


def window_close() -> WindowClose:
    """Until the window closes (Kafka Streams: ``Suppressed.untilWindowCloses``). Deletions are left out then."""
    return WindowClose()


def window_delay(builder: GraphBuilder, node: str, chain: tuple[str, ...] = ()) -> int:
    """How long after its end a window in the table of ``node`` closes, in ms of stream time.

    Raises:
        TopologyError: there are no windows that close.
    """
    spec = builder.nodes[node].spec
    if isinstance(spec, WindowedAggregate) and not isinstance(spec.windows, UnlimitedWindows):
        windows = spec.windows
        if isinstance(windows, TimeWindows):
            return windows.grace_ms
        # Their ends are part of them: at end and grace, they still take records.
        return windows.grace_ms + 1 + (windows.gap_ms if isinstance(windows, SessionWindows) else 0)
    parents = builder.nodes[node].parents
    if not parents or isinstance(spec, WindowedAggregate):
        raise TopologyError(
            f"suppress(until=window_close()) after {(*chain, node)[0]!r}: there are no windows that close; "
            "use until=time_limit(...)"
        )
    return max(window_delay(builder, parent, (*chain, node)) for parent in parents)


def suppress_spec(
    at: NodeRef,
    until: object,
    max_records: int | None,
    max_bytes: int | None,
    when_full: str | None,
) -> Suppress:
    """The spec of ``suppress`` after ``at``, but for its store.

    Raises:
        TopologyError: an argument does not fit.
    """
    allowed: tuple[str, ...] = ("emit", "stop")
    if isinstance(until, WindowClose):
        wait_ms: int | None = window_delay(at.builder, at.node)
        allowed = ("stop",)
    elif isinstance(until, TimeLimit):
        wait_ms = until.wait_ms
    else:
        raise TopologyError(f"suppress after {at.node!r} takes time_limit(...) or window_close(), not {until!r}")
    when_full = when_full or allowed[0]
    if when_full not in allowed:
        raise TopologyError(
            f"suppress after {at.node!r} takes when_full={' or '.join(map(repr, allowed))} here, not {when_full!r}: "
            "what is sent when a window closes is final"
        )
    for limit, given in (("max_records", max_records), ("max_bytes", max_bytes)):
        if given is not None and (not isinstance(given, int) or given < 1):
            raise TopologyError(f"suppress after {at.node!r} takes {limit}=1 or more, not {given!r}")
    if wait_ms is None and ((max_records is None and max_bytes is None) or when_full == "stop"):
        raise TopologyError(
            f"suppress after {at.node!r}: with time_limit(None) changes go only when there is no more room, so that it "
            "takes max_records= or max_bytes=, and when_full='emit'"
        )
    key = at.key_serde("suppress")
    full: Literal["emit", "stop"] = "emit" if when_full == "emit" else "stop"
    return Suppress("", key, wait_ms, isinstance(until, WindowClose), max_records, max_bytes, full)


def _held(value: Serde[Any]) -> Serde[tuple[Any, Any, Any]]:
    """(newest value, the one before the first one held, headers)."""
    decode = value.deserialize

    def serialize(held: tuple[Any, Any, Any]) -> bytes:
        new, before, headers = held
        first, second = value.encode(new), value.encode(before)
        third = b"" if not headers else orjson.dumps([(name, None if v is None else v.hex()) for name, v in headers])
        lengths = (-1 if first is None else len(first), -1 if second is None else len(second), len(third))
        return _LENGTHS.pack(*lengths) + (first or b"") + (second or b"") + third

    def deserialize(data: bytes) -> tuple[Any, Any, Any]:
        first, second, third = _LENGTHS.unpack_from(data)
        at = _LENGTHS.size
        new = None if first < 0 else decode(data[at : at + first])
        at += max(0, first)
        before = None if second < 0 else decode(data[at : at + second])
        headers = None
        if third:
            pairs = orjson.loads(data[len(data) - third :])
            headers = [(name, None if v is None else bytes.fromhex(v)) for name, v in pairs]
        return new, before, headers

    return Serde(f"held({value.name})", serialize, deserialize, schema=value.schema)


def buffer_store(name: str, key: Serde[Any], value: Serde[Any], content: str) -> StoreSpec:
    """The store of what is held: by time and key."""
    encode: Callable[[Any], bytes] = key.serialize

    def serialize(pair: tuple[int, Any]) -> bytes:
        return pack_time(pair[0]) + encode(pair[1])

    def deserialize(data: bytes) -> tuple[int, Any]:
        return unpack_time(data), key.deserialize(data[8:])

    keys = Serde(f"time, {key.name}", serialize, deserialize, immutable=key.immutable, schema=key.schema)
    return StoreSpec(name, keys, _held(value), segments=SegmentSpec(None), content=content)
