"""Stores and error policies for ``process(stores=...)`` and ``on_error=``.

Rule of this module: helpers that make specs, nothing else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamstate.serde import Serde
from streamstate.topology.names import checked
from streamstate.topology.rows import ttl_ms, versioned_spec
from streamstate.topology.specs import ErrorPolicy, StoreSpec

__all__ = ["dead_letter", "key_value", "versioned"]


def key_value(
    name: str, *, key: Serde[Any], value: Serde[Any], ttl: timedelta | None = None, changelog: bool = True
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
    return StoreSpec(name, key, value, changelog, ttl_ms=ttl_ms(ttl, name))


def versioned(
    name: str, *, key: Serde[Any], value: Serde[Any], history: timedelta, changelog: bool = True
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
    return versioned_spec(StoreSpec(checked(name, "name of a store"), key, value, changelog), history)


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
