"""``streamstate config``, ``describe`` and the formats of ``consume``: what is printed, without a broker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from streamstate_cli import console
from streamstate_cli.main import cli

from streamstate.app.config import parse_file, resolve
from streamstate.errors import SerdeError

WORD_COUNT = str(Path(__file__).parents[2] / "topologies" / "word_count.py")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("STREAMSTATE_"):
            monkeypatch.delenv(name)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_config_says_who_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSTATE_KAFKA_SASL_PASSWORD", "hunter2")
    result = run("config", "--commit-interval", "1s", "--set", "client.rack=a")
    assert result.exit_code == 0
    assert 'commit_interval = "1s"' in result.output
    rows = dict(line.split("  # ") for line in result.output.splitlines() if "  # " in line)
    origins = {row.split("=")[0].lstrip("# ").strip(): origin for row, origin in rows.items()}
    assert origins["commit_interval"] == "--commit-interval"
    assert origins["application_id"] == "default: the topology's name"
    assert origins['"sasl.password"'] == "STREAMSTATE_KAFKA_SASL_PASSWORD"
    assert "hunter2" not in result.output


def test_what_config_prints_can_be_given_back() -> None:
    arguments = ["--workers", "3", "--state-dir", "/s", "--cache-size", "1GiB", "--set", "client.rack=a"]
    printed = run("config", *arguments, "--replication-factor", "2", "--set", "sasl.password=hunter2").stdout
    again = resolve({}, {}, {}, parse_file(printed, Path("saved.toml")))
    assert (again.workers, again.settings.cache_bytes, again.settings.replication_factor) == (3, 1 << 30, 2)
    # A masked value must not be taken for the real one.
    assert again.settings.kafka == {"client.rack": "a"}


def test_config_as_json() -> None:
    found = json.loads(run("config", WORD_COUNT, "--set", "sasl.password=hunter2", "--json").stdout)
    assert found["application_id"] == {
        "value": "word-count", "origin": f"default: the topology in {WORD_COUNT}", "secret": False,
    }  # fmt: skip
    assert found["kafka.sasl.password"] == {"value": "********", "origin": "--set", "secret": True}
    assert found["instance_id"]["value"] is None


def test_config_refuses_what_a_run_would_refuse() -> None:
    result = run("config", "--set", "group.id=mine")
    assert result.exit_code == 2
    assert "--application-id" in result.stderr


def test_describe_as_text_mermaid_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("describe", WORD_COUNT).output.startswith("Topology word-count (application id word-count)")
    assert run("describe", WORD_COUNT, "--mermaid").output.startswith("flowchart TD")
    found = json.loads(run("describe", WORD_COUNT, "--json", "--application-id", "mine").output)
    assert found["subtopologies"][1]["stores"][0]["changelog"] == "mine-word-counts-changelog"
    monkeypatch.setenv("STREAMSTATE_APPLICATION_ID", "theirs")
    assert "theirs-word-counts-changelog" in run("describe", WORD_COUNT).output
    assert run("describe", WORD_COUNT, "--json", "--mermaid").exit_code == 2


# -- consume and produce ---------------------------------------------------------------------------------------


class Message:
    """As much of a record as is printed."""

    def __init__(self, key: bytes | None, value: bytes | None, timestamp: tuple[int, int], headers: Any = None) -> None:
        self._key, self._value, self._timestamp, self._headers = key, value, timestamp, headers

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return 2

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp

    def headers(self) -> Any:
        return self._headers


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("string", "grüezi".encode(), "grüezi"),
        ("string", b"\xff", "\\xff"),
        ("bytes", b"\x01\xff", "01ff"),
        ("long", (5).to_bytes(8, "big"), "5"),
        ("integer", (5).to_bytes(4, "big"), "5"),
        ("json", b'{"a": "\xc3\xbc"}', '{"a": "ü"}'),
        ("json", None, "null"),
    ],
)
def test_records_as_text(kind: str, data: bytes | None, text: str) -> None:
    message = Message(None, data, (1, 1_357_020_900_123))
    value = console._decoded(message, "value", data, console.DECODERS[kind], kind)
    assert console._text(message, None, value) == f"null\t{text}\t2013-01-01T06:15:00.123Z"


def test_records_as_json() -> None:
    message = Message(b"k", None, (0, -1), [("h", b"x"), ("n", None)])
    assert json.loads(console._json(message, "k", None)) == {
        "topic": "t", "partition": 1, "offset": 2, "timestamp_ms": None, "key": "k", "value": None,
        "headers": [["h", "x"], ["n", None]],
    }  # fmt: skip
    assert console._text(message, "k", None) == "k\tnull\t-"


@pytest.mark.parametrize("kind", ["long", "json"])
def test_what_cannot_be_decoded_says_where_and_what_to_do(kind: str) -> None:
    message = Message(None, b"abc", (0, -1))
    with pytest.raises(SerdeError, match=r"topic 't', partition 1, offset 2: the value b'abc' is no .* --value bytes"):
        console._decoded(message, "value", b"abc", console.DECODERS[kind], kind)


@pytest.mark.parametrize(
    ("line", "separator", "key", "value"),
    [
        (b"a:b:c", b":", b"a", b"b:c"),
        (b"abc", b":", None, b"abc"),
        (b"a:b", None, None, b"a:b"),
        (b":b", b":", b"", b"b"),
        (b"a=>b", b"=>", b"a", b"b"),
    ],
)
def test_lines_are_cut_at_the_first_separator(
    line: bytes, separator: bytes | None, key: bytes | None, value: bytes
) -> None:
    assert console._output("t", line, separator)[:4] == ("t", value, key, -1)


def test_a_secret_on_the_command_line_is_warned_of_and_not_shown() -> None:
    shown = run("config", "--set", "sasl.password=hunter2")
    assert shown.exit_code == 0
    assert "Warning: --set sasl.password=... stands on the command line" in shown.stderr
    assert "STREAMSTATE_KAFKA_SASL_PASSWORD" in shown.stderr
    assert "hunter2" not in shown.output


def test_where_a_secret_is_may_stand_on_the_command_line() -> None:
    names = ("ssl.key.location", "sasl.oauthbearer.token.endpoint.url", "sasl.username")
    assert run("config", *(word for name in names for word in ("--set", f"{name}=x"))).stderr == ""
