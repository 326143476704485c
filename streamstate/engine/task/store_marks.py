"""The mark of a store: how its entries were written, and whether a topology may go on with them.

A store gets its mark with the first commit of its task: in the changelog under ``MARK_KEY``, in the local database, and
in the application's metadata topic, which a process reads before it joins the group. A topology that would misread
entries is refused. Grace, retention, history, time to live, ``emit`` and ready aggregates may change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

from streamstate.errors import TaskCorrupted, TopologyError
from streamstate.state.spec import NOTHING_CLOSED_MS, Aggregates, SegmentSpec, StoreSpec

__all__ = [
    "MARK_KEY",
    "MOST_SETS",
    "StoreMark",
    "added_and_removed",
    "describe_changes",
    "differences",
    "mark_fact",
    "mark_of",
    "reconcile",
]

# Of the mark in a changelog. Serdes that could make a key of it are refused when such a key is written.
MARK_KEY: Final = b"\xff\xffstreamstate store mark\xff\xff"
# Of ready aggregates; see ``topology.folds``.
MOST_SETS: Final = 90

_FORMAT = 1
Index = Literal["none", "kept", "stale"]


@dataclass(frozen=True, slots=True)
class StoreMark:
    """How a store was written.

    Attributes:
        kind: of the store, with ``ttl`` behind it for one whose entries expire.
        content: see ``StoreSpec``.
        key, value: identities of the serdes.
        changelog: ``own``; ``topic``: that of the table's rows; or ``none``.
        aggregates: the sets of ready aggregates it was written with, the newest last; empty where it has none.
        segment_ms: length of a segment; None where keys do not begin with times.
        retention_ms, grace_ms, ttl_ms: under which it was written last; None where there is none.
        final: results were sent when windows closed.
        index: by time: ``kept``; ``stale``: no longer kept, and some entries may be left; or ``none``.
        changed_at_ms, closed_ms: see ``SegmentSpec``.
    """

    kind: str
    content: str
    key: str
    value: str
    changelog: Literal["own", "topic", "none"]
    aggregates: tuple[Aggregates, ...] = ()
    segment_ms: int | None = None
    retention_ms: int | None = None
    grace_ms: int | None = None
    ttl_ms: int | None = None
    final: bool = False
    index: Index = "none"
    changed_at_ms: int = NOTHING_CLOSED_MS
    closed_ms: int = NOTHING_CLOSED_MS

    def text(self) -> str:
        """Return the mark as JSON.

        >>> mark = StoreMark("key_value", "count", "string", "long", "own")
        >>> StoreMark.parsed("counts", mark.text()) == mark
        True
        """
        default = {name: field.default for name, field in self.__dataclass_fields__.items()}
        told = {name: value for name, value in asdict(self).items() if value != default[name]}
        return json.dumps({"format": _FORMAT, **told}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def parsed(cls, store: str, text: str) -> StoreMark:
        """Parse a mark.

        Raises:
            TaskCorrupted: a newer version of streamstate wrote ``text``, or it is not a mark.
        """
        try:
            told = json.loads(text)
            if told.pop("format") > _FORMAT:
                raise ValueError("its format is newer than this version of streamstate")
            known = {name: value for name, value in told.items() if name in cls.__dataclass_fields__}
            known["aggregates"] = tuple(
                tuple((name, tuple(kind)) for name, kind in one) for one in known.get("aggregates", ())
            )
            return cls(**known)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TaskCorrupted(
                f"store {store!r} has a mark that cannot be read ({error}): {text[:200]!r}. Run the version of "
                f"streamstate that wrote it, or start over with 'streamstate reset'"
            ) from error


def mark_fact(store: str) -> str:
    """Return the name of the fact that holds the mark of a store in the local database."""
    return f"mark:{store}"


def mark_of(spec: StoreSpec) -> StoreMark:
    """Return the mark of a new store.

    Args:
        spec: as the topology has it, with what was decided about changelogs.
    """
    segments = spec.segments or SegmentSpec(None)
    return StoreMark(
        kind=f"{spec.kind} ttl" if spec.ttl_ms is not None else spec.kind,
        content=spec.content,
        key=spec.key.identity if spec.keys is None else spec.keys(segments.length_ms).identity,
        value=spec.value.identity,
        changelog="none" if not spec.changelog else "topic" if spec.reuse else "own",
        aggregates=(spec.aggregates,) if spec.aggregates else (),
        segment_ms=None if spec.segments is None else segments.length_ms,
        retention_ms=segments.retention_ms,
        grace_ms=segments.grace_ms,
        ttl_ms=spec.ttl_ms,
        final=segments.final,
        index="kept" if segments.indexed else "none",
        changed_at_ms=segments.changed_at_ms,
        closed_ms=segments.closed_ms,
    )


def reconcile(spec: StoreSpec, stored: StoreMark, seen_ms: int) -> tuple[StoreSpec, StoreMark]:
    """Decide how a topology goes on with a store that was written before.

    Args:
        spec: as the topology has it.
        stored: how it was written.
        seen_ms: the highest time that its operator has seen, of a store with segments.

    Returns:
        The spec to read and write it with, and the mark to write.

    Raises:
        TopologyError: it cannot go on. The message names the store, what differs and what to do.
    """
    mark = mark_of(spec)
    refused = differences(stored, mark)
    if refused:
        raise TopologyError(
            f"store {spec.name!r} holds state of another layout than the topology says: {'; '.join(refused)}. Go back "
            f"to what it was; or give the changed store another name (store=), so that it starts empty and the old "
            f"state stays where it is; or start over with 'streamstate reset'"
        )
    segments = spec.segments
    if segments is not None:
        segments = _segments(segments, stored, seen_ms)
        mark = replace(
            mark,
            segment_ms=segments.length_ms,
            changed_at_ms=segments.changed_at_ms,
            closed_ms=segments.closed_ms,
        )
        if mark.index == "none" and stored.index != "none":
            mark = replace(mark, index="stale")
        if segments != spec.segments:
            key = spec.key if spec.keys is None else spec.keys(segments.length_ms)
            spec = replace(spec, segments=segments, key=key)
    if stored.aggregates:
        sets = stored.aggregates if stored.aggregates[-1] == spec.aggregates else (*stored.aggregates, spec.aggregates)
        if len(sets) > MOST_SETS:
            raise TopologyError(
                f"store {spec.name!r}: its ready aggregates were changed {MOST_SETS} times, which is the most. Give "
                f"the aggregation another store name (store=)"
            )
        mark = replace(mark, aggregates=sets)
        assert spec.states is not None, "aggregates without their states"
        if len(sets) > 1:
            spec = replace(spec, value=spec.states(sets))
    return spec, mark


def _segments(segments: SegmentSpec, stored: StoreMark, seen_ms: int) -> SegmentSpec:
    assert stored.segment_ms is not None, "compared before"
    segments = replace(
        segments,
        length_ms=stored.segment_ms,
        indexed=segments.indexed or stored.index != "none",
        changed_at_ms=stored.changed_at_ms,
        closed_ms=stored.closed_ms,
    )
    if segments.grace_ms is None or stored.grace_ms is None:
        return segments
    if segments.grace_ms == stored.grace_ms or seen_ms < 0:
        return segments
    # Windows that had closed stay closed, because their state may be gone and their results final; those that the new
    # grace closes are sent on with the next record.
    return replace(segments, changed_at_ms=seen_ms, closed_ms=segments.closed_before(seen_ms, stored.grace_ms))


def differences(stored: StoreMark, now: StoreMark) -> list[str]:
    """List why entries written under one mark cannot be read under another; empty when they can.

    >>> counts = StoreMark("key_value", "count", "string", "long", "own")
    >>> differences(counts, replace(counts, value="json", content="reduce"))
    ["it holds 'count', the topology says 'reduce'", "its values were written by the serde 'long', not by 'json'"]
    """
    found = []
    if stored.kind != now.kind:
        found.append(f"its kind is {_kind(stored.kind)}, the topology says {_kind(now.kind)}")
    if stored.content != now.content:
        found.append(f"it holds {stored.content!r}, the topology says {now.content!r}")
    if stored.key != now.key:
        found.append(f"its keys were written by the serde {stored.key!r}, not by {now.key!r}")
    if stored.value != now.value:
        found.append(f"its values were written by the serde {stored.value!r}, not by {now.value!r}")
    if not found and (stored.segment_ms is None) != (now.segment_ms is None):
        found.append("its keys begin with times" if now.segment_ms is None else "its keys do not begin with times")
    if stored.changelog == "none" and now.changelog == "own":
        found.append(
            "it had no changelog so far (changelog=False), so that Kafka has nothing of what was put into it since: it "
            "cannot get one now"
        )
    if not found and now.final and (stored.grace_ms or 0) < (now.grace_ms or 0):
        found.append(
            f"its windows closed after a grace of {stored.grace_ms} ms, and windows that have closed are not sent once "
            f"more: with emit='close' their grace cannot become {now.grace_ms} ms"
        )
    if not found and stored.aggregates:
        before, after = dict(stored.aggregates[-1]), dict(now.aggregates[0] if now.aggregates else ())
        found += [
            f"aggregate {name!r} was {_call(before[name])}, the topology says {_call(after[name])}: call the new one "
            f"something else"
            for name in sorted(before.keys() & after.keys())
            if not _same_kind(before[name], after[name])
        ]
    return found


def added_and_removed(stored: StoreMark, now: StoreMark) -> tuple[list[str], list[str]]:
    """Return the names of ready aggregates that are new, and of those that are gone."""
    before = {name for name, _ in stored.aggregates[-1]} if stored.aggregates else set()
    after = {name for name, _ in now.aggregates[-1]} if now.aggregates else set()
    return sorted(after - before), sorted(before - after)


def describe_changes(added: Sequence[str], removed: Sequence[str]) -> str:
    """Describe for the log the ready aggregates that are new, and those that are gone."""
    parts = []
    if added:
        parts.append(f"the ready aggregates {', '.join(added)} are new and start with the next record of each key")
    if removed:
        parts.append(f"the ready aggregates {', '.join(removed)} are gone; their states are dropped")
    return "; ".join(parts)


def _same_kind(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Functions cannot be compared: one passes for any other, and for a field."""
    return len(one) == len(other) and all(
        first == second or _is_function(first, second) or _is_function(second, first)
        for first, second in zip(one, other, strict=True)
    )


def _is_function(one: str, other: str) -> bool:
    name, _, value = one.partition("=")
    return value == "(function)" and other.startswith(f"{name}=")


def _kind(kind: str) -> str:
    name, _, ttl = kind.partition(" ")
    return f"{name} with ttl" if ttl else f"{name} without ttl" if name == "key_value" else name


def _call(kind: tuple[str, ...]) -> str:
    return f"{kind[0]}({', '.join(kind[1:])})"
