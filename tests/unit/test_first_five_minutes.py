"""What a newcomer writes first: types for serdes, names of fields, durations as text, and looking at what comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import streamstate
from streamstate import Topology, TopologyError, aggregates, serde, stores, time_limit, windows
from streamstate.testing import TopologyTestDriver


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (str, "string"), (bytes, "bytes"), (int, "long"), (float, "double"), (bool, "boolean"), (dict, "json"),
        (list, "json"), (UUID, "uuid"), (date, "date"), (time, "time"), (datetime, "datetime"),
    ],
)  # fmt: skip
def test_a_type_stands_for_its_serde(kind: type, name: str) -> None:
    assert serde.serde_of(kind).name == name
    topology = Topology("t")
    topology.stream("in", key=kind, value=kind).group_by_key().reduce(max, store="s")
    graph = topology.build()
    assert graph.stores["s"].value.name == name
    assert graph.stores["s"].key.name == ("json(sort_keys)" if name == "json" else name)


def test_equal_keys_of_json_have_equal_bytes() -> None:
    topology = Topology("t", key=dict, value=dict)
    topology.stream("in").group_by_key().count(store="s")
    kept = topology.build().stores["s"].key
    assert kept.serialize({"a": 1, "b": 2}) == kept.serialize({"b": 2, "a": 1})


@pytest.mark.parametrize("given", [tuple, "str", object, 5])
def test_what_has_no_serde_is_refused_with_what_to_give(given: Any) -> None:
    with pytest.raises(
        TopologyError, match=r"value= of the source of in takes a serde, such as serde.json\(\), or one"
    ):
        Topology("t").stream("in", value=given)


def test_a_topology_has_serdes_for_all_that_is_not_said() -> None:
    topology = Topology("shop", key=str, value=dict)
    orders = topology.stream("orders")
    orders.group_by("shop").aggregate(total=aggregates.sum("amount"), store="revenue").to("revenue-by-shop")
    orders.map(lambda key, value: (value["shop"], value)).to("by-shop")
    with TopologyTestDriver(topology) as driver:
        driver.input("orders").pipe("1", {"shop": "EWR", "amount": 5})
        assert driver.output("revenue-by-shop").pairs() == [("EWR", {"total": 5})]
        assert driver.output("by-shop").pairs() == [("EWR", {"shop": "EWR", "amount": 5})]


def test_without_such_serdes_what_is_not_known_is_asked_for() -> None:
    with pytest.raises(TopologyError, match=r"to after 'in.map' needs the serde of the key"):
        Topology("t").stream("in").map(lambda key, value: (key, value)).to("out")
    with pytest.raises(TopologyError, match="group_by after 'in' needs the serde of the key"):
        Topology("t").stream("in", value=dict).group_by("shop")


def test_fields_by_their_names() -> None:
    topology = Topology("t", key=str, value=dict)
    orders = topology.stream("orders")
    customers = topology.global_table("customers", key=str, value=dict)
    orders.join(customers, lambda order, customer: customer["name"], on="customer").to("names", value=str)
    orders.select_key("customer").to("by-customer")
    topology.table("items").join(
        topology.table("prices"), lambda item, price: price["price"], foreign_key="price", value=int
    ).to("priced")
    topology.table("planes").group_by("model").count(store="fleet").to("fleet-by-model")
    with TopologyTestDriver(topology) as driver:
        driver.input("customers").pipe("c", {"name": "Ada"})
        driver.input("orders").pipe("o", {"customer": "c"})
        driver.input("prices").pipe("p", {"price": 3})
        driver.input("items").pipe("i", {"price": "p"})
        driver.input("planes").pipe("N1", {"model": "A320"})
        assert driver.output("names", key=str, value=str).values() == ["Ada"]
        assert driver.output("by-customer").pairs() == [("c", {"customer": "c"})]
        assert driver.output("priced", key=str, value=int).pairs() == [("i", 3)]
        assert driver.output("fleet-by-model", key=str, value=int).pairs() == [("A320", 1)]


def test_a_field_that_is_not_there_is_the_records_failure() -> None:
    topology = Topology("t", key=str, value=dict)
    topology.stream("in").group_by("shop").count(store="s")
    with (
        pytest.raises(streamstate.ProcessingError, match=r"in.group_by.*KeyError.*shop"),
        TopologyTestDriver(topology) as driver,
    ):
        driver.input("in").pipe("a", {"store": "EWR"})


def test_durations_are_text_or_timedeltas() -> None:
    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    assert windows.tumbling("1h", grace="1m") == windows.tumbling(hour, grace=minute)
    assert windows.hopping("1h", "1m") == windows.hopping(hour, minute)
    assert windows.sliding("90s") == windows.sliding(timedelta(seconds=90))
    assert windows.session("1h30m") == windows.session(timedelta(hours=1, minutes=30))
    assert windows.join(before="0", after="5s") == windows.join(before=timedelta(0), after=timedelta(seconds=5))
    assert time_limit("10s") == time_limit(timedelta(seconds=10))
    kept = stores.window("w", key=str, value=int, size="1h", retention="1d")
    assert (kept.window_ms, kept.segments and kept.segments.retention_ms) == (3_600_000, 86_400_000)
    assert stores.key_value("s", key=str, value=int, ttl="1h").ttl_ms == 3_600_000


def test_a_join_takes_how_far_apart_records_may_be_as_text() -> None:
    topology = Topology("t", key=str, value=str)
    sent, back = topology.stream("sent"), topology.stream("back")
    sent.join(back, lambda out, answer: out + answer, within="5s", store="j").to("met")
    with TopologyTestDriver(topology) as driver:
        driver.input("sent").pipe("a", "1", timestamp=0)
        driver.input("back").pipe_all([])
        driver.input("back").pipe("a", "2", timestamp=5_000)
        driver.input("back").pipe("a", "3", timestamp=5_001)
        assert driver.output("met").values() == ["12"]


@pytest.mark.parametrize("given", ["soon", "5", 5, None])
def test_durations_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(
        TopologyError, match=r'the size of a window is a duration, such as timedelta\(minutes=5\) or "5m", not'
    ):
        windows.tumbling(given)


def test_print_shows_records_and_passes_them_on(capsys: pytest.CaptureFixture[str]) -> None:
    topology = Topology("t", key=str, value=dict)
    topology.stream("orders").print().to("out")
    topology.table("rows").print("a row").to("changes")
    with TopologyTestDriver(topology) as driver:
        driver.input("orders").pipe("1", {"amount": 5})
        driver.input("rows").pipe("1", None)
        assert driver.output("out").pairs() == [("1", {"amount": 5})]
        assert driver.output("changes").pairs() == [("1", None)]
    assert capsys.readouterr().out == "[orders] '1': {'amount': 5}\n[a row] '1': None\n"


def test_run_and_settings_are_at_the_top() -> None:
    assert streamstate.Settings(bootstrap_servers="localhost:1").bootstrap_servers == "localhost:1"
    assert callable(streamstate.run)
    with pytest.raises(AttributeError, match="has no attribute 'walk'"):
        streamstate.walk  # noqa: B018


def test_describing_a_topology_loads_no_kafka_client() -> None:
    code = "import sys, streamstate; streamstate.Topology('t'); sys.exit('confluent_kafka' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


SCRIPT = """
from streamstate import Topology

topology = Topology("shop", key=str, value=dict)
topology.stream("orders").to("copy")

if __name__ == "__main__":
    topology.run()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "--bootstrap-servers"),
        (["--bootstrap-servers", "localhost:1", "--broker-timeout", "1ms"], 4, "localhost:1"),
        (["--commit-interval", "soon"], 2, "--commit-interval"),
        (["--workers", "3"], 2, "streamstate run shop.py --workers 3"),
        (["--set", "sasl.password"], 2, "KEY=VALUE"),
    ],
)
def test_a_script_runs_its_topology(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    script = tmp_path / "shop.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "STREAMSTATE_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
