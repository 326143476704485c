"""Every change of a topology whose state stays gives what the later topology would have given alone, or is refused.

All ordered pairs of a catalogue of topologies over one store name. "Alone" is read like this:

- Outputs are compared from the change on, record by record. Where results are sent when windows close, before and
  after, those of the whole run are compared: a shorter grace closes windows with the first record that comes.
- Where a shorter grace comes with results at the close, nothing had closed before: all results are behind the change.
- Changes that are held back are let go with what else there was for their key by then: the newest rows are compared.
- A ready aggregate that is new, and a store under another name, start with the change: they are compared with the later
  topology on the records behind the change. So is a store without a changelog whose disk is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import pytest

from streamstate import Processor, Stream, Table, Topology, aggregates, serde, stores, time_limit, windows
from streamstate.errors import TopologyError
from streamstate.testing.driver.driver import TopologyTestDriver

TEXT, LONG, JSON = serde.string(), serde.long(), serde.json()
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
NOW = 1_700_000_000_000
Emit = Literal["update", "commit", "close"]
Row = tuple[str, str]

# (topic, key, value, seconds behind NOW, which begins windows of 10 and of 20 seconds)
FIRST = [
    ("in", "a", 3, 0), ("in", "b", 5, 1), ("other", "a", 1, 1), ("in", "a", 7, 2), ("other", "b", 2, 3),
    ("in", "b", 1, 3),
]  # fmt: skip
SECOND_PART = [
    ("in", "a", 2, 4), ("other", "a", 3, 5), ("in", "c", 9, 5), ("in", "b", 4, 6), ("other", "c", 4, 7),
    ("in", "a", 8, 8),
    ("in", "z", 1, 50_000), ("other", "z", 1, 50_000), ("in", "z", 2, 100_000),
]  # fmt: skip


@dataclass(frozen=True)
class Version:
    """One entry of the catalogue.

    Attributes:
        build: adds its operators to (stream of numbers, another one), and gives what goes to the output.
        stores: names of its stores.
        final: results are sent when windows close.
        named: names of its ready aggregates.
        grace: windows are open for an hour more.
        held: changes are held back.
        local: its store has no changelog.
    """

    build: Callable[[Topology, Stream[str, Any], Stream[str, Any]], Stream[Any, Any] | Table[Any, Any]]
    stores: frozenset[str] = frozenset("s")
    final: bool = False
    named: tuple[str, ...] = ()
    grace: bool = False
    held: bool = False
    local: bool = False

    def topology(self, on_error: Literal["fail", "continue"] = "fail") -> Topology:
        topology = Topology("changes")
        mine = topology.stream("in", key=TEXT, value=JSON, on_error=on_error)
        other = topology.stream("other", key=TEXT, value=JSON, on_error=on_error)
        made = self.build(topology, mine, other)
        stream = made.to_stream() if isinstance(made, Table) else made
        other.for_each(lambda key, value: None)
        stream.map(lambda at, value: (shown(at), json.dumps(value))).to("out", key=TEXT, value=TEXT)
        return topology


def shown(at: Any) -> str:
    return f"{at.key}@{at.start - NOW}..{at.end - NOW}" if isinstance(at, windows.Windowed) else str(at)


def counted(of: Any, emit: Emit = "update", **more: Any) -> Version:
    return Version(
        lambda t, mine, o: mine.group_by_key().windowed_by(of).count(store="s", emit=emit, **more),
        final=emit == "close",
        grace=of.grace_ms > 0,
    )


def ready(store: str = "s", of: Any = None, emit: Emit = "update", **named: aggregates.Aggregate) -> Version:
    def build(topology: Topology, mine: Stream[str, Any], other: Stream[str, Any]) -> Table[Any, Any]:
        grouped = mine.group_by_key()
        if of is None:
            return grouped.aggregate(**named, store=store)  # type: ignore[arg-type]
        return grouped.windowed_by(of).aggregate(**named, store=store, emit=emit)  # type: ignore[no-any-return]

    return Version(build, frozenset(store), emit == "close", tuple(sorted(named)))


JOINED = frozenset(("s-left", "s-right", "s-waiting"))


def joined(kind: str, of: Any) -> Version:
    return Version(lambda t, mine, other: getattr(mine, kind)(other, lambda a, b: [a, b], within=of, store="s"), JOINED)


class Keep(Processor[str, Any, str, Any]):
    """Puts into whatever store it has, and forwards what is there by then."""

    def process(self, key: str, value: Any) -> None:
        store, found = self.context.store("s"), []
        if hasattr(store, "append"):
            store.append(key, value)
            found = list(store.get(key))
        elif hasattr(store, "fetch_all") and hasattr(store, "remove"):
            store.put(key, self.context.timestamp - 5, self.context.timestamp, value)
            found = [held for _, held in store.fetch(key)]
        elif hasattr(store, "fetch_all"):
            store.put(key, value, self.context.timestamp)
            found = [held for _, held in store.fetch(key)]
        else:
            before = store.get(key)
            found = [getattr(before, "value", before), value]
            store.put(key, value)
        self.context.forward(key, found)


def kept(store: Any) -> Version:
    return Version(lambda t, mine, other: mine.process(Keep, stores=[store]))


def grouped_with(mine: Stream[str, Any], other: Stream[str, Any]) -> Any:
    return mine.group_by_key().cogroup(summed).cogroup(other.group_by_key(), summed)


def summed(key: str, value: int, state: int) -> int:
    return state + value


CATALOGUE = {
    "count": Version(lambda t, mine, o: mine.group_by_key().count(store="s")),
    "count, ttl 1 h": Version(lambda t, mine, o: mine.group_by_key().count(store="s", ttl=HOUR)),
    "count, ttl 2 h": Version(lambda t, mine, o: mine.group_by_key().count(store="s", ttl=2 * HOUR)),
    "count, another name": Version(lambda t, mine, o: mine.group_by_key().count(store="t"), frozenset("t")),
    "reduce": Version(lambda t, mine, o: mine.group_by_key().reduce(lambda a, b: a + b, store="s")),
    "aggregate, long": Version(
        lambda t, m, o: m.group_by_key().aggregate(initializer=lambda: 0, aggregator=summed, value=LONG, store="s")
    ),
    "aggregate, json": Version(
        lambda t, m, o: m.group_by_key().aggregate(initializer=lambda: 0, aggregator=summed, value=JSON, store="s")
    ),
    "ready n": ready(n=aggregates.count()),
    "ready n, total": ready(n=aggregates.count(), total=aggregates.sum()),
    "ready a, total": ready(a=aggregates.max(), total=aggregates.sum()),
    "ready n, total is max": ready(n=aggregates.count(), total=aggregates.max()),
    "ready top 1": ready(top=aggregates.top_k(1)),
    "ready top 2": ready(top=aggregates.top_k(2)),
    "ready, another name": ready("t", n=aggregates.count()),
    "tumbling": counted(windows.tumbling(10 * SECOND)),
    "tumbling, grace": counted(windows.tumbling(10 * SECOND, grace=HOUR)),
    "tumbling, retention": counted(windows.tumbling(10 * SECOND), retention=3 * HOUR),
    "tumbling, close": counted(windows.tumbling(10 * SECOND), "close"),
    "tumbling, grace, close": counted(windows.tumbling(10 * SECOND, grace=HOUR), "close"),
    "tumbling, commit": counted(windows.tumbling(10 * SECOND), "commit"),
    "tumbling 20 s": counted(windows.tumbling(20 * SECOND)),
    "hopping": counted(windows.hopping(10 * SECOND, 5 * SECOND)),
    "ready tumbling n": ready(of=windows.tumbling(10 * SECOND), n=aggregates.count()),
    "ready tumbling n, total": ready(of=windows.tumbling(10 * SECOND), n=aggregates.count(), total=aggregates.sum()),
    "session": counted(windows.session(10 * SECOND)),
    "session, grace": counted(windows.session(10 * SECOND, grace=HOUR)),
    "session, close": counted(windows.session(10 * SECOND), "close"),
    "session, grace, close": counted(windows.session(10 * SECOND, grace=HOUR), "close"),
    "session, commit": counted(windows.session(10 * SECOND), "commit"),
    "session 20 s": counted(windows.session(20 * SECOND)),
    "ready session n": ready(of=windows.session(10 * SECOND), n=aggregates.count()),
    "ready session n, total": ready(of=windows.session(10 * SECOND), n=aggregates.count(), total=aggregates.sum()),
    "sliding": counted(windows.sliding(10 * SECOND)),
    "sliding, grace": counted(windows.sliding(10 * SECOND, grace=HOUR)),
    "sliding, close": counted(windows.sliding(10 * SECOND), "close"),
    "sliding, grace, close": counted(windows.sliding(10 * SECOND, grace=HOUR), "close"),
    "sliding, commit": counted(windows.sliding(10 * SECOND), "commit"),
    "sliding 20 s": counted(windows.sliding(20 * SECOND)),
    "table": Version(lambda t, mine, o: mine.to_table(store="s")),
    "table, versions 1 h": Version(lambda t, mine, o: mine.to_table(store="s", versioned=HOUR)),
    "table, versions 9 h": Version(lambda t, mine, o: mine.to_table(store="s", versioned=9 * HOUR)),
    "cogroup": Version(lambda t, m, o: grouped_with(m, o).aggregate(initializer=lambda: 0, value=JSON, store="s")),
    "cogroup, ttl": Version(
        lambda t, m, o: grouped_with(m, o).aggregate(initializer=lambda: 0, value=JSON, store="s", ttl=HOUR)
    ),
    "cogroup, tumbling": Version(
        lambda t, m, o: (
            grouped_with(m, o)
            .windowed_by(windows.tumbling(10 * SECOND))
            .aggregate(initializer=lambda: 0, value=JSON, store="s")
        )
    ),
    "behind a repartition": Version(lambda t, m, o: m.repartition(name="r").group_by_key().count(store="s")),
    "grouped table": Version(
        lambda t, m, o: m.to_table(store="rows").group_by(lambda k, v: k, key=TEXT).count(store="s"),
        frozenset(("rows", "s")),
    ),
    "table of a join": Version(
        lambda t, m, o: m.to_table(store="rows").join(
            o.to_table(store="others"), lambda a, b: [a, b], value=JSON, store="s"
        ),
        frozenset(("rows", "others", "s")),
    ),
    "held": Version(
        lambda t, m, o: m.group_by_key().count(store="c").suppress(time_limit(HOUR), store="s"),
        frozenset("cs"),
        held=True,
    ),
    "held shorter": Version(
        lambda t, m, o: m.group_by_key().count(store="c").suppress(time_limit(SECOND), store="s"),
        frozenset("cs"),
        held=True,
    ),
    "join": joined("join", windows.join(10 * SECOND)),
    "join, grace": joined("join", windows.join(10 * SECOND, grace=HOUR)),
    "join 20 s": joined("join", windows.join(20 * SECOND)),
    "outer join": joined("outer_join", windows.join(10 * SECOND)),
    "processor, json": kept(stores.key_value("s", key=TEXT, value=JSON)),
    "processor, long": kept(stores.key_value("s", key=TEXT, value=LONG)),
    "processor, versions": kept(stores.versioned("s", key=TEXT, value=JSON, history=HOUR)),
    "processor, list": kept(stores.list_("s", key=TEXT, value=JSON)),
    "processor, list of 2": kept(stores.list_("s", key=TEXT, value=JSON, maxlen=2)),
    "processor, other keys": kept(stores.key_value("s", key=serde.json(), value=JSON)),
    "processor, ttl": kept(stores.key_value("s", key=TEXT, value=JSON, ttl=HOUR)),
    "processor, no changelog": replace(kept(stores.key_value("s", key=TEXT, value=JSON, changelog=False)), local=True),
    "processor, windows": kept(stores.window("s", key=TEXT, value=JSON, size=SECOND, retention=HOUR)),
    "processor, windows 9 h": kept(stores.window("s", key=TEXT, value=JSON, size=SECOND, retention=9 * HOUR)),
    "processor, sessions": kept(stores.session("s", key=TEXT, value=JSON, retention=HOUR)),
    "processor, sessions 9 h": kept(stores.session("s", key=TEXT, value=JSON, retention=9 * HOUR)),
}

# What goes on in one store, by what the pairs have in common; all other pairs of one store are refused.
GOES_ON = [
    {"count, ttl 1 h", "count, ttl 2 h"},
    {"ready n", "ready n, total"},
    {"ready n", "ready a, total"},
    {"ready n, total", "ready a, total"},
    {"ready n", "ready n, total is max"},
    {"ready top 1", "ready n"}, {"ready top 1", "ready n, total"}, {"ready top 1", "ready a, total"},
    {"ready top 1", "ready n, total is max"},
    {"ready top 2", "ready n"}, {"ready top 2", "ready n, total"}, {"ready top 2", "ready a, total"},
    {"ready top 2", "ready n, total is max"},
    {
        "tumbling", "tumbling, grace", "tumbling, retention", "tumbling, close", "tumbling, grace, close",
        "tumbling, commit",
    },
    {"ready tumbling n", "ready tumbling n, total"},
    {"session", "session, grace", "session, close", "session, grace, close", "session, commit"},
    {"ready session n", "ready session n, total"},
    {"sliding", "sliding, grace", "sliding, close", "sliding, grace, close", "sliding, commit"},
    {"table, versions 1 h", "table, versions 9 h"},
    {"held", "held shorter"},
    {"join", "join, grace"},
    {"count", "behind a repartition"},
    {"processor, list", "processor, list of 2"},
    {"processor, json", "processor, no changelog"},
    {"processor, windows", "processor, windows 9 h"},
    {"processor, sessions", "processor, sessions 9 h"},
]  # fmt: skip
# Results that were sent are final.
LONGER = {
    (f"{kind}{before}", f"{kind}, grace, close")
    for kind in ("tumbling", "session", "sliding")
    for before in ("", ", close", ", commit", ", retention")
}


def goes_on(before: str, after: str) -> bool:
    if before == after:
        return True
    if CATALOGUE[before].local and not CATALOGUE[after].local:
        return False
    return (before, after) not in LONGER and any({before, after} <= group for group in GOES_ON)


def pipe(driver: TopologyTestDriver, records: list[tuple[str, str, int, int]]) -> None:
    for topic, key, value, seconds in records:
        driver.input(topic, key=TEXT, value=JSON).pipe(key, value, timestamp=NOW + 1_000 * seconds)


def rows(driver: TopologyTestDriver) -> list[Row]:
    return driver.output("out", key=TEXT, value=TEXT).pairs()


def alone(version: Version, *parts: list[tuple[str, str, int, int]]) -> list[list[Row]]:
    """What the version gives for each part of the records."""
    with TopologyTestDriver(version.topology()) as driver:
        found = []
        for part in parts:
            pipe(driver, part)
            found.append(rows(driver)[sum(map(len, found)) :])
        return found


def expected(before: Version, after: Version, disk: str) -> list[Row]:
    """Outputs from the change on."""
    if not before.stores & after.stores or (after.local and disk == "lost"):
        return alone(after, SECOND_PART)[0]
    both = alone(after, FIRST, SECOND_PART)[1]
    if after.final and before.grace:
        both = [*alone(after, FIRST)[0], *both]
    new = set(after.named) - set(before.named) if after.named else set()
    if not new:
        return both
    since = alone(after, SECOND_PART)[0]
    if len(since) != len(both):
        # Sessions that began before the change are replaced, which those behind it know nothing of.
        since = with_deletions(since, both)
    return [merged(row, other, new) for row, other in zip(both, since, strict=True)]


def with_deletions(since: list[Row], both: list[Row]) -> list[Row]:
    left = (row for row in since if row[1] != "null")
    return [row if row[1] == "null" else next(left) for row in both]


def merged(row: Row, since: Row, new: set[str]) -> Row:
    """Values of aggregates that are new from the one, all others from the other."""
    if row[1] == "null":
        return row
    value, other = json.loads(row[1]), json.loads(since[1])
    return row[0], json.dumps({name: other[name] if name in new else value[name] for name in value})


def changed(before: Version, after: Version, disk: Any, on_error: Any = "fail") -> tuple[list[Row], list[Row]]:
    """Outputs before and behind the change."""
    with TopologyTestDriver(before.topology(on_error), topics=["out"]) as driver:
        pipe(driver, FIRST)
        first = rows(driver)
        driver.deploy(after.topology(on_error), disk=disk)
        driver.crash(disk=disk)
        pipe(driver, SECOND_PART)
        return first, rows(driver)[len(first) :]


@pytest.mark.parametrize("before", CATALOGUE)
def test_a_change_gives_what_the_later_topology_gives_alone_or_is_refused(before: str) -> None:
    wrong = []
    for after, later in CATALOGUE.items():
        earlier = CATALOGUE[before]
        going_on = goes_on(before, after) or not earlier.stores & later.stores
        for disk in ("kept", "lost") if going_on else ("lost",):
            try:
                first, then = changed(earlier, later, disk)
            except TopologyError as error:
                if going_on:
                    wrong.append(f"{before} -> {after}, {disk}: refused: {error}")
                elif not any(f"store '{store}'" in str(error) for store in later.stores):
                    wrong.append(f"{before} -> {after}, {disk}: the store is not named: {error}")
                continue
            if not going_on:
                wrong.append(f"{before} -> {after}, {disk}: went on")
            elif earlier.final and later.final:
                right = sorted(row for part in alone(later, FIRST, SECOND_PART) for row in part)
                if sorted([*first, *then]) != right:
                    wrong.append(f"{before} -> {after}, {disk}: {sorted([*first, *then])}, right is {right}")
            elif earlier.held and later.held:
                if dict(then) != (newest := dict(expected(earlier, later, disk))):
                    wrong.append(f"{before} -> {after}, {disk}: {dict(then)}, right is {newest}")
            elif then != (right := expected(earlier, later, disk)):
                wrong.append(f"{before} -> {after}, {disk}: {then}, right is {right}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("disk", ["kept", "lost"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ready n", "ready n, total"),
        ("tumbling, grace, close", "tumbling, close"),
        ("session", "session, close"),
        ("sliding", "sliding, close"),
        ("sliding, grace, close", "sliding"),
        ("join", "join, grace"),
    ],
)
def test_it_is_the_same_where_failed_records_are_taken_back(before: str, after: str, disk: str) -> None:
    earlier, later = CATALOGUE[before], CATALOGUE[after]
    assert changed(earlier, later, disk, "continue") == changed(earlier, later, disk)


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_there_and_back(disk: Literal["kept", "lost"]) -> None:
    """What a deployment does to state, the next one finds: aggregates that were away start anew, windows do not."""
    for one, other in (
        ("session", "session, close"),
        ("sliding, grace", "sliding"),
        ("tumbling", "tumbling, retention"),
    ):
        with TopologyTestDriver(CATALOGUE[one].topology(), topics=["out"]) as driver:
            pipe(driver, FIRST[:3])
            driver.deploy(CATALOGUE[other].topology(), disk=disk)
            pipe(driver, FIRST[3:])
            driver.deploy(CATALOGUE[one].topology(), disk=disk)
            first = len(rows(driver))
            pipe(driver, SECOND_PART)
            assert rows(driver)[first:] == alone(CATALOGUE[one], FIRST, SECOND_PART)[1], (one, other)
    with TopologyTestDriver(CATALOGUE["ready n, total"].topology(), topics=["out"]) as driver:
        pipe(driver, FIRST)
        driver.deploy(CATALOGUE["ready n"].topology(), disk=disk)
        pipe(driver, [("in", "a", 100, 4)])
        driver.deploy(CATALOGUE["ready n, total"].topology(), disk=disk)
        pipe(driver, [("in", "a", 2, 5), ("in", "b", 4, 5)])
        # Also b, which no record came for in between: totals are of one time, for all keys.
        assert [json.loads(value) for _, value in rows(driver)[-2:]] == [{"n": 4, "total": 2}, {"n": 3, "total": 4}]


def test_a_refused_version_leaves_the_state_to_the_one_before() -> None:
    with TopologyTestDriver(CATALOGUE["tumbling"].topology(), topics=["out"]) as driver:
        pipe(driver, FIRST)
        with pytest.raises(TopologyError):
            driver.deploy(CATALOGUE["tumbling 20 s"].topology(), disk="lost")
        driver.deploy(CATALOGUE["tumbling"].topology(), disk="lost")
        first = len(rows(driver))
        pipe(driver, SECOND_PART)
        assert rows(driver)[first:] == alone(CATALOGUE["tumbling"], FIRST, SECOND_PART)[1]
