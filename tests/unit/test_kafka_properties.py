"""Every property that cannot be set is answered with what to use instead, wherever it stands."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from streamstate_cli.main import cli

from streamstate import Topology
from streamstate.app import Application, Settings
from streamstate.app.config import OPTIONS, File, resolve
from streamstate.app.kafka_properties import (
    ALIASES,
    FIXED_PROPERTIES,
    INSTEAD,
    JAVA_ONLY,
    KNOWN,
    OF_THE_BROKER,
    OWNED_PROPERTIES,
    check_properties,
)
from streamstate.errors import ConfigError
from streamstate.kafka.properties import unknown_to_the_client

FLAGS = {option.flag for option in OPTIONS}


def refusal(name: str, value: object = "x", group_protocol: str = "classic") -> str:
    with pytest.raises(ConfigError) as refused:
        check_properties({name: value}, group_protocol=group_protocol)
    assert repr(name) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("prefix", ["", "consumer.", "producer.", "admin."])
@pytest.mark.parametrize("name", [*OWNED_PROPERTIES, *FIXED_PROPERTIES, *JAVA_ONLY, *ALIASES])
def test_every_property_of_the_tables_is_refused_with_what_to_use(name: str, prefix: str) -> None:
    said = refusal(prefix + name)
    assert re.search(r"\b(use|give|leave it out|follows from|guarantees rest on|there are no standby)\b", said), said


@pytest.mark.parametrize("name", [*OWNED_PROPERTIES, *FIXED_PROPERTIES, *OF_THE_BROKER])
def test_what_is_said_to_be_a_clients_property_is_one(name: str) -> None:
    assert not unknown_to_the_client(name)


def test_flags_that_are_named_exist() -> None:
    told = [*OWNED_PROPERTIES.values(), *INSTEAD.values(), *JAVA_ONLY.values()]
    named = {flag for text in told for flag in re.findall(r"--[a-z-]+", text)} - {"--json"}
    assert len(named) > 10
    assert named <= FLAGS


def test_properties_that_are_named_can_be_set() -> None:
    named = {name for text in JAVA_ONLY.values() for name in re.findall(r"[a-z]+(?:\.[a-z]+){2,}", text)}
    assert len(named) > 10
    check_properties(dict.fromkeys(named, "x"))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_names_that_are_suggested_exist(name: str) -> None:
    assert not unknown_to_the_client(name)


def test_the_value_that_holds_anyway_may_be_said() -> None:
    check_properties(FIXED_PROPERTIES)
    check_properties({"acks": "-1", "enable.auto.commit": "FALSE", "enable.idempotence": "1"})


def test_properties_that_the_broker_decides_in_its_own_protocol() -> None:
    for name, of_the_broker in OF_THE_BROKER.items():
        check_properties({name: 10_000})
        assert of_the_broker in refusal(name, 10_000, "consumer")
    topology = Topology("t")
    topology.stream("in").to("out")
    settings = {"bootstrap_servers": "localhost:1", "broker_timeout": timedelta(milliseconds=1)}
    with pytest.raises(ConfigError, match=r"group\.consumer\.session"):
        Application(topology, Settings(**settings, group_protocol="consumer", kafka={"session.timeout.ms": 9_000}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("sasl.usrname", "sasl.username"),
        ("consumer.sesion.timeout.ms", "consumer.session.timeout.ms"),
        ("security_protocol", "security.protocol"),
        ("SASL.MECHANISM", "sasl.mechanism"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    assert f"did you mean {nearest}?" in refusal(name)


def test_a_name_near_to_nothing_is_answered_with_where_names_stand() -> None:
    assert "CONFIGURATION.md" in refusal("quux")


def test_prefixes_of_kafka_streams() -> None:
    assert "use consumer.fetch.min.bytes" in refusal("main.consumer.fetch.min.bytes")


@pytest.mark.parametrize("name", ["auto.offset.reset", "num.stream.threads", "group.id", "sasl.usrname"])
def test_flags_environment_and_file_say_which_it_was(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^--set: Kafka property '{name}'"):
        resolve({}, {name: "x"}, {})
    variable = "STREAMSTATE_KAFKA_" + name.upper().replace(".", "_")
    with pytest.raises(ConfigError, match=f"^{variable}: Kafka property '{name}'"):
        resolve({}, {}, {variable: "x"})
    with pytest.raises(ConfigError, match=f"^app.toml: kafka.{name}: Kafka property '{name}'"):
        resolve({}, {}, {}, File("app.toml", kafka={name: "x"}))


def test_where_a_source_begins_is_said_in_the_topology() -> None:
    assert 'stream(..., reset="latest")' in refusal("auto.offset.reset", "latest")


@pytest.mark.parametrize(
    "command",
    [["topics", "list"], ["topics", "create", "t"], ["produce", "t"], ["consume", "t"], ["feed"], ["config"],
     ["run", "topology.py"], ["run", "topology.py", "--workers", "2"], ["reset", "topology.py"]],
    ids=" ".join,
)  # fmt: skip
def test_every_command_refuses_it(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, [*command, "--set", "isolation.level=read_uncommitted"])
    assert result.exit_code == 2
    assert "the guarantees rest on isolation.level=read_committed" in result.stderr
