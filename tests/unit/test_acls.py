"""The rights of an application: every topic that it touches is covered, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError
from streamstate_cli.loader import load_topology
from streamstate_cli.main import cli

from streamstate.app.acls import least_acls
from streamstate.app.reset import internal_topics
from streamstate.engine.assign.topics import source_topics
from streamstate.engine.ports import NotAuthorized
from streamstate.graph.queries import sink_topics
from streamstate.kafka.admin import OPERATIONS, RESOURCE_TYPES
from streamstate.kafka.errors import general, transactional

READY = sorted((Path(__file__).resolve().parents[2] / "topologies").glob("*.py"))


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_topologies_get_rights_on_their_own_topics_only(path: Path) -> None:
    graph = load_topology(str(path))
    acls = least_acls(graph, "app")
    having = {
        operation: {acl.name for acl in acls if acl.resource == "topic" and acl.operation == operation}
        for operation in OPERATIONS
    }
    internal = set(internal_topics(graph, "app"))
    assert having["Read"] == {*source_topics(graph), *internal}
    assert having["Write"] == having["Create"] == {*sink_topics(graph), *internal}
    assert having["Delete"] == internal
    others = {(acl.resource, acl.name, acl.operation, acl.prefixed) for acl in acls if acl.resource != "topic"}
    assert others == {
        ("group", "app", "Read", False),
        ("group", "app", "Delete", False),
        ("transactional-id", "app-", "Write", True),
    }
    assert {acl.resource for acl in acls} <= set(RESOURCE_TYPES)


def test_without_transactions_no_transactional_id_is_needed() -> None:
    graph = load_topology(str(READY[-1]))
    assert {acl.resource for acl in least_acls(graph, "app", exactly_once=False)} == {"topic", "group"}


def test_the_command_prints_commands_and_json() -> None:
    target = str(READY[-1])
    printed = CliRunner().invoke(cli, ["acls", target, "--principal", "User:me", "--bootstrap-servers", "k:1"])
    assert printed.exit_code == 0, printed.output
    lines = printed.output.splitlines()
    assert all(
        line.startswith("kafka-acls.sh --bootstrap-server k:1 --add --allow-principal User:me ") for line in lines
    )
    told = [json.loads(line) for line in CliRunner().invoke(cli, ["acls", target, "--json"]).output.splitlines()]
    assert {acl["name"] for acl in told} == {line.split("--resource-pattern-type")[0].split()[-1] for line in lines}


@pytest.mark.parametrize("arguments", [["--apply"], ["--principal", "me"]])
def test_whom_to_grant_them_must_be_said(arguments: list[str]) -> None:
    answer = CliRunner().invoke(cli, ["acls", str(READY[-1]), *arguments])
    assert answer.exit_code == 2
    assert "User:NAME" in answer.output


def test_a_denied_transactional_id_is_a_denial_although_the_client_calls_it_fatal() -> None:
    code = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert isinstance(transactional(KafkaError(code, "denied", True)), NotAuthorized)
    assert isinstance(general(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)), NotAuthorized)
