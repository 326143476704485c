"""Each of the rights that ``streamstate acls`` prints, left out at the start and taken away while the application runs.

All cases run beside each other, four at a time, because they mostly wait; each test then looks at what became of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streamstate import Topology, dead_letter, serde
from streamstate.app import client_properties
from streamstate.app.acls import Acl, least_acls
from streamstate.engine.ports import NotAuthorized
from streamstate.graph.node import Graph
from streamstate.kafka import KafkaAdmin
from tests.broker_support import eventually
from tests.integration.secured import DEADLINE, PROMPT, Running, granted, running, taken_away
from tests.integration.support import Cluster
from tests.secured_support import Secured, secured_broker

pytestmark = [pytest.mark.broker, pytest.mark.rights]

INPUTS = ("deny-in", "deny-rows", "deny-codes")
# No text.
POISON = b"\xff"
WITHOUT = "without"
Outcomes = dict[str, Future[str]]


def topology(name: str) -> Graph:
    """One of each: streams, tables and global tables, with every kind of topic that an application has."""
    found, text = Topology(name), serde.string()
    lines = found.stream("deny-in", key=text, value=text, on_error=dead_letter(f"{name}-dead"))
    rows = found.table("deny-rows", key=text, value=text)
    found.global_table("deny-codes", key=text, value=text)
    lines.group_by(lambda key, value: value, key=text).count(store="words").to_stream().to(f"{name}-out")
    lines.left_join(rows, lambda line, row: line).to(f"{name}-joined", value=text)
    return found.build()


def acls_of(name: str) -> tuple[Acl, ...]:
    return least_acls(topology(name), name)


def stops_the_start(acl: Acl) -> bool:
    """Without the others it runs: nobody sees settings, and nothing is deleted."""
    return acl.operation in ("Read", "Write", "Create")


def noticed(acl: Acl) -> bool:
    """Whether it is used while an application runs, and not only when one starts or restores."""
    at_start = acl.name.endswith("-metadata") or (acl.operation == "Read" and acl.name.endswith("-changelog"))
    return acl.operation in ("Read", "Write") and not at_start


def case(acl: Acl) -> str:
    """The same for every application."""
    return f"{acl.resource}-{acl.name.removeprefix('NAME')}-{acl.operation}".replace("--", "-")


ACLS = {case(acl): number for number, acl in enumerate(acls_of("NAME"))}
AT_START = [name for name, number in ACLS.items() if stops_the_start(acls_of("NAME")[number])]
LATER = [name for name, number in ACLS.items() if noticed(acls_of("NAME")[number])]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    users = [f"{when}-{case}" for when, cases in (("start", AT_START), ("later", LATER)) for case in cases]
    with secured_broker(tmp_path_factory.mktemp("secured"), users=[*users, WITHOUT]) as broker:
        for topic in INPUTS:
            Cluster(broker.embedded.bootstrap_servers).create(topic, 2)
        feed(broker)
        yield broker


def feed(secured: Secured) -> None:
    """Something for each task and each topic."""
    producer = Producer({"bootstrap.servers": secured.embedded.bootstrap_servers})
    for topic in INPUTS:
        for key in "abcd":
            producer.produce(topic, b"a word", key.encode())
    producer.produce("deny-in", POISON, b"a")
    assert producer.flush(30) == 0


def lacking_at_start(secured: Secured, directory: Path, case: str) -> str:
    name = f"start-{case}"
    acls = acls_of(name)
    granted(secured, [acl for acl in acls if acl is not acls[ACLS[case]]], name)
    return Running(secured, topology(name), directory / name, kafka=secured.kafka(user=name)).ended(PROMPT)


def taken_away_later(secured: Secured, directory: Path, case: str) -> str:
    name = f"later-{case}"
    acls = acls_of(name)
    granted(secured, acls, name)
    application = Running(secured, topology(name), directory / name, kafka=secured.kafka(user=name))
    eventually(partial(application.settled, reads=True), DEADLINE, "all of the input")
    assert application.failure is None, application.failure
    taken_away(secured, [acls[ACLS[case]]], name)
    feed(secured)
    return application.ended(PROMPT)


@pytest.fixture(scope="module")
def outcomes(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """The error with which each case has ended, by ``start-CASE`` and ``later-CASE``."""
    directory = tmp_path_factory.mktemp("state")
    ways: list[tuple[str, list[str], Callable[[Secured, Path, str], str]]] = [
        ("start", AT_START, lacking_at_start),
        ("later", LATER, taken_away_later),
    ]
    with ThreadPoolExecutor(4) as pool:
        yield {
            f"{when}-{case}": pool.submit(play, secured, directory, case)
            for when, cases, play in ways
            for case in cases
        }


def told_of(acl: Acl, error: str) -> None:
    """The resource, whose name begins so where the right is on a prefix, and the right."""
    assert f"{acl.operation} on {acl.resource} '{acl.name}" in error
    assert f"--operation {acl.operation} --{acl.resource} {acl.name}" in error


@pytest.mark.parametrize("case", AT_START)
def test_a_right_that_is_missing_ends_the_start_and_is_named(outcomes: Outcomes, case: str) -> None:
    name = f"start-{case}"
    told_of(acls_of(name)[ACLS[case]], outcomes[name].result(DEADLINE.total_seconds() * 2))


@pytest.mark.parametrize("case", LATER)
def test_a_right_that_is_taken_away_ends_the_application_and_is_named(outcomes: Outcomes, case: str) -> None:
    name = f"later-{case}"
    told_of(acls_of(name)[ACLS[case]], outcomes[name].result(DEADLINE.total_seconds() * 2))


def written(secured: Secured) -> int:
    return sum(Cluster(secured.embedded.bootstrap_servers).ends(f"{WITHOUT}-out", committed=True).values())


def test_without_the_others_it_runs_and_only_reset_is_denied(secured: Secured, tmp_path: Path) -> None:
    """First without the rights that a start does not need, then also without those that only a start needs."""
    graph, acls = topology(WITHOUT), acls_of(WITHOUT)
    needed = [acl for acl in acls if stops_the_start(acl)]
    granted(secured, needed, WITHOUT)
    with running(secured, graph, tmp_path, kafka=secured.kafka(user=WITHOUT)) as application:
        eventually(partial(application.settled, reads=True), DEADLINE, "all of the input")
        taken_away(secured, [acl for acl in needed if not noticed(acl)], WITHOUT)
        before = written(secured)
        feed(secured)
        eventually(lambda: written(secured) > before or application.failure, DEADLINE, "further results")
    assert application.failure is None
    admin = KafkaAdmin(client_properties(application.settings, "admin"))
    for acl in acls:
        if acl.operation == "Delete":
            with pytest.raises(NotAuthorized) as denial:
                admin.delete_group(acl.name) if acl.resource == "group" else admin.delete([acl.name])
            told_of(acl, str(denial.value))
