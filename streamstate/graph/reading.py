"""Topics that are read twice: the same reading again is the first one, another is refused.

Rule of this module: a topic has one source, because its records are counted as processed once. What is asked for again
with equal settings is shared; what differs is named, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamstate.errors import TopologyError
from streamstate.serde import Serde

__all__ = ["Reading", "known_reading"]

Kind = Literal["stream", "table", "global_table"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How topics are read.

    Attributes:
        kind: the function of the topology that was called.
        topics: which it was given.
        settings: its arguments by name, as they hold.
        name: the name of the source.
        made: what its handle is made of.
    """

    kind: Kind
    topics: tuple[str, ...]
    settings: Mapping[str, object]
    name: str
    made: Any


def known_reading(
    readings: Mapping[str, Reading],
    kind: Kind,
    topics: tuple[str, ...],
    settings: Mapping[str, object],
    name: str | None,
) -> Reading | None:
    """The reading that is the same, or None where none of the topics is read yet.

    Args:
        readings: those there are, by topic.
        kind: of the new one.
        topics: of the new one.
        settings: of the new one.
        name: of the new one; None: whichever it has.

    Raises:
        TopologyError: a topic is read in another way.
    """
    for topic in topics:
        before = readings.get(topic)
        if before is None:
            continue
        if before.kind != kind:
            raise TopologyError(_kinds(topic, before, kind))
        if sorted(before.topics) != sorted(topics):
            raise TopologyError(
                f"topic {topic!r} is read by two sources, of {_listed(before.topics)} and of {_listed(topics)}: read "
                "each topic by a stream() of its own, and put the streams together with merge()"
            )
        differ = [key for key, value in settings.items() if value != before.settings[key]]
        if name is not None and name != before.name:
            raise TopologyError(
                f"topic {topic!r} is read twice, by {before.name!r} and by {name!r}: a topic has one source. Leave out "
                "name=, or use what the first call returned"
            )
        if differ:
            raise TopologyError(
                f"topic {topic!r} is read twice with different settings: "
                + ", ".join(_difference(key, before.settings[key], settings[key]) for key in differ)
                + f". A topic has one source: call {kind}() once and use what it returns twice"
                + (
                    "; what is to be read in another way can be taken as bytes and decoded in map_values()"
                    if {"key", "value"} & {*differ}
                    else ""
                )
            )
        return before
    return None


def _kinds(topic: str, before: Reading, kind: Kind) -> str:
    both = {before.kind, kind}
    start = f"topic {topic!r} is read as a {_word(before.kind)} and as a {_word(kind)}: a topic has one source. "
    if "global_table" in both:
        other = "stream" if "stream" in both else "table"
        return (
            f"{start}Every process reads a global table's topic whole, and its part of a {other}'s: join the global "
            "table instead, or copy the topic"
        )
    return f"{start}Take the changes of the table, with to_stream(), or make the stream a table, with to_table()"


def _difference(key: str, one: object, other: object) -> str:
    first, second = _shown(one), _shown(other)
    if first == second:
        return f"{key}= is {first} twice, but not the same object, which both calls have to get"
    return f"{key}= is {first} and {second}"


def _word(kind: Kind) -> str:
    return kind.replace("_", " ")


def _listed(topics: tuple[str, ...]) -> str:
    return " and ".join(repr(topic) for topic in topics)


def _shown(value: object) -> str:
    if isinstance(value, Serde):
        return f"the {value.name} serde"
    if callable(value):
        code = getattr(value, "__code__", None)
        return "a function" if code is None else f"a function (line {code.co_firstlineno})"
    action, topic = getattr(value, "action", None), getattr(value, "topic", None)
    if action is None:
        return repr(value)
    return repr(action) if topic is None else f"dead_letter({topic!r})"
