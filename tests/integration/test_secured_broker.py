"""Applications on a secured broker: with exactly their rights, and with credentials that fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from streamstate_cli.loader import load_topology
from streamstate_cli.main import cli

from streamstate.app import client_properties
from streamstate.app.acls import least_acls
from streamstate.app.reset import delete, find
from streamstate.graph.node import Graph
from streamstate.kafka import KafkaAdmin
from streamstate.operators.topics.spec import Sink
from tests.broker_support import eventually
from tests.integration.secured import (
    DEADLINE,
    PROMPT,
    Running,
    all_taken_away,
    counting,
    feed,
    granted,
    prepared,
    read,
    running,
)
from tests.integration.support import Cluster
from tests.secured_support import PASSWORD, Secured, certificate, secured_broker, unsecured_token

pytestmark = pytest.mark.broker

DAY_MS = 86_400_000
SCRAM = ScramMechanism.SCRAM_SHA_256
TOPOLOGIES = Path(__file__).parents[2] / "topologies"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


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
    filled = CliRunner().invoke(cli, ["feed", "flights", "airlines", "planes", *options])
    assert filled.exit_code == 0, filled.output
    for topic in ("lines", "weather"):
        Cluster(secured.embedded.bootstrap_servers).create(topic, 2)
    feed(secured, "lines", "to be or not to be", "that is the question")
    # Much later flights, for every partition: windows and sessions close.
    first = json.loads(read(secured, "flights", 1)[0].value or b"")
    later = [
        json.dumps({**first, "scheduled_ms": first["scheduled_ms"] + (30 + day) * DAY_MS, "tailnum": f"N{carrier}"})
        for day in (0, 1)
        for carrier in range(8)
    ]
    feed(secured, "flights", *later)
    feed(secured, "weather", '{"temp": 39.02, "wind_speed": 12.65, "visib": 10.0}')


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.py")), ids=lambda path: path.stem)
def test_ready_topologies_run_with_what_acls_applies(secured: Secured, fed: None, tmp_path: Path, path: Path) -> None:
    """First on an empty state directory, then on another one, so that all state is restored; then it is reset."""
    all_taken_away(secured)
    admin = ["--bootstrap-servers", secured.embedded.bootstrap_servers, "--principal", "User:app", "--apply"]
    applied = CliRunner().invoke(cli, ["acls", str(path), *admin])
    assert applied.exit_code == 0, applied.output
    graph = load_topology(str(path))
    for state in ("first", "second"):
        with running(secured, graph, tmp_path / state) as application:
            eventually(partial(application.settled, reads=state == "first"), DEADLINE, "all of the input")
        assert application.failure is None
    for topic in results(graph):
        assert sum(Cluster(secured.embedded.bootstrap_servers).ends(topic, committed=True).values()) > 0, topic
    client = KafkaAdmin(client_properties(application.settings, "admin"))
    delete(find(graph, application.settings, client), application.settings, client)


def results(graph: Graph) -> set[str]:
    """What it writes of healthy records that are in time."""
    sinks = [node.spec for node in graph.nodes.values() if isinstance(node.spec, Sink)]
    return {sink.topic for sink in sinks if isinstance(sink.topic, str) and not sink.internal}


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


def oauth(secured: Secured, **properties: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(secured.ca),
        "sasl.mechanism": "OAUTHBEARER",
        **{f"sasl.oauthbearer.{name.replace('_', '.')}": value for name, value in properties.items()},
    }


def test_a_login_that_fails_when_it_is_renewed_ends_it(secured: Secured, tmp_path: Path) -> None:
    """The broker asks for a new login every 2 s; by then the user is gone."""
    set_scram(secured, UserScramCredentialUpsertion("app", ScramCredentialInfo(SCRAM, 4096), PASSWORD.encode()))
    graph = prepared(secured, "renewed")
    granted(secured, least_acls(graph, "renewed"))
    application = Running(secured, graph, tmp_path, kafka=secured.kafka("SCRAM-SHA-256"))
    feed(secured, "renewed-in", "a")
    read(secured, "renewed-out", 1)
    assert application.failure is None
    set_scram(secured, UserScramCredentialDeletion("app", SCRAM))
    error = application.ended(PROMPT)
    assert "cannot log in at" in error
    assert "SCRAM-SHA-256" in error
    assert PASSWORD not in error


def set_scram(secured: Secured, change: UserScramCredentialUpsertion | UserScramCredentialDeletion) -> None:
    admin = secured.admin()
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(30)


def test_tokens_are_refreshed_over_several_expiries(secured: Secured, tmp_path: Path) -> None:
    """And the broker refuses some of the logins, those that come within a second of the one before."""
    graph = prepared(secured, "tokens")
    granted(secured, least_acls(graph, "tokens"))
    given = []

    def token(config: str) -> tuple[str, float]:
        given.append(config)
        return unsecured_token("app", 6)

    with running(secured, graph, tmp_path, kafka=oauth(secured), oauth_cb=token) as application:
        feed(secured, "tokens-in", "a")
        read(secured, "tokens-out", 1)
        first = len(given)
        eventually(lambda: len(given) >= 3 * first or application.failure, DEADLINE, "further tokens for each client")
        feed(secured, "tokens-in", "b")
        read(secured, "tokens-out", 2)
    assert application.failure is None


def test_a_token_function_that_fails_is_named_at_once(secured: Secured, tmp_path: Path) -> None:
    def token(config: str) -> tuple[str, float]:
        raise PermissionError("the vault is sealed")

    error = Running(secured, counting("sealed"), tmp_path, kafka=oauth(secured), oauth_cb=token).ended(PROMPT)
    assert "cannot log in at" in error
    assert "oauth_cb raised PermissionError: the vault is sealed" in error


class TokenEndpoint(ThreadingHTTPServer):
    """An authorization server on loopback.

    Attributes:
        known: whether it gives tokens; else it refuses the client.
        asked: the grants that were asked for.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.known = True
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/token"


class TokenHandler(BaseHTTPRequestHandler):
    server: TokenEndpoint

    def do_POST(self) -> None:
        self.server.asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        found = {"error": "invalid_client", "error_description": "unknown client"}
        if self.server.known:
            found = {"access_token": unsecured_token("app", 6)[0], "token_type": "bearer", "expires_in": "6"}
        body = json.dumps(found).encode()
        self.send_response(200 if self.server.known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_tokens_of_an_endpoint_and_its_refusal(secured: Secured, tmp_path: Path, endpoint: TokenEndpoint) -> None:
    graph = prepared(secured, "oidc")
    granted(secured, least_acls(graph, "oidc"))
    kafka = oauth(secured, method="oidc", client_id="app", client_secret=PASSWORD, token_endpoint_url=endpoint.url)
    application = Running(secured, graph, tmp_path, kafka=kafka)
    feed(secured, "oidc-in", "a")
    read(secured, "oidc-out", 1)
    first = len(endpoint.asked)
    eventually(lambda: len(endpoint.asked) >= 2 * first or application.failure, DEADLINE, "a further token for each")
    feed(secured, "oidc-in", "b")
    read(secured, "oidc-out", 2)
    assert application.failure is None
    endpoint.known = False
    later = application.ended(PROMPT)
    at_start = Running(secured, graph, tmp_path, kafka=kafka).ended(PROMPT)
    for error in (later, at_start):
        assert "cannot log in at" in error
        assert "unknown client" in error
        assert PASSWORD not in error
