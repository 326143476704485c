"""The commands as a user runs them, on a real broker."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamstate.broker.jvm import process_identity
from tests.broker_support import Broker, eventually
from tests.integration.support import Record
from tests.integration.support import check_counts as check_counts_of_records

pytestmark = pytest.mark.broker

TIMEOUT = timedelta(seconds=60)
PROGRAM = [sys.executable, "-m", "streamstate_cli"]
# So that a killed worker's partitions move within the test's patience.
QUICK = ["--set", "consumer.session.timeout.ms=6000", "--set", "consumer.heartbeat.interval.ms=500"]
LINES = ["to be or not to be", "that is the question", "to be"]
TOPOLOGY = """
from streamstate import Topology, serde

topology = Topology("{application}")
(
    topology.stream("{lines}", value=serde.string())
    .flat_map_values(str.split)
    .group_by(lambda key, word: word, key=serde.string(), value=serde.string())
    .count(store="counts")
    .to_stream()
    .map_values(str)
    .to("{counts}", value=serde.string())
)
"""


class App:
    """A word count of one test's own, and the commands around it.

    Attributes:
        path: of its topology.
        lines, counts: its topics.
    """

    def __init__(self, name: str, bootstrap_servers: str, directory: Path) -> None:
        self.name, self.lines, self.counts = f"cli-{name}", f"cli-{name}-in", f"cli-{name}-out"
        self.path = directory / "word_count.py"
        self.path.write_text(TOPOLOGY.format(application=self.name, lines=self.lines, counts=self.counts))
        self.state = directory / "state"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMSTATE_")}
        self.environment = {**kept, "STREAMSTATE_BOOTSTRAP_SERVERS": bootstrap_servers}

    def command(
        self, *arguments: str, status: int = 0, stdin: str = "", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**self.environment, **(environment or {})},
            timeout=120,
            check=False,
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def feed(self, *lines: str) -> None:
        self.command("produce", self.lines, stdin="".join(f"{line}\n" for line in lines))

    def results(self, count: int) -> list[Record]:
        """The first ``count`` results, waited for."""
        printed = self.command("consume", self.counts, "--from-beginning", "--max", str(count), "--json").stdout
        return [record(line) for line in printed.splitlines()]

    def all_results(self) -> list[Record]:
        """What is there now."""
        printed = self.command("consume", self.counts, "--no-follow", "--json").stdout
        return [record(line) for line in printed.splitlines()]

    @contextmanager
    def running(self, *options: str) -> Iterator[Running]:
        arguments = ["run", str(self.path), "--state-dir", str(self.state), "--json", *QUICK, *options]
        running = Running([*PROGRAM, *arguments], self.environment)
        try:
            yield running
        finally:
            running.end()


class Running:
    """``streamstate run --json`` and the events it has told."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers = [threading.Thread(target=reader) for reader in (self._read_events, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def told(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        found = [event for event in list(self.events) if event["event"] == name]
        return [event for event in found if all(event[key] == value for key, value in fields.items())]

    def until(self, name: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        def enough() -> bool:
            if self.process.poll() is not None and len(self.told(name, **fields)) < count:
                raise AssertionError(f"ended with {self.process.returncode}: {self.errors}")
            return len(self.told(name, **fields)) >= count

        eventually(enough, TIMEOUT, f"{count} events {name!r}, got {self.events[-3:]}")
        return self.told(name, **fields)

    @property
    def pids(self) -> set[int]:
        """Every process it has told of."""
        return {event["pid"] for event in self.events} | {self.process.pid}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        return status

    def end(self) -> None:
        """Whatever the test has left running."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.pids:
            eventually(partial(gone, pid), timedelta(seconds=90), f"process {pid} to end")
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def gone(pid: int) -> bool:
    return process_identity(pid) is None


def record(line: str) -> Record:
    told = json.loads(line)
    key, value = told["key"].encode(), told["value"].encode()
    return Record(told["topic"], told["partition"], told["offset"], key, value, told["timestamp_ms"])


def check_counts(results: list[Record], *lines: str) -> None:
    words = [word for line in lines for word in line.split()]
    check_counts_of_records(results, {word: words.count(word) for word in words})


@pytest.fixture
def app(request: pytest.FixtureRequest, broker: Broker, tmp_path: Path) -> App:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    return App(name, broker.bootstrap_servers, tmp_path)


def test_the_first_five_minutes(app: App) -> None:
    """A missing topic, the command that the error names, lines in, counts out, and an end in order."""
    missing = app.command("run", str(app.path), "--state-dir", str(app.state), "--workers", "2", status=3)
    assert missing.stderr.count("reads topics that do not exist") == 1, "several workers, one error"
    assert "Traceback" not in missing.stderr
    [fix] = [line.strip() for line in missing.stderr.splitlines() if line.startswith("  streamstate ")]
    fix = fix.replace("--partitions N", "--partitions 4")
    assert f"{app.lines} created, 4 partitions" in app.command(*shlex.split(fix)[1:]).stdout

    app.feed(*LINES)
    with app.running("--workers", "2") as running:
        words = sum(len(line.split()) for line in LINES)
        running.until("started", 2)
        check_counts(app.results(words), *LINES)
        app.feed("one more")
        check_counts(app.results(words + 2), *LINES, "one more")
        assert running.stop() == 0
        assert [event["exit_code"] for event in running.told("worker_exited")] == [0, 0]
        assert sorted(event["worker"] for event in running.told("stopped")) == [0, 1]
        assert not running.told("error")
    check_counts(app.all_results(), *LINES, "one more")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_worker_ends_in_order(app: App, number: signal.Signals) -> None:
    app.command("topics", "create", app.lines, "--partitions", "2")
    with app.running() as running:
        [started] = running.until("started")
        assert started["pid"] == running.process.pid
        app.feed("a b a")
        check_counts(app.results(3), "a b a")
        # One line, three words.
        running.until("status", committed=4)
        assert running.stop(number) == 0
        assert [event["event"] for event in running.events[-2:]] == ["status", "stopped"]
    # Both steps of each word were committed before the end: nothing is processed again.
    with app.running() as again:
        again.until("started")
        app.feed("b")
        check_counts(app.results(4), "a b a", "b")
        assert again.stop() == 0
    check_counts(app.all_results(), "a b a", "b")


def test_a_killed_worker_is_started_again_and_nothing_is_lost(app: App) -> None:
    app.command("topics", "create", app.lines, "--partitions", "4")
    app.feed(*LINES)
    with app.running("--workers", "2") as running:
        running.until("started", 2)
        victim = running.told("started", worker=1)[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        [exited] = running.until("worker_exited", worker=1)
        assert (exited["pid"], exited["exit_code"], exited["restart_in_ms"]) == (victim, -9, 500)
        running.until("started", 2, worker=1)
        app.feed(*LINES)
        words = 2 * sum(len(line.split()) for line in LINES)
        check_counts(app.results(words), *LINES, *LINES)
        assert running.stop() == 0
    check_counts(app.all_results(), *LINES, *LINES)


def test_no_worker_outlives_a_killed_supervisor(app: App) -> None:
    app.command("topics", "create", app.lines, "--partitions", "2")
    with app.running("--workers", "2") as running:
        running.until("started", 2)
        workers = running.pids - {running.process.pid}
        assert len(workers) == 2
        running.process.kill()
        for pid in workers:
            eventually(partial(gone, pid), TIMEOUT, f"worker {pid} to end")
        eventually(lambda: "finishing" in "".join(running.errors), TIMEOUT, "workers to say that they finish")


def test_secrets_reach_workers_but_stand_on_no_command_line(app: App) -> None:
    app.command("topics", "create", app.lines, "--partitions", "1")
    with app.running("--workers", "1", "--set", "sasl.password=hunter2") as running:
        running.until("started")
        assert running.stop() == 0
    with app.running("--workers", "2", "--set", "sasl.password=hunter2") as running:
        for started in running.until("started", 2):
            shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(started["pid"])], stdout=subprocess.PIPE)
            assert b"--supervised" in shown.stdout
            assert b"hunter2" not in shown.stdout
        assert running.stop() == 0


def test_reset_starts_over(app: App) -> None:
    app.command("topics", "create", app.lines, "--partitions", "2")
    app.feed("a b a")
    options = [str(app.path), "--state-dir", str(app.state)]
    with app.running() as running:
        running.until("started")
        check_counts(app.results(3), "a b a")
        refused = app.command("reset", *options, "--yes", status=1)
        assert f"application '{app.name}' is running" in refused.stderr
        assert running.stop() == 0

    internal = {f"{app.name}-counts-changelog", f"{app.name}-counts-repartition", f"{app.name}-metadata"}
    shown = app.command("reset", *options, "--dry-run").stdout
    for expected in (*internal, str(app.state / app.name / "process-0"), f"{app.lines} (2 partitions)"):
        assert expected in shown
    assert app.command("reset", *options, stdin="n\n", status=1).stderr.endswith("Aborted!\n")
    assert internal <= topics(app), "nothing may be deleted before it is confirmed"

    deleted = app.command("reset", *options, "--application-id", app.name, stdin="y\n").stdout
    assert deleted.count("Deleted ") == 5
    assert not internal & topics(app)
    assert {app.lines, app.counts} <= topics(app)
    assert not list((app.state / app.name).glob("process-*"))
    assert "Nothing to delete" in app.command("reset", *options, "--yes").stdout

    with app.running() as running:
        results = app.results(6)
        assert running.stop() == 0
    counts = {word: [int(r.value or b"0") for r in results if r.key == word.encode()] for word in "ab"}
    assert counts == {"a": [1, 2, 1, 2], "b": [1, 1]}, "the second run reads the input from its beginning"


def test_reset_refuses_state_that_is_in_use(app: App) -> None:
    app.command("topics", "create", app.lines, "--partitions", "1")
    with app.running() as running:
        running.until("started")
        # Another application id at the cluster, the same place on disk: only the lock can tell.
        place = app.state / app.name
        place.with_name("other").symlink_to(place)
        options = [str(app.path), "--state-dir", str(app.state), "--application-id", "other", "--yes"]
        refused = app.command("reset", *options, status=5)
        assert "a live process uses" in refused.stderr
        assert running.stop() == 0


def topics(app: App) -> set[str]:
    return {json.loads(line)["topic"] for line in app.command("topics", "list", "--json").stdout.splitlines()}


def test_topics_are_created_once(app: App) -> None:
    create = ["topics", "create", app.lines, "--partitions", "3"]
    made = app.command(*create, app.counts, "--topic-config", "retention.ms=-1", "--replication-factor", "1")
    assert made.stdout == f"{app.lines} created, 3 partitions\n{app.counts} created, 3 partitions\n"
    assert app.command(*create).stdout == f"{app.lines} exists, 3 partitions\n"
    refused = app.command("topics", "create", app.lines, "--partitions", "4", status=3)
    assert "exists with 3 partitions, not 4" in refused.stderr
    assert re.search(rf"^{app.lines} +3 partitions$", app.command("topics", "list").stdout, re.MULTILINE)
    assert "__consumer_offsets" not in topics(app)
    assert "__consumer_offsets" in app.command("topics", "list", "--all").stdout
    wrong = app.command("topics", "create", "x", "--topic-config", "no.such.setting=1", status=1)
    assert "no.such.setting" in wrong.stderr


def test_consume_shows_committed_records_only_and_ends_at_the_end(app: App) -> None:
    app.command("topics", "create", app.lines, "--partitions", "1")
    assert app.command("consume", app.lines, "--no-follow").stdout == ""
    app.command("produce", app.lines, "--key-separator", ":", stdin="k:one\ntwo\n")
    address = app.environment["STREAMSTATE_BOOTSTRAP_SERVERS"]
    producer = Producer({"bootstrap.servers": address, "transactional.id": app.name})
    producer.init_transactions(60)
    for value, finish in ((b"aborted", producer.abort_transaction), (b"three", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(app.lines, value)
        producer.flush()
        finish(60)
    # The log ends with a marker, then with a transaction that is still open.
    lines = app.command("consume", app.lines, "--no-follow").stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["k", "one"], ["null", "two"], ["null", "three"]]
    producer.begin_transaction()
    producer.produce(app.lines, b"open")
    producer.flush()
    assert app.command("consume", app.lines, "--no-follow", "--value", "bytes").stdout.count("\n") == 3
    assert app.command("consume", app.lines, "--from-beginning", "--max", "2").stdout.count("\n") == 2
    producer.abort_transaction(60)
    undecodable = app.command("consume", app.lines, "--no-follow", "--value", "long", status=6)
    assert f"topic '{app.lines}', partition 0, offset 0: the value b'one' is no long" in undecodable.stderr


@pytest.mark.parametrize("command", ["produce", "consume"])
def test_a_missing_topic_names_the_command_that_creates_it(app: App, command: str) -> None:
    refused = app.command(command, app.lines, status=3)
    [fix] = [line.strip() for line in refused.stderr.splitlines() if line.startswith("  streamstate ")]
    app.command(*shlex.split(fix)[1:])
    assert app.lines in topics(app)


def test_a_client_property_that_does_not_exist(app: App) -> None:
    refused = app.command("run", str(app.path), "--set", "no.such.property=1", "--state-dir", str(app.state), status=2)
    assert "no.such.property" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_failing_function_is_named_by_its_line_and_debug_shows_the_way_there(app: App) -> None:
    app.path.write_text(
        f"""
from streamstate import Topology, dead_letter, serde

topology = Topology("{app.name}")
topology.stream("{app.lines}", value=serde.string()).map_values(lambda line: int(line)).to(
    "{app.counts}", value=serde.long()
)
"""
    )
    app.command("topics", "create", app.lines, "--partitions", "3")
    app.feed("five")
    arguments = ("run", str(app.path), "--state-dir", str(app.state), *QUICK)
    plain = app.command(*arguments, status=6).stderr
    said = next(line for line in plain.splitlines() if line.startswith("Error: "))
    assert "operator" in said
    assert f"topic {app.lines!r}, partition " in said
    assert f'File "{app.path}", line 5, in <lambda>' in said
    assert "Traceback" not in plain
    created = next(line for line in plain.splitlines() if f"created topic {app.counts!r}" in line)
    assert "with 3 partitions, as many as tasks write it" in created
    assert f"streamstate topics create {app.counts} --partitions N" in created
    listed = [json.loads(line) for line in app.command("topics", "list", "--json").stdout.splitlines()]
    assert {info["topic"]: info["partitions"] for info in listed}[app.counts] == 3
    traced = app.command(*arguments, "--debug", status=6).stderr
    assert "Traceback (most recent call last):" in traced
    assert f'File "{app.path}", line 5, in <lambda>' in traced.partition("Error: ")[0]
    assert traced.rstrip().splitlines()[-1] == said
