"""Handles of the wrong kind: what was given, and what makes the right thing of it.

Rule of this module: it knows handles by the names of their classes only, so that every handle may use it.
"""

from __future__ import annotations

from datetime import timedelta

from streamstate.errors import TopologyError

_GROUPS = ("GroupedStream", "WindowedStream", "SessionWindowedStream", "CogroupedStream", "WindowedCogroup",
           "SessionWindowedCogroup", "GroupedTable")  # fmt: skip
_WINDOWS = ("TimeWindows", "SlidingWindows", "SessionWindows", "UnlimitedWindows")

# By what is wanted, then by what was given.
_HINTS: dict[str, dict[str, str]] = {
    "Stream": {
        "Table": "the changes of a table are a stream: table.to_stream()",
        "GlobalTable": "a global table has no changes that flow: read the topic with topology.table() or stream()",
        **dict.fromkeys(_GROUPS, "take the stream or table from before it was grouped"),
    },
    "Table": {
        "Stream": "the newest record per key is a table: stream.to_table()",
        "GlobalTable": "a global table is joined with streams only: read the topic with topology.table()",
        **dict.fromkeys(_GROUPS, "count, reduce or aggregate makes a table of it"),
    },
    "GroupedStream": {
        "Stream": "group it first: stream.group_by_key() or stream.group_by(...)",
        "Table": "make a stream of it and group that: table.to_stream().group_by_key()",
        "GroupedTable": "make a stream of the table and group that: table.to_stream().group_by_key()",
        "WindowedStream": "cogroup first, then windowed_by(...)",
        "SessionWindowedStream": "cogroup first, then windowed_by(...)",
        "CogroupedStream": "add its streams one by one, each by cogroup(grouped, aggregator)",
    },
    "windows": {
        "JoinWindows": "windows.join is for within= of joins; for groups there are windows.tumbling, hopping, sliding, "
        "session and unlimited",
    },
    "join windows": dict.fromkeys(_WINDOWS, "these are for windowed_by; joins take windows.join(...)"),
}


def wrong_kind(where: str, wanted: str, given: object, takes: str | None = None) -> TopologyError:
    """The error for an argument of the wrong kind.

    Args:
        where: the operator and what it comes after, such as ``merge after 'lines'``.
        wanted: ``Stream``, ``Table``, ``GroupedStream``, ``windows`` or ``join windows``.
        given: what was given.
        takes: how the message says what is wanted; by default ``a`` and its name.
    """
    hint = _HINTS[wanted].get(type(given).__name__)
    if hint is None and isinstance(given, (list, tuple, set)):
        hint = "pass them one by one"
    if hint is None and isinstance(given, timedelta) and "windows" in wanted:
        maker = "join" if wanted == "join windows" else "tumbling"
        hint = f"make windows of it, such as windows.{maker}(timedelta(seconds={given.total_seconds():g}))"
    said = f"{where} takes {takes or f'a {wanted}'}, not {given!r}"
    return TopologyError(said if hint is None else f"{said}: {hint}")
