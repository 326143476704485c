"""The driver lets go of all state that its worker has opened, however the worker ends."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamstate import ProcessingError, Topology, serde
from streamstate.rocksdb import RocksDisk
from streamstate.testing.driver.driver import StateDisk, TopologyTestDriver
from streamstate.testing.memory_broker.application import Disk

TEXT = serde.string()


def topology() -> Topology:
    """A global table, a table, a versioned one, a count behind a repartition topic: state of every kind."""
    made = Topology("t")
    names = made.global_table("names", key=TEXT, value=TEXT)
    rows = made.table("rows", key=TEXT, value=TEXT, store="rows")
    prices = made.table("prices", key=TEXT, value=TEXT, versioned=timedelta(minutes=1))
    lines = made.stream("lines", key=TEXT, value=TEXT)
    named = lines.join(names, lambda line, name: f"{line}-{name}", on=lambda key, line: key)
    rowed = named.left_join(rows, lambda line, row: f"{line}-{row}", value=TEXT)
    priced = rowed.left_join(prices, lambda line, price: f"{line}-{price}", value=TEXT)
    priced.peek(refused).to("out", value=TEXT)
    lines.group_by(lambda key, line: key, key=TEXT).count(store="counts").to_stream().to("counts")
    return made


def refused(key: str, value: str) -> None:
    if value.startswith("bad"):
        raise ValueError("a bad line")


def disk_of(kind: str, path: Path) -> StateDisk:
    return Disk() if kind == "memory" else RocksDisk(path)


def fill(driver: TopologyTestDriver) -> None:
    driver.input("names").pipe("a", "Ada", timestamp=1)
    driver.input("rows").pipe("a", "row", timestamp=1)
    driver.input("prices").pipe("a", "5", timestamp=1)


def ask(driver: TopologyTestDriver, expected: int) -> None:
    out, counts = driver.output("out"), driver.output("counts")
    driver.input("lines").pipe("a", "line", timestamp=2)
    assert out.values()[-1] == "line-Ada-row-5"
    assert counts.values()[-1] == expected
    assert driver.store("names").get("a") == "Ada"
    assert driver.store("counts").get("a") == expected


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("lost", ["kept", "lost"])
def test_crashes_and_restarts_one_after_the_other(kind: str, lost: Any, tmp_path: Path) -> None:
    with TopologyTestDriver(topology(), disk=disk_of(kind, tmp_path)) as driver:
        fill(driver)
        ask(driver, 1)
        driver.crash(disk=lost)
        ask(driver, 2)
        driver.crash(disk=lost)
        driver.crash(disk=lost)
        ask(driver, 3)
        driver.restart(disk=lost)
        ask(driver, 4)
        driver.crash(disk=lost)
        driver.restart(disk=lost)
        driver.input("names").pipe("b", "Bob", timestamp=3)
        driver.crash(disk=lost)
        assert driver.store("names").get("b") == "Bob"
        ask(driver, 5)


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("lost", ["kept", "lost"])
def test_a_crash_with_work_uncommitted(kind: str, lost: Any, tmp_path: Path) -> None:
    with TopologyTestDriver(topology(), disk=disk_of(kind, tmp_path), auto_commit=False) as driver:
        fill(driver)
        driver.commit()
        driver.input("lines").pipe("a", "line", timestamp=2)
        driver.crash(disk=lost)
        driver.commit()
        assert driver.store("counts").get("a") == 1
        driver.abort()
        driver.crash(disk=lost)
        driver.commit()
        assert driver.output("out").values() == ["line-Ada-row-5"]


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("again", ["crash", "restart"])
def test_after_an_error(kind: str, again: str, tmp_path: Path) -> None:
    with TopologyTestDriver(topology(), disk=disk_of(kind, tmp_path)) as driver:
        fill(driver)
        with pytest.raises(ProcessingError):
            driver.input("lines").pipe("a", "bad", timestamp=2)
        # The same record is met again, and the state was let go in between.
        for _ in range(2):
            with pytest.raises(ProcessingError):
                getattr(driver, again)()


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_a_closed_driver_leaves_state_for_the_next(kind: str, tmp_path: Path) -> None:
    disk = disk_of(kind, tmp_path)
    for _ in range(2):
        with TopologyTestDriver(topology(), disk=disk) as driver:
            fill(driver)
            driver.crash()
            driver.close()
            driver.close()
        disk.lose()
