"""Applications on a secured broker: with exactly their rights, without one of them, and with credentials that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from streamstate_cli.loader import load_topology
from streamstate_cli.main import cli

from streamstate import Topology, serde
from streamstate.app import Application, Settings, client_properties
from streamstate.app.acls import Acl, least_acls
from streamstate.app.reset import delete, find
from streamstate.engine.metrics import WorkerStatus
from streamstate.errors import ConfigError
from streamstate.graph.node import Graph
from streamstate.kafka import KafkaAdmin
from tests.broker_support import eventually
from tests.integration.support import Cluster, Reader
from tests.secured_support import Secured, certificate, secured_broker, unsecured_token

pytestmark = pytest.mark.broker

DEADLINE = timedelta(seconds=40)
# Between a wrong setting and the error about it.
PROMPT = timedelta(seconds=10)
TOPOLOGIES = Path(__file__).parents[2] / "topologies"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


def counting(name: str) -> Graph:
    topology = Topology(name)
    lines = topology.stream(f"{name}-in", key=serde.string(), value=serde.string())
    words = lines.group_by(lambda key, value: value, key=serde.string())
    words.count(store="words").to_stream().to(f"{name}-out")
    return topology.build()


def granted(secured: Secured, acls: tuple[Acl, ...], user: str = "app") -> None:
    rights = [(acl.resource, acl.name, acl.operation, acl.prefixed) for acl in acls]
    KafkaAdmin({"bootstrap.servers": secured.embedded.bootstrap_servers}).grant(rights, f"User:{user}")


def taken_away(secured: Secured, name: str | None) -> None:
    """All rights on what is named so; None: all there are."""
    admin = secured.admin()
    everything = AclBindingFilter(
        ResourceType.ANY, name, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    for done in admin.delete_acls([everything]).values():
        assert done.result(30) or name is None


class Running:
    """An application in a thread."""

    def __init__(self, secured: Secured, graph: Graph, state: Path, **settings: Any) -> None:
        chosen = {"bootstrap_servers": secured.bootstrap_servers, "kafka": secured.kafka(), "state_dir": state}
        self.settings = Settings(**{**chosen, **settings})
        self.failure: BaseException | None = None
        self.status: WorkerStatus | None = None
        self._application = Application(graph, self.settings, self._say, timedelta(milliseconds=100))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._application.run()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.failure = error

    def _say(self, status: WorkerStatus) -> None:
        self.status = status

    def settled(self, *, reads: bool) -> bool:
        """All its tasks run and have read what there is, and that is something where it ``reads``; or it has failed."""
        status = self.status
        if self.failure is not None or status is None:
            return self.failure is not None
        at_rest = {*status.tasks.values()} == {"running"} and status.lag == 0
        return at_rest and (status.committed > 0 or not reads)

    def ended(self, within: timedelta) -> str:
        """The error with which it has ended by itself."""
        self._thread.join(within.total_seconds())
        assert not self._thread.is_alive(), f"still running after {within}"
        assert isinstance(self.failure, ConfigError), repr(self.failure)
        return str(self.failure)

    def stop(self) -> None:
        self._application.stop()
        self._thread.join(DEADLINE.total_seconds())
        assert not self._thread.is_alive()


@contextmanager
def running(secured: Secured, graph: Graph, state: Path, **settings: Any) -> Iterator[Running]:
    application = Running(secured, graph, state, **settings)
    try:
        yield application
    finally:
        application.stop()


def feed(secured: Secured, topic: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": secured.embedded.bootstrap_servers})
    for value in values:
        producer.produce(topic, value.encode(), value.encode())
    assert producer.flush(30) == 0


def read(secured: Secured, topic: str, count: int) -> None:
    cluster = Cluster(secured.embedded.bootstrap_servers)

    def there() -> bool:
        try:
            return bool(cluster.partitions(topic) and cluster.ends(topic))
        except KafkaException:
            # Made a moment ago: not every partition has a leader yet.
            return False

    eventually(there, DEADLINE, f"topic {topic}")
    reader = Reader(cluster, topic)
    try:
        reader.until(count, DEADLINE)
    finally:
        reader.close()


def prepared(secured: Secured, name: str) -> Graph:
    Cluster(secured.embedded.bootstrap_servers).create(f"{name}-in", 2)
    return counting(name)


def test_runs_restores_and_resets_with_exactly_its_rights(secured: Secured, tmp_path: Path) -> None:
    graph = prepared(secured, "least")
    granted(secured, least_acls(graph, "least"))
    feed(secured, "least-in", "a", "b", "a")
    with running(secured, graph, tmp_path / "first") as first:
        eventually(lambda: Cluster(secured.embedded.bootstrap_servers).partitions("least-out"), DEADLINE, "its output")
        read(secured, "least-out", 3)
        # A second process: a rebalance, and restores on an empty disk.
        with running(secured, graph, tmp_path / "second") as second:
            feed(secured, "least-in", "a", "b", "c")
            read(secured, "least-out", 6)
        assert second.failure is None
    assert first.failure is None
    with running(secured, graph, tmp_path / "third") as third:
        feed(secured, "least-in", "a")
        read(secured, "least-out", 7)
    assert third.failure is None
    admin = KafkaAdmin(client_properties(third.settings, "admin"))
    findings = find(graph, third.settings, admin)
    assert findings.has_group
    delete(findings, third.settings, admin)
    assert find(graph, third.settings, admin).empty


@pytest.fixture(scope="module")
def fed(secured: Secured) -> None:
    """The topics that ready topologies read."""
    options = ["--bootstrap-servers", secured.embedded.bootstrap_servers, "--limit", "300", "--partitions", "2"]
    assert CliRunner().invoke(cli, ["feed", "flights", "airlines", "planes", *options]).exit_code == 0
    for topic in ("lines", "weather"):
        Cluster(secured.embedded.bootstrap_servers).create(topic, 2)


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.py")), ids=lambda path: path.stem)
def test_ready_topologies_run_with_what_acls_applies(secured: Secured, fed: None, tmp_path: Path, path: Path) -> None:
    """First on an empty state directory, then on another one, so that all state is restored; then it is reset."""
    taken_away(secured, None)
    admin = ["--bootstrap-servers", secured.embedded.bootstrap_servers, "--principal", "User:app", "--apply"]
    applied = CliRunner().invoke(cli, ["acls", str(path), *admin])
    assert applied.exit_code == 0, applied.output
    graph = load_topology(str(path))
    for state in ("first", "second"):
        with running(secured, graph, tmp_path / state) as application:
            reads = state == "first" and path.stem != "word_count"
            eventually(partial(application.settled, reads=reads), DEADLINE, "all of the input")
        assert application.failure is None
    client = KafkaAdmin(client_properties(application.settings, "admin"))
    delete(find(graph, application.settings, client), application.settings, client)


@pytest.mark.parametrize(
    ("kind", "operation", "told"),
    [
        ("topic", "Read", "topic 'denied-{}-in' is denied"),
        ("group", "Read", "group 'denied-{}' is denied"),
        ("transactional-id", "Write", "Write on transactional-id 'denied-{}-"),
        ("topic", "Create", "Create on topic 'denied-{}-"),
    ],
)
def test_a_denial_ends_it_at_once_and_names_what_is_missing(
    secured: Secured, tmp_path: Path, kind: str, operation: str, told: str
) -> None:
    case = f"{kind}-{operation}".lower()
    name = f"denied-{case}"
    graph = prepared(secured, name)
    granted(secured, tuple(a for a in least_acls(graph, name) if (a.resource, a.operation) != (kind, operation)))
    feed(secured, f"{name}-in", "a")
    error = Running(secured, graph, tmp_path).ended(PROMPT)
    assert told.format(case) in error
    assert "kafka-acls.sh" in error


@pytest.mark.parametrize("gone", ["{}-in", "{}-out", "{}", "{}-"])
def test_a_right_that_is_taken_away_later_ends_it(secured: Secured, tmp_path: Path, gone: str) -> None:
    name = "taken" + str(["{}-in", "{}-out", "{}", "{}-"].index(gone))
    graph = prepared(secured, name)
    granted(secured, least_acls(graph, name))
    feed(secured, f"{name}-in", "a")
    application = Running(secured, graph, tmp_path)
    eventually(lambda: Cluster(secured.embedded.bootstrap_servers).partitions(f"{name}-out"), DEADLINE, "its output")
    read(secured, f"{name}-out", 1)
    taken_away(secured, gone.format(name))
    feed(secured, f"{name}-in", "b")
    assert "kafka-acls.sh" in application.ended(PROMPT)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_said_within_seconds(secured: Secured, tmp_path: Path, mechanism: str) -> None:
    wrong = secured.kafka(mechanism, password="not-this-one")
    error = Running(secured, counting("wrong"), tmp_path, kafka=wrong).ended(PROMPT)
    assert "cannot log in" in error
    assert "not-this-one" not in error


def test_an_unknown_certificate_is_said_within_seconds(secured: Secured, tmp_path: Path) -> None:
    other, _ = certificate(tmp_path, "other")
    kafka = {**secured.kafka(), "ssl.ca.location": str(other)}
    assert "certificate" in Running(secured, counting("unknown"), tmp_path, kafka=kafka).ended(PROMPT)


def test_tokens_are_refreshed_over_several_expiries(secured: Secured, tmp_path: Path) -> None:
    graph = prepared(secured, "tokens")
    granted(secured, least_acls(graph, "tokens"))
    given = []

    def token(config: str) -> tuple[str, float]:
        given.append(config)
        # The client logs in anew at nine tenths of what is left of a token; a broker takes no second login within 1 s.
        return unsecured_token("app", 10)

    kafka = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(secured.ca),
        "sasl.mechanism": "OAUTHBEARER",
    }
    with running(secured, graph, tmp_path, kafka=kafka, oauth_cb=token) as application:
        feed(secured, "tokens-in", "a")
        read(secured, "tokens-out", 1)
        first = len(given)
        eventually(lambda: len(given) >= 3 * first or application.failure, DEADLINE, "further tokens for each client")
        feed(secured, "tokens-in", "b")
        read(secured, "tokens-out", 2)
    assert application.failure is None
