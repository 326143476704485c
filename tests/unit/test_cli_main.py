"""The command as a whole: its words, its help, its exit codes, and what it does not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError, KafkaException
from streamstate_cli import main
from streamstate_cli.lazy import LazyCommand, LazyGroup

import streamstate
from streamstate import errors
from streamstate.app import Settings, explained
from streamstate.engine.ports import PortError, Unavailable

COMMANDS = [
    ["run"], ["describe"], ["config"], ["reset"], ["topics"], ["topics", "create"], ["topics", "list"], ["produce"],
    ["consume"], ["broker"], ["completion"],
]  # fmt: skip


@pytest.mark.parametrize("command", [[], *COMMANDS])
def test_every_help_has_examples(command: list[str]) -> None:
    result = CliRunner().invoke(main.cli, [*command, "--help"], prog_name="streamstate")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"streamstate {' '.join(command)}".rstrip() in result.output


@pytest.mark.parametrize("command", [[], ["run"]])
def test_help_has_a_short_name(command: list[str]) -> None:
    assert "Usage: streamstate" in CliRunner().invoke(main.cli, [*command, "-h"], prog_name="streamstate").output


def test_the_exit_codes_in_the_help_are_those_of_the_errors() -> None:
    text = CliRunner().invoke(main.cli, ["run", "--help"]).output
    lines = text.partition("Exit codes:")[2].partition("\n\n")[0].split("\n")
    codes = {int(line.split()[0]) for line in lines if line.strip()}
    raised = {getattr(errors, name).exit_code for name in errors.__all__}
    assert codes == {0} | raised


def test_version() -> None:
    result = CliRunner().invoke(main.cli, ["--version"])
    assert result.output.strip() == f"streamstate, version {streamstate.__version__}"


def test_the_list_of_commands_imports_none_of_them() -> None:
    script = "import sys; from streamstate_cli.main import cli; cli(['--help'], standalone_mode=False);" + (
        "print([m for m in ('confluent_kafka', 'rocksdict', 'rich', 'streamstate_cli.run') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "Print the records of a topic." in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "streamstate_cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("streamstate, version")


def test_an_unknown_command() -> None:
    result = CliRunner().invoke(main.cli, ["rnu"])
    assert result.exit_code == 2
    assert "rnu" in result.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_completion_prints_a_script(shell: str) -> None:
    result = CliRunner().invoke(main.cli, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert f"_STREAMSTATE_COMPLETE={shell}_complete" in result.output


def test_completion_knows_commands_and_options() -> None:
    words = {"COMP_WORDS": "streamstate run --commit", "COMP_CWORD": "2"}
    environment = {**os.environ, "_STREAMSTATE_COMPLETE": "bash_complete", **words}
    command = [sys.executable, "-m", "streamstate_cli"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.split() == ["plain,--commit-interval"]


# -- the lazy group --------------------------------------------------------------------------------------------


def lazy_group() -> click.Group:
    lazy = {
        "there": LazyCommand("streamstate_cli.completion:completion", "Is there."),
        "missing": LazyCommand("streamstate_cli.no_such_module:x", "Is not."),
    }

    @click.group(cls=LazyGroup, lazy=lazy)
    def group() -> None:
        """A group."""

    @group.command()
    def own() -> None:
        """A command of its own."""
        click.echo("own ran")

    return group


def test_a_lazy_group_lists_what_is_installed() -> None:
    output = CliRunner().invoke(lazy_group(), ["--help"]).output
    assert "Is there." in output
    assert "A command of its own." in output
    assert "missing" not in output


def test_a_lazy_group_runs_both_kinds() -> None:
    assert CliRunner().invoke(lazy_group(), ["own"]).output == "own ran\n"
    assert "Usage: group there" in CliRunner().invoke(lazy_group(), ["there", "--help"]).output
    assert CliRunner().invoke(lazy_group(), ["missing"]).exit_code == 2


# -- errors ----------------------------------------------------------------------------------------------------


def test_an_error_of_the_library_has_no_traceback(tmp_path: Path) -> None:
    result = CliRunner().invoke(main.cli, ["describe", str(tmp_path / "no.py")])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: the topology file")
    assert "Traceback" not in result.stderr


def test_another_error_keeps_its_traceback() -> None:
    command = [sys.executable, "-c", "import streamstate_cli.loader as l\n"
               "def broken(target): raise RuntimeError('a bug of ours')\n"
               "import streamstate_cli.describe as d; d.load_topology = broken\n"
               "from streamstate_cli.main import main; main()", "describe", "x.py"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "a bug of ours" in done.stderr


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (TimeoutError(), errors.BrokerUnavailable, "no broker at kafka:9092 answers: no answer in time"),
        (Unavailable("down"), errors.BrokerUnavailable, "streamstate broker start"),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), errors.BrokerUnavailable, "no broker at kafka:9092"),
        (KafkaException(KafkaError(KafkaError._INVALID_ARG, "no such thing")), errors.ConfigError, "no such thing"),
        (KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), errors.ConfigError, "denies access"),
        (PortError("odd"), errors.StreamStateError, "the Kafka client failed: odd"),
    ],
)
def test_what_clients_raise_is_explained(raised: Exception, kind: type[errors.StreamStateError], message: str) -> None:
    with pytest.raises(kind) as caught, explained(Settings(bootstrap_servers="kafka:9092")):
        raise raised
    assert type(caught.value) is kind
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [(["rnu"], "'run'"), (["topic", "list"], "'topics'"), (["desribe"], "'describe'"),
     (["topics", "crate"], "'create'"),
     (["run", "--comit-interval", "1s"], "'--commit-interval'")],
)  # fmt: skip
def test_a_misspelt_command_or_option_is_answered_with_the_nearest(words: list[str], nearest: str) -> None:
    result = CliRunner().invoke(main.cli, words)
    assert result.exit_code == 2
    assert result.stderr.count(f"Did you mean {nearest}?") == 1


def test_a_command_near_to_nothing() -> None:
    result = CliRunner().invoke(main.cli, ["quux"])
    assert result.exit_code == 2
    assert "Did you mean" not in result.stderr
