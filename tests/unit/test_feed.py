"""What ``streamstate feed`` feeds, without a broker."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from streamstate_cli import feed
from streamstate_cli.demonstration import data, tables
from streamstate_cli.loader import load_topology

from streamstate.errors import ConfigError


def test_the_command_knows_every_table() -> None:
    assert tuple(tables.TOPICS) == feed.NAMES


def test_every_topic_that_a_ready_topology_writes_is_made() -> None:
    """By default they would lose their records at once, whose event times are those of 2013."""
    written = {
        topic
        for path in (Path(__file__).parents[2] / "topologies").glob("*.py")
        if path.stem != "word_count"
        for node in load_topology(str(path)).nodes.values()
        for topic in [getattr(node.spec, "topic", None), getattr(getattr(node.spec, "late", None), "topic", None)]
        if isinstance(topic, str) and not topic.endswith("-repartition") and not getattr(node.spec, "internal", False)
    }
    assert written - set(tables.TOPICS) == set(feed.OUTPUTS)


def test_weather_comes_in_the_order_of_its_hours() -> None:
    times = [time_ms for _, _, time_ms in tables.records(data.find(), "weather")]
    assert times == sorted(times)
    key, value, time_ms = next(tables.records(data.find(), "weather"))
    assert key.decode().split("@") == ["EWR", str(time_ms)]
    assert orjson.loads(value)["temp"] == 39.02


def test_planes_and_airlines() -> None:
    planes = {key: orjson.loads(value) for key, value, _ in tables.records(data.find(), "planes")}
    assert planes[b"N10156"] == {
        "year": 2004, "engines": 2, "seats": 55, "speed": None, "type": "Fixed wing multi engine",
        "manufacturer": "EMBRAER", "model": "EMB-145XR", "engine": "Turbo-fan",
    }  # fmt: skip
    assert (b"UA", b"United Air Lines Inc.", tables.BEFORE_MS) in list(tables.records(data.find(), "airlines"))
    assert next(tables.records(data.find(), "flights"))[2] > tables.BEFORE_MS


def test_disorder_is_by_a_seed_and_has_a_bound() -> None:
    some = list(tables.records(data.find(), "flights", 5_000))
    one = tables.disordered(iter(some), 1)
    assert one == tables.disordered(iter(some), 1) != tables.disordered(iter(some), 2)
    assert sorted(one) == sorted(some)
    late, reached = [], 0
    for _, _, time_ms in one:
        reached = max(reached, time_ms)
        late.append(reached - time_ms)
    assert 2 * 24 * 3_600_000 < max(late) < tables.LATEST_MS


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    for name, columns in (
        ("weather", "origin\nEWR\n"),
        ("planes", "tailnum,year\nN1,soon\n"),
        ("airlines", "name\nUA\n"),
    ):
        with pytest.raises(ConfigError, match="reinstall"):
            list(tables.records(tmp_path, name))
        (tmp_path / f"{name}.csv").write_text(columns)
        with pytest.raises(ConfigError, match="reinstall"):
            list(tables.records(tmp_path, name))


def test_a_table_that_is_not_there() -> None:
    result = CliRunner().invoke(feed.feed, ["trains"])
    assert result.exit_code == 2
    assert "'airlines', 'planes', 'weather', 'flights'" in result.output
