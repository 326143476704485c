"""The topologies of ``own_cases.json``: text from ``left`` and ``right``, text out; windows as ``key@start-end``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from streamstate import Stream, Table, Topology, serde, time_limit, window_close, windows
from tests.conformance.cases import Case, builds, own

TEXT = serde.string()
Text = Stream[Any, Any]
Rows = Table[Any, Any]
Made = Callable[[Topology], None]


def ms(value: int) -> timedelta:
    return timedelta(milliseconds=value)


def shown(value: Any) -> str:
    return "null" if value is None else str(value)


def plus(left: Any, right: Any) -> str:
    return f"{shown(left)}+{shown(right)}"


def joined(value: str, other: str) -> str:
    return value + other


def added(key: Any, value: str, all_: str) -> str:
    return f"{all_}+{value}"


def taken(key: Any, value: str, all_: str) -> str:
    return f"{all_}-{value}"


def group(key: Any, value: str) -> str | None:
    """What is before the bar, if there is one."""
    return value.split("|")[0] if "|" in value else None


def reference(key: Any, value: str) -> str | None:
    """What is behind the bar, if there is one."""
    return value.split("|")[1] if "|" in value else None


def stream(topology: Topology, topic: str = "left") -> Text:
    return topology.stream(topic, key=TEXT, value=TEXT)


def table(topology: Topology, topic: str = "left", *, versioned: bool = False) -> Rows:
    return topology.table(topic, key=TEXT, value=TEXT, versioned=ms(100) if versioned else None)


def out(result: Text | Rows) -> None:
    changes = result if isinstance(result, Stream) else result.to_stream()
    changes.map(lambda key, value: (key, None if value is None else str(value))).to("out", key=TEXT, value=TEXT)


def windowed_out(result: Rows) -> None:
    def flat(window: Any, value: Any) -> tuple[str, str | None]:
        return f"{window.key}@{window.start}-{window.end}", None if value is None else str(value)

    result.to_stream().map(flat).to("out", key=TEXT, value=TEXT)


# -- joins -------------------------------------------------------------------------------------------------


def streams(kind: str, before: int, after: int, grace: int) -> Made:
    def make(topology: Topology) -> None:
        left, right = stream(topology), stream(topology, "right")
        within = windows.join(before=ms(before), after=ms(after), grace=ms(grace))
        out(getattr(left, kind)(right, plus, within=within, store="j"))

    return make


def with_itself(kind: str) -> Made:
    def make(topology: Topology) -> None:
        left = stream(topology)
        out(getattr(left, kind)(left, plus, within=windows.join(ms(10), grace=ms(3)), store="j"))

    return make


def with_rows(kind: str, versioned: bool, grace: int | None = None) -> Made:
    def make(topology: Topology) -> None:
        rows = table(topology, "right", versioned=versioned)
        more: Any = {} if grace is None else {"grace": ms(grace), "name": "j"}
        out(getattr(stream(topology), kind)(rows, plus, **more))

    return make


def with_everywhere(kind: str) -> Made:
    def make(topology: Topology) -> None:
        rows = topology.global_table("right", key=TEXT, value=TEXT)

        def on(key: Any, value: str) -> Any:
            return None if value.startswith("x") else key

        out(getattr(stream(topology), kind)(rows, plus, on=on))

    return make


def tables(kind: str, versioned: bool = False) -> Made:
    def make(topology: Topology) -> None:
        left, right = (table(topology, topic, versioned=versioned) for topic in ("left", "right"))
        out(getattr(left, kind)(right, plus))

    return make


def by_reference(kind: str) -> Made:
    def make(topology: Topology) -> None:
        left, right = table(topology), table(topology, "right")
        out(getattr(left, kind)(right, plus, foreign_key=reference, value=TEXT, store="joined"))

    return make


def filtered_join(topology: Topology) -> None:
    left = table(topology).filter(lambda key, value: not value.startswith("x"))
    right = table(topology, "right").map_values(str.upper)
    out(left.left_join(right, plus).filter_not(lambda key, value: value.endswith("null")))


def grouped_outer_join(topology: Topology) -> None:
    def side(key: Any, value: str) -> str:
        return "right" if value.startswith("null") else "left" if value.endswith("null") else "both"

    made = table(topology).outer_join(table(topology, "right"), plus, value=TEXT)
    out(made.group_by(side, key=TEXT).count(store="c"))


# -- tables ------------------------------------------------------------------------------------------------


def filtered(topology: Topology) -> None:
    out(table(topology).filter(lambda key, value: not value.startswith("x")))


def filtered_and_kept(topology: Topology) -> None:
    out(table(topology).filter(lambda key, value: not value.startswith("x"), store="f"))


def filtered_counts(topology: Topology) -> None:
    out(stream(topology).group_by_key().count(store="c").filter(lambda key, value: value > 1))


def grouped_rows(topology: Topology) -> None:
    grouped = table(topology).group_by(group, key=TEXT)
    out(grouped.aggregate(initializer=lambda: "0", adder=added, subtractor=taken, value=TEXT, store="c"))


def counted_rows(topology: Topology) -> None:
    out(table(topology).group_by(group, key=TEXT).count(store="c"))


def grouped_versions(topology: Topology) -> None:
    grouped = table(topology, versioned=True).group_by(group, key=TEXT)
    out(grouped.reduce(lambda one, other: f"{one}+{other}", lambda one, other: f"{one}-{other}", store="c"))


def held_rows(topology: Topology) -> None:
    out(table(topology).suppress(time_limit(ms(10)), store="h"))


def held_within_two(topology: Topology) -> None:
    out(table(topology).suppress(time_limit(ms(50)), max_records=2, when_full="emit", store="h"))


def rows_of_a_stream(topology: Topology) -> None:
    changed = stream(topology).select_key(lambda key, value: None if value is not None and value[:1] == "x" else key)
    out(changed.to_table(key=TEXT, store="t"))


def counted_results(topology: Topology) -> None:
    newest = stream(topology).group_by_key().reduce(lambda old, new: new, store="r")
    out(newest.group_by(lambda key, value: value, key=TEXT).count(store="c"))


# -- windows -----------------------------------------------------------------------------------------------


def folded(made: Any, emit: Any = "update") -> Made:
    def make(topology: Topology) -> None:
        windowed = stream(topology).group_by_key().windowed_by(made)
        windowed_out(windowed.reduce(joined, store="w", emit=emit))

    return make


def final(made: Any) -> Made:
    def make(topology: Topology) -> None:
        windowed: Any = stream(topology).group_by_key().windowed_by(made)
        windowed_out(windowed.reduce(joined, store="w").suppress(window_close(), store="h"))

    return make


def regrouped(made: Any) -> Made:
    def make(topology: Topology) -> None:
        windowed: Any = stream(topology).group_by_key().windowed_by(made)
        grouped = windowed.reduce(joined, store="w").group_by(lambda window, value: window.key, key=TEXT)
        out(grouped.aggregate(initializer=str, adder=added, subtractor=taken, value=TEXT, store="c"))

    return make


def long_sessions(topology: Topology) -> None:
    windowed = stream(topology).group_by_key().windowed_by(windows.session(ms(10), grace=ms(5)))
    windowed_out(windowed.reduce(joined, store="w").filter(lambda window, value: len(value) > 2))


def cogrouped(made: Any) -> Made:
    def make(topology: Topology) -> None:
        left, right = (stream(topology, topic).group_by_key() for topic in ("left", "right"))
        both: Any = left.cogroup(lambda key, value, all_: all_ + value)
        both = both.cogroup(right, lambda key, value, all_: all_ + value.upper())
        if made is None:
            out(both.aggregate(initializer=str, value=TEXT, store="c"))
        elif isinstance(made, windows.SessionWindows):
            merger = lambda key, one, other: one + other  # noqa: E731 - beside the aggregators
            windowed_out(both.windowed_by(made).aggregate(initializer=str, merger=merger, value=TEXT, store="c"))
        else:
            windowed_out(both.windowed_by(made).aggregate(initializer=str, value=TEXT, store="c"))

    return make


# -- repartition topics ------------------------------------------------------------------------------------


def again(then: Callable[[Topology, Text], None]) -> Made:
    def make(topology: Topology) -> None:
        made = stream(topology).repartition(name="again")
        out(made)
        then(topology, made)

    return make


def far_behind(topology: Topology, made: Text) -> None:
    rows = table(topology, "right")
    twice = made.filter(lambda key, value: False).repartition(name="twice")
    twice.left_join(rows, plus).for_each(lambda key, value: None)


def inner_behind(topology: Topology, made: Text) -> None:
    made.join(table(topology, "right"), plus).for_each(lambda key, value: None)


TUMBLING, HOPPING = windows.tumbling(ms(10), grace=ms(5)), windows.hopping(ms(10), ms(4), grace=ms(5))
SLIDING, SESSION = windows.sliding(ms(10), grace=ms(5)), windows.session(ms(10), grace=ms(5))

MADE: dict[str, Made] = {
    "streams, inner": streams("join", 10, 10, 5),
    "streams, left": streams("left_join", 10, 10, 5),
    "streams, outer": streams("outer_join", 10, 10, 5),
    "streams, left, after only": streams("left_join", 0, 10, 50),
    "a stream with itself": with_itself("join"),
    "a stream with itself, left": with_itself("left_join"),
    "a stream with a table": with_rows("join", False),
    "a stream with a table, left": with_rows("left_join", False),
    "a stream with a versioned table, left": with_rows("left_join", True),
    "a stream with a versioned table, grace": with_rows("join", True, 5),
    "a stream with a versioned table, grace 0": with_rows("join", True, 0),
    "a stream with a global table": with_everywhere("join"),
    "a stream with a global table, left": with_everywhere("left_join"),
    "tables, inner": tables("join"),
    "tables, left": tables("left_join"),
    "tables, outer": tables("outer_join"),
    "versioned tables, outer": tables("outer_join", versioned=True),
    "by foreign key, inner": by_reference("join"),
    "by foreign key, left": by_reference("left_join"),
    "filters around a left join of tables": filtered_join,
    "an outer join of tables, counted by side": grouped_outer_join,
    "a filtered table": filtered,
    "a filtered table that is kept": filtered_and_kept,
    "filtered counts": filtered_counts,
    "rows by group, aggregated": grouped_rows,
    "rows by group, counted": counted_rows,
    "versioned rows by group, reduced": grouped_versions,
    "rows held back": held_rows,
    "two rows held back": held_within_two,
    "rows of a stream": rows_of_a_stream,
    "newest values, counted": counted_results,
    "tumbling windows": folded(TUMBLING),
    "hopping windows": folded(HOPPING),
    "sliding windows": folded(SLIDING),
    "sessions": folded(SESSION),
    "sessions, on close": folded(SESSION, "close"),
    "tumbling windows, suppressed": final(TUMBLING),
    "tumbling windows, grouped again": regrouped(TUMBLING),
    "sessions, grouped again": regrouped(SESSION),
    "sessions, filtered": long_sessions,
    "a cogroup": cogrouped(None),
    "a cogroup by session": cogrouped(SESSION),
    "repartitioned": again(lambda topology, made: None),
    "repartitioned, a left join far behind": again(far_behind),
    "repartitioned, an inner join behind": again(inner_behind),
}


@builds(*own())
def build(case: Case) -> Topology:
    topology = Topology("own")
    MADE[case.topology](topology)
    return topology
