"""``streamstate run`` on a secured broker, as processes: with exactly its rights, and with secrets that nobody sees."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from streamstate.app.acls import least_acls
from tests.broker_support import eventually
from tests.integration.secured import DEADLINE, counting, feed, granted, read
from tests.integration.support import Cluster, Record, check_counts
from tests.secured_support import PASSWORD, Secured, secured_broker

pytestmark = [pytest.mark.broker, pytest.mark.rights]

PROGRAM = [sys.executable, "-m", "streamstate_cli"]
WRONG = "not-this-one"
TOPOLOGY = """
from tests.integration.secured import counting

topology = counting("processes")
"""
CONFIG = """
bootstrap_servers = "{servers}"

[kafka]
"security.protocol" = "SASL_SSL"
"ssl.ca.location" = "{ca}"
"sasl.mechanism" = "{mechanism}"
"sasl.username" = "app"
"consumer.session.timeout.ms" = 3000
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


class Place:
    """A topology and a configuration file, and processes that use them.

    Attributes:
        said: all that any of them has printed, once it has ended.
        shown: every command line, and that of every process that one has started.
    """

    def __init__(self, directory: Path, secured: Secured, password: str | None, mechanism: str = "PLAIN") -> None:
        self.directory = directory
        self.topology = directory / "processes.py"
        self.topology.write_text(TOPOLOGY)
        config = directory / "streamstate.toml"
        text = CONFIG.format(servers=secured.bootstrap_servers, ca=secured.ca, mechanism=mechanism)
        config.write_text(text + (f'"sasl.password" = "{password}"\n' if password is not None else ""))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STREAMSTATE_")},
            "STREAMSTATE_CONFIG": str(config),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.said = ""
        self.shown = b""

    def command(self, *arguments: str, environment: dict[str, str] | None = None, within_s: float = 60) -> int:
        """Run a command to its end; its exit code."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            check=False,
        )
        self.said += done.stdout
        return done.returncode

    @contextmanager
    def running(
        self, state: str, *options: str, environment: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """``streamstate run``, ended in order unless it was killed."""
        arguments = ["run", str(self.topology), "--state-dir", str(self.directory / state), "--debug", "-v", *options]
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lines.extend, args=(process.stdout,))
        reader.start()
        try:
            yield process
            process.terminate()
            assert process.wait(DEADLINE.total_seconds()) in (0, -9), "".join(lines)
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
            self.said += "".join(lines)

    def look(self, process: subprocess.Popen[str], children: int) -> None:
        """Read the command lines of a process and of what it has started."""
        task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(lambda: len(task.read_text().split()) >= children, DEADLINE, "the workers")
        for pid in (str(process.pid), *task.read_text().split()):
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"streamstate_cli" in shown
            self.shown += shown

    def keeps(self, secret: str) -> None:
        """Nothing has shown the secret."""
        assert self.said
        assert secret not in self.said
        assert secret.encode() not in self.shown


def _number(count: Record) -> bytes:
    assert count.value is not None
    return str(int.from_bytes(count.value, "big")).encode()


def members(secured: Secured, count: int) -> bool:
    admin = secured.admin()
    group = admin.describe_consumer_groups(["processes"])["processes"].result(10)
    return len(group.members) == count and group.state.name == "STABLE"


def test_two_processes_of_which_one_is_killed_and_a_restore(secured: Secured, tmp_path: Path) -> None:
    """With exactly the rights that ``streamstate acls`` prints, and with secrets in the file and in the environment."""
    Cluster(secured.embedded.bootstrap_servers).create("processes-in", 2)
    granted(secured, least_acls(counting("processes"), "processes"))
    place = Place(tmp_path, secured, PASSWORD)
    in_environment = {"STREAMSTATE_KAFKA_SASL_PASSWORD": PASSWORD}
    feed(secured, "processes-in", "a", "b", "a")
    with place.running("first"):
        read(secured, "processes-out", 3)
        with place.running("second", environment=in_environment) as second:
            eventually(lambda: members(secured, 2), DEADLINE, "a group of two")
            feed(secured, "processes-in", "a", "b", "c")
            read(secured, "processes-out", 6)
            second.kill()
            # What it had comes to the first one, which restores it.
            feed(secured, "processes-in", "a", "b", "c")
            read(secured, "processes-out", 9)
    # All state from nothing, in two processes below one.
    with place.running("third", "--workers", "2", "--set", "debug=all", environment=in_environment) as third:
        place.look(third, children=2)
        feed(secured, "processes-in", "a", "b", "c")
        counts = read(secured, "processes-out", 12)
    check_counts([replace(count, value=_number(count)) for count in counts], {"a": 5, "b": 4, "c": 3})
    assert "restoring store 'words'" in place.said
    place.keeps(PASSWORD)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_not_shown_with_its_error(secured: Secured, tmp_path: Path, mechanism: str) -> None:
    place = Place(tmp_path, secured, WRONG, mechanism)
    assert place.command("run", str(place.topology), "--debug", "-v", "--set", "debug=all", within_s=20) == 2
    assert "cannot log in at" in place.said
    place.keeps(WRONG)


def test_no_command_shows_a_secret(secured: Secured, tmp_path: Path) -> None:
    place = Place(tmp_path, secured, WRONG)
    topology = str(place.topology)
    for arguments in (
        ["config", topology],
        ["config", topology, "--json"],
        ["describe", topology],
        ["acls", topology],
        ["topics", "list", "--debug"],
        ["reset", topology, "--yes", "--debug"],
        ["run", topology, "--workers", "2", "--debug"],
        # Refused for another reason, with the whole configuration in hand.
        ["run", topology, "--set", "sasl.mechanism=PLANE", "--debug"],
        ["run", topology, "--set", f"sasl.pasword={WRONG}", "--debug"],
    ):
        place.command(*arguments)
    place.keeps(WRONG)
