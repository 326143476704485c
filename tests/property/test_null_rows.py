"""A value that decodes to None is a deletion, and a key that decodes to None is no key: live, restored, and global.

Each topology is fed the same records twice, once with nulls on the wire and once with bytes that decode to None, with
crashes in between. Nobody may be able to tell the two apart.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import Serde, Topology, event_time, serde
from streamstate.state.backend import MemoryBackend
from streamstate.state.entry_format import VERSION, pack_header
from streamstate.state.expiring import ENTRY
from streamstate.state.key_value import TypedStore
from streamstate.state.spec import StoreSpec
from streamstate.state.staged_stores import staged_store
from streamstate.state.staging import StagedStore
from streamstate.state.undo import UndoLog
from streamstate.testing.driver.driver import TopologyTestDriver

JSON, RAW = serde.json(), serde.bytes_()
# Of each serde, bytes that decode to None, and those of a row.
OWN: Serde[Any] = Serde("own", JSON.serialize, lambda data: None if data == b"gone" else JSON.deserialize(data))
FROZEN: Serde[Any] = Serde("frozen", lambda row: b"%d" % row, lambda data: int(data) or None, immutable=True)
NULLABLE = serde.avro(
    ["null", {"type": "record", "name": "Row", "fields": [{"name": name, "type": "long"} for name in ("at", "n")]}]
)
VALUES: dict[str, tuple[Serde[Any], bytes]] = {
    "json": (JSON, b"null"),
    "json with space": (JSON, b"\n null\t"),
    "avro": (NULLABLE, b"\x00"),
    "own": (OWN, b"gone"),
}
HISTORY = timedelta(seconds=1)


def number(row: Any) -> int:
    return int(row["n"])


def joined(t: Topology, value: Serde[Any], **options: Any) -> None:
    rows = t.table("rows", key=JSON, value=value, **options)
    other = t.table("other", key=JSON, value=JSON)
    rows.join(other, lambda mine, theirs: [number(mine), theirs]).to_stream().to("out", value=JSON)


def outer(t: Topology, value: Serde[Any]) -> None:
    rows = t.table("rows", key=JSON, value=value)
    other = t.table("other", key=JSON, value=JSON)
    rows.outer_join(other, lambda mine, theirs: [mine and number(mine), theirs]).to_stream().to("out", value=JSON)


def foreign(t: Topology, value: Serde[Any]) -> None:
    rows = t.table("rows", key=JSON, value=value)
    other = t.table("other", key=JSON, value=JSON)
    joiner = other.left_join(
        rows, lambda mine, row: [mine, row and number(row)], foreign_key=lambda key, mine: "a", value=JSON
    )
    joiner.to_stream().to("out", value=JSON)


def grouped(t: Topology, value: Serde[Any]) -> None:
    rows = t.table("rows", key=JSON, value=value)
    numbers = rows.map_values(number, value=JSON)
    numbers.group_by(lambda key, row: row % 2, key=JSON).reduce(
        lambda total, new: total + new, lambda total, old: total - old, store="sums"
    ).to_stream().to("out", value=JSON)
    t.stream("other", key=JSON, value=JSON).for_each(lambda key, value: None)


def looked_up(t: Topology, value: Serde[Any], **options: Any) -> None:
    rows = t.table("rows", key=JSON, value=value, store="rows", **options)
    t.stream("other", key=JSON, value=JSON).left_join(rows, lambda mine, row: [mine, row and number(row)]).to(
        "out", value=JSON
    )


def whole(t: Topology, value: Serde[Any]) -> None:
    rows = t.global_table("rows", key=JSON, value=value, timestamp="at")
    stream = t.stream("other", key=JSON, value=JSON)
    stream.left_join(rows, lambda mine, row: [mine, row and number(row)], on=lambda key, mine: key).to(
        "out", value=JSON
    )


def made_of_a_stream(t: Topology, value: Serde[Any]) -> None:
    rows = t.stream("rows", key=JSON, value=value).to_table(store="rows")
    rows.map_values(number, value=JSON, store="numbers").to_stream(emit="change").to("out", value=JSON)
    t.stream("other", key=JSON, value=JSON).for_each(lambda key, value: None)


TOPOLOGIES: dict[str, Callable[[Topology, Serde[Any]], None]] = {
    "join": joined,
    "join by the time of a field": lambda t, value: joined(t, value, timestamp="at"),
    "join with bounds on time": lambda t, value: joined(t, value, timestamp=event_time("at", future=HISTORY)),
    "join, failures left out": lambda t, value: joined(t, value, on_error="continue"),
    "outer join": outer,
    "foreign key": foreign,
    "groups": grouped,
    "looked up": looked_up,
    "looked up, a changelog of its own": lambda t, value: looked_up(t, value, own_changelog=True, timestamp="at"),
    "looked up, with versions": lambda t, value: looked_up(t, value, versioned=HISTORY, timestamp="at"),
    "looked up, changes only": lambda t, value: looked_up(t, value, emit="change"),
    "global": whole,
    "made of a stream": made_of_a_stream,
}

KEYS = st.sampled_from(["a", "b", None])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), KEYS, st.none() | st.integers(1, 4)),
        st.tuples(st.just("other"), st.sampled_from(["a", "b"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["kept", "lost", "commit"]), st.none(), st.none()),
    ),
    min_size=4,
    max_size=14,
)


def played(name: str, value: Serde[Any], steps: list[Any], key_null: bytes | None, null: bytes | None) -> Any:
    """All outputs with their times, and what the stores hold in the end."""
    topology = Topology("nulls")
    TOPOLOGIES[name](topology, value)
    # Kept for ever, so that the topic is the changelog; a compacted one takes no null keys.
    config = {"retention.ms": "-1", "retention.bytes": "-1"}
    with TopologyTestDriver(topology, topic_config=config, topics=["rows", "other", "out"]) as driver:
        # Times of the records, and of the rows, so that a deletion must take its own.
        now = 0
        for what, key, content in steps:
            now += 10
            if what == "kept" or what == "lost":
                driver.crash(disk=what)
            elif what == "commit":
                driver.commit()
            elif what == "other":
                driver.input("other", key=JSON, value=JSON).pipe(key, content, timestamp=now)
            else:
                row = null if content is None else value.serialize({"at": now - 3, "n": content})
                raw_key = key_null if key is None else JSON.serialize(key)
                driver.input("rows", key=RAW, value=RAW).pipe(raw_key, row, timestamp=now)
        out = [(r.key, r.value, r.timestamp) for r in driver.output("out", key=RAW, value=RAW).read_all()]
        driver.crash(disk="lost")
        stores = topology.build().stores
        shown = {"rows", "sums", "numbers"} & {*stores, *topology.build().global_tables}
        return out, {store: list(driver.store(store).all()) for store in sorted(shown)}


@pytest.mark.parametrize("name", TOPOLOGIES)
@settings(max_examples=25)
@given(steps=STEPS, kind=st.sampled_from(sorted(VALUES)))
def test_nobody_can_tell_what_decodes_to_none_from_null(name: str, steps: list[Any], kind: str) -> None:
    value, null = VALUES[kind]
    # A changelog of their own is then never empty.
    steps = [("rows", "c", 1), *steps]
    assert played(name, value, steps, b"null", null) == played(name, value, steps, None, None)


def holding_null(value: Serde[Any], null: bytes, undo: UndoLog | None = None, ttl_ms: int | None = None) -> StagedStore:
    """A store with a row and with an entry whose value decodes to None, as an earlier version may have left it."""
    spec = StoreSpec("s", JSON, value, ttl_ms=ttl_ms)
    backend = MemoryBackend(["s"])
    before = b"" if ttl_ms is None else ENTRY
    header = pack_header(VERSION, 5)
    written = {b'"a"': header + null, b'"b"': header + value.serialize(7)}
    backend.apply({"s": {before + key: stored for key, stored in written.items()}}, {"s": 2}, {})
    return staged_store(spec, backend, 1 << 20, undo)


@pytest.mark.parametrize("scanned_first", [False, True])
@pytest.mark.parametrize(
    "made",
    [
        lambda: holding_null(JSON, b"null"),
        lambda: holding_null(JSON, b"null", ttl_ms=1_000),
        lambda: holding_null(FROZEN, b"0"),
        lambda: holding_null(FROZEN, b"0", undo=[]),
    ],
    ids=["encoded", "expiring", "slots", "encoded for an undo log"],
)
def test_no_store_shows_what_decodes_to_none(made: Callable[[], StagedStore], scanned_first: bool) -> None:
    store = made()
    if scanned_first:
        assert list(store.scan(None, None)) == [(b'"b"', (7, 5))]
    assert store.get(b'"a"') is None
    assert store.value(b'"a"') is None
    assert (store.get(b'"b"'), store.value(b'"b"')) == ((7, 5), 7)
    assert list(store.scan(None, None, True)) == [(b'"b"', (7, 5))]
    typed = TypedStore(store, lambda: 9)
    assert list(typed.all()) == [("b", 7)]
    assert typed.delete("a") is None
    assert typed.put_if_absent("a", 3) is None
    assert list(typed.all()) == [("a", 3), ("b", 7)]
