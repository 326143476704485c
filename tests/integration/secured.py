"""Applications on a secured broker, for its tests: run in a thread, with the rights and the records that they get.

Rule of this module: the super user grants, feeds and reads; only ``Running`` logs in.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from streamstate import Topology, serde
from streamstate.app import Application, Settings
from streamstate.app.acls import Acl
from streamstate.engine.metrics import WorkerStatus
from streamstate.errors import ConfigError
from streamstate.graph.node import Graph
from streamstate.kafka import KafkaAdmin
from streamstate.kafka.admin import OPERATIONS, RESOURCE_TYPES
from tests.broker_support import eventually
from tests.integration.support import Cluster, Reader, Record
from tests.secured_support import Secured

DEADLINE = timedelta(seconds=40)
# Between a wrong setting and the error about it.
PROMPT = timedelta(seconds=10)


def counting(name: str) -> Graph:
    topology = Topology(name)
    lines = topology.stream(f"{name}-in", key=serde.string(), value=serde.string())
    words = lines.group_by(lambda key, value: value, key=serde.string())
    words.count(store="words").to_stream().to(f"{name}-out")
    return topology.build()


def granted(secured: Secured, acls: Collection[Acl], user: str = "app") -> None:
    rights = [(acl.resource, acl.name, acl.operation, acl.prefixed) for acl in acls]
    KafkaAdmin({"bootstrap.servers": secured.embedded.bootstrap_servers}).grant(rights, f"User:{user}")
    # Written down is not yet known to the broker.
    wanted = {(acl.name, OPERATIONS[acl.operation]) for acl in acls}
    admin, mine = secured.admin(), rights_of(f"User:{user}")

    def known() -> bool:
        return wanted <= {(found.name, found.operation) for found in admin.describe_acls(mine).result(30)}

    eventually(known, DEADLINE, f"the rights of {user}")


def rights_of(principal: str | None) -> AclBindingFilter:
    return AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, principal, None, AclOperation.ANY, AclPermissionType.ANY
    )


def all_taken_away(secured: Secured) -> None:
    """Every right there is."""
    admin = secured.admin()
    for done in admin.delete_acls([rights_of(None)]).values():
        done.result(30)


def taken_away(secured: Secured, acls: Iterable[Acl], user: str = "app") -> None:
    """Exactly these rights of a user."""
    filters = [
        AclBindingFilter(
            RESOURCE_TYPES[acl.resource],
            acl.name,
            ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL,
            f"User:{user}",
            None,
            OPERATIONS[acl.operation],
            AclPermissionType.ALLOW,
        )
        for acl in acls
    ]
    admin = secured.admin()
    for done in admin.delete_acls(filters).values():
        assert done.result(30), "there was no such right"
    eventually(
        lambda: not any(admin.describe_acls(right).result(30) for right in filters), DEADLINE, "the end of rights"
    )


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


def read(secured: Secured, topic: str, count: int) -> list[Record]:
    """The first records of a topic, once there are so many."""
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
    return reader.records


def prepared(secured: Secured, name: str) -> Graph:
    Cluster(secured.embedded.bootstrap_servers).create(f"{name}-in", 2)
    return counting(name)
