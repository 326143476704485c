"""A client that speaks another security protocol than the broker is told so, and soon."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from streamstate_cli.main import cli

from tests.integration.support import Cluster

pytestmark = pytest.mark.broker

LOGIN = ("sasl.mechanism=PLAIN", "sasl.username=me", "sasl.password=hunter2")


def listed(cluster: Cluster, *properties: str) -> tuple[int, str]:
    options = [word for pair in properties for word in ("--set", pair)]
    result = CliRunner().invoke(cli, ["topics", "list", "--bootstrap-servers", cluster.bootstrap_servers, *options])
    return result.exit_code, result.stderr


def test_tls_to_a_listener_without(cluster: Cluster) -> None:
    code, said = listed(cluster, "security.protocol=SSL")
    assert code == 4
    assert "hangs up on security.protocol=SSL" in said
    assert "PLAINTEXT" in said


def test_a_login_at_a_listener_without(cluster: Cluster) -> None:
    code, said = listed(cluster, "security.protocol=SASL_PLAINTEXT", *LOGIN)
    assert code == 2
    assert "takes no logins: it wants security.protocol=PLAINTEXT, not SASL_PLAINTEXT" in said
    assert "hunter2" not in said


def test_the_right_protocol(cluster: Cluster) -> None:
    code, _ = listed(cluster, "security.protocol=PLAINTEXT")
    assert code == 0
