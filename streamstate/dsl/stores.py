"""Stores and error policies for ``process(stores=...)`` and ``on_error=``.

Rule of this module: helpers that make specs, nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

from streamstate.errors import TopologyError
from streamstate.graph.error_policy import ErrorPolicy
from streamstate.graph.names import checked
from streamstate.graph.store_settings import kept_ms, ttl_ms, versioned_spec
from streamstate.serde import SerdeLike, bytes_, serde_of
from streamstate.state.spec import SegmentSpec, StoreSpec
from streamstate.units import Duration
from streamstate.windows.keys import segment_length

__all__ = ["dead_letter", "key_value", "list_", "session", "timers", "versioned", "window"]


def key_value(
    name: str, *, key: SerdeLike[Any], value: SerdeLike[Any], ttl: Duration | None = None, changelog: bool = True
) -> StoreSpec:
    """A key-value store for processors (Kafka Streams: ``Stores.keyValueStoreBuilder``).

    With ``ttl`` an entry ends when the task's stream time is that far past the entry's last write: it is not read any
    more from then on, and is deleted, with a tombstone, by a commit soon after. Reading does not prolong it. The
    time of a write is that of the record in hand; an older record than that writes nothing that lives, and a
    punctuation by the wall clock writes as of the stream time. Flink: ``StateTtlConfig``, with
    ``NeverReturnExpired``, in event time.

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key. Range scans follow the order of its bytes.
        value: serde of the value.
        ttl: how long an entry lives after its last write; None: for ever.
        changelog: False for a store that may be lost when its task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name, or the ttl is below a millisecond.

    >>> from datetime import timedelta
    >>> from streamstate import serde, stores
    >>> stores.key_value("seen", key=serde.string(), value=serde.long()).changelog
    True
    >>> stores.key_value("recent", key=serde.string(), value=serde.long(), ttl=timedelta(hours=1)).ttl_ms
    3600000
    """
    checked(name, "name of a store")
    return StoreSpec(
        name, serde_of(key, "key=", key=True), serde_of(value, "value="), changelog, ttl_ms=ttl_ms(ttl, name)
    )


def versioned(
    name: str, *, key: SerdeLike[Any], value: SerdeLike[Any], history: Duration, changelog: bool = True
) -> StoreSpec:
    """A versioned store for processors (Kafka Streams: ``Stores.versionedKeyValueStoreBuilder``).

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key.
        value: serde of the value.
        history: how far back from the greatest timestamp put versions can be read, and may still come.
        changelog: False for a store that may be lost when its task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name, or the history is negative.

    >>> from datetime import timedelta
    >>> from streamstate import serde, stores
    >>> stores.versioned("prices", key=serde.string(), value=serde.double(), history=timedelta(hours=1)).history_ms
    3600000
    """
    return versioned_spec(
        StoreSpec(
            checked(name, "name of a store"), serde_of(key, "key=", key=True), serde_of(value, "value="), changelog
        ),
        history,
    )


def list_(
    name: str, *, key: SerdeLike[Any], value: SerdeLike[Any], maxlen: int | None = None, changelog: bool = True
) -> StoreSpec:
    """A store for processors with a list per key, of which each element is an entry of its own.

    Flink: ``ListState``. See ``ListStore`` for what it can do.

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key.
        value: serde of an element.
        maxlen: a list with so many elements loses its first when one is added; None: any number.
        changelog: False for a store that may be lost when its task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name, or ``maxlen`` is below 1.

    >>> from streamstate import serde, stores
    >>> stores.list_("latest", key=serde.string(), value=serde.json(), maxlen=10).maxlen
    10
    """
    if maxlen is not None and (not isinstance(maxlen, int) or maxlen < 1):
        raise TopologyError(f"the lists of store {name!r} have maxlen=1 or more, not {maxlen!r}")
    return StoreSpec(
        checked(name, "name of a store"),
        serde_of(key, "key=", key=True),
        serde_of(value, "value="),
        changelog,
        kind="list",
        maxlen=maxlen,
    )


def timers(
    name: str,
    *,
    key: SerdeLike[Any],
    kind: Literal["stream_time", "wall_clock"] = "stream_time",
    changelog: bool = True,
) -> StoreSpec:
    """Timers for processors: per key a time at which to be called back. See ``ProcessorContext.timers``.

    They are kept as any other state, and survive restarts and crashes. Flink: ``TimerService``.

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key.
        kind: ``stream_time``, the highest event time that the task has seen, or ``wall_clock``.
        changelog: False for timers that may be lost when their task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name, or ``kind`` is another.

    >>> from streamstate import serde, stores
    >>> stores.timers("reminders", key=serde.string()).kind
    'timers'
    """
    if kind not in ("stream_time", "wall_clock"):
        raise TopologyError(f"the kind of timers {name!r} is 'stream_time' or 'wall_clock', not {kind!r}")
    of_store: Literal["timers", "wall_clock_timers"] = "timers" if kind == "stream_time" else "wall_clock_timers"
    return StoreSpec(
        checked(name, "name of a store"), serde_of(key, "key=", key=True), bytes_(), changelog, kind=of_store
    )


def window(
    name: str,
    *,
    key: SerdeLike[Any],
    value: SerdeLike[Any],
    size: Duration,
    retention: Duration,
    changelog: bool = True,
) -> StoreSpec:
    """A window store for processors (Kafka Streams: ``Stores.windowStoreBuilder``). See ``WindowStore``.

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key.
        value: serde of the value.
        size: of a window; says where the windows end that are shown.
        retention: how far the starts of windows may lie behind the greatest one put.
        changelog: False for a store that may be lost when its task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name, or the retention is shorter than a window.

    >>> from datetime import timedelta
    >>> from streamstate import serde, stores
    >>> hour, day = timedelta(hours=1), timedelta(days=1)
    >>> stores.window("hours", key=serde.string(), value=serde.long(), size=hour, retention=day).window_ms
    3600000
    """
    window_ms = kept_ms(size, name, "size")
    segments = _retained(retention, name)
    if segments.retention_ms is not None and segments.retention_ms < window_ms:
        raise TopologyError(f"the retention of window store {name!r} is {retention}, shorter than a window, {size}")
    checked(name, "name of a store")
    content = f"windows of {window_ms} ms of a processor"
    return StoreSpec(
        name,
        serde_of(key, "key=", key=True),
        serde_of(value, "value="),
        changelog,
        segments,
        kind="window",
        window_ms=window_ms,
        content=content,
    )


def session(
    name: str, *, key: SerdeLike[Any], value: SerdeLike[Any], retention: Duration, changelog: bool = True
) -> StoreSpec:
    """A session store for processors (Kafka Streams: ``Stores.sessionStoreBuilder``). See ``SessionStore``.

    Args:
        name: unique in the topology; it names the changelog topic ``{application id}-{name}-changelog``.
        key: serde of the key.
        value: serde of the value.
        retention: how far the ends of sessions may lie behind the greatest one put.
        changelog: False for a store that may be lost when its task moves to another process.

    Raises:
        TopologyError: the name cannot be part of a topic name, or the retention is below a millisecond.

    >>> from datetime import timedelta
    >>> from streamstate import serde, stores
    >>> stores.session("visits", key=serde.string(), value=serde.long(), retention=timedelta(days=1)).kind
    'session'
    """
    segments = _retained(retention, name)
    return StoreSpec(
        checked(name, "name of a store"),
        serde_of(key, "key=", key=True),
        serde_of(value, "value="),
        changelog,
        segments,
        kind="session",
    )


def _retained(retention: Duration, store: str) -> SegmentSpec:
    retention_ms = kept_ms(retention, store, "retention")
    return SegmentSpec(retention_ms, segment_length(retention_ms))


def dead_letter(topic: str) -> ErrorPolicy:
    """Write records that fail to ``topic``, as they came, within the same transaction, and go on.

    Args:
        topic: takes the original bytes and headers, and headers that say what failed where.

    Raises:
        TopologyError: no topic can be called that.

    >>> dead_letter("rejected")
    ErrorPolicy(action='dead_letter', topic='rejected')
    """
    return ErrorPolicy("dead_letter", checked(topic, "dead-letter topic"))
