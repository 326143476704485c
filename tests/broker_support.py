"""The broker that integration tests run on: chosen by the environment, the same in every test.

``STREAMSTATE_TEST_BROKER`` is ``embedded`` (the default), ``testcontainers`` (needs a container engine), or the
``host:port`` of a broker that runs already.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamstate.broker import EmbeddedBroker
from streamstate.broker.jars import load_lock
from streamstate.broker.node import HOST, SETTINGS, free_port
from streamstate.errors import BrokerUnavailable, ConfigError

VARIABLE = "STREAMSTATE_TEST_BROKER"
# Where the test processes of one run find the brokers that they share; set by the first of them.
RUN = "STREAMSTATE_TEST_RUN"
# Held by the first process of a run for as long as it lives.
RUNNING = "running"

_CONTROLLER_PORT = 9093
START_TIMEOUT = timedelta(seconds=120)


class Broker(Protocol):
    """What every kind of broker offers. An `EmbeddedBroker` also has ``kill()`` and ``restart()``."""

    @property
    def bootstrap_servers(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ExternalBroker:
    """A broker that somebody else starts and stops."""

    bootstrap_servers: str


@contextmanager
def acquire_broker(
    *, properties: Mapping[str, str] | None = None, environment: Mapping[str, str] = os.environ
) -> Iterator[Broker]:
    """A broker that answers, stopped afterwards if it was started here.

    Args:
        properties: broker settings to add; ignored for a broker that runs already.
        environment: where the choice is read from.
    """
    choice = environment.get(VARIABLE) or "embedded"
    if choice == "embedded":
        with EmbeddedBroker(properties=properties, start_timeout=START_TIMEOUT) as broker:
            yield broker
    elif choice == "testcontainers":
        with _container(properties or {}) as container:
            yield container
    elif ":" in choice:
        external = ExternalBroker(choice)
        await_broker(external.bootstrap_servers, timedelta(seconds=10))
        yield external
    else:
        raise ConfigError(f"{VARIABLE} is {choice!r}; it must be 'embedded', 'testcontainers' or 'host:port'.")


@contextmanager
def shared_broker(
    name: str, *, properties: Mapping[str, str], environment: Mapping[str, str] = os.environ
) -> Iterator[Broker]:
    """A broker that all test processes of this run share: started by the first that needs it, and stopped when the run
    ends. Only for tests that neither kill it nor look at what others have on it.

    Args:
        name: what it is called in this run; one for each set of properties.
        properties: broker settings to add; ignored for a broker that runs already.
        environment: where the choice and the run are read from.
    """
    run = environment.get(RUN)
    if run is None or environment.get(VARIABLE) not in (None, "", "embedded"):
        with acquire_broker(properties=properties, environment=environment) as broker:
            yield broker
        return
    address = Path(run, f"{name}.address")
    with Path(run, f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            _start_shared(Path(run), name, properties)
    yield ExternalBroker(address.read_text(encoding="utf-8"))


def _start_shared(run: Path, name: str, properties: Mapping[str, str]) -> None:
    """In a process of its own, so that it outlives the test process that needed it first."""
    said = run / f"{name}.said"
    command = [sys.executable, "-m", "tests.shared_broker", str(run), name, json.dumps(dict(properties))]
    with said.open("wb") as output:
        keeper = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[1],
            start_new_session=True,
        )

    def there() -> bool:
        if keeper.poll() is not None:
            raise BrokerUnavailable(f"the broker for all tests did not start: {said.read_text(errors='replace')}")
        return (run / f"{name}.address").exists()

    eventually(there, START_TIMEOUT, "the broker that all tests share")


def await_broker(bootstrap_servers: str, timeout: timedelta) -> None:
    """Returns when a broker at this address answers a metadata request."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    def answers() -> bool:
        try:
            return bool(admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    try:
        eventually(answers, timeout, "a metadata answer")
    except TimeoutError:
        raise BrokerUnavailable(f"No broker at {bootstrap_servers} answered within {timeout}.") from None


def eventually(condition: Callable[[], object], timeout: timedelta, what: str) -> None:
    """Returns as soon as the condition holds.

    Raises:
        TimeoutError: it did not hold within the time; the message says what was waited for.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout} for {what}.")
        time.sleep(0.02)


def container_image() -> str:
    """The official image of the version that the embedded broker runs."""
    return f"apache/kafka:{load_lock().kafka_version}"


def container_environment(port: int, properties: Mapping[str, str]) -> dict[str, str]:
    """The embedded broker's settings in the form that the official image reads.

    The image maps ``KAFKA_A_B`` to ``a.b``, and with any such variable set it forgets its own defaults.
    """
    settings = {
        **SETTINGS,
        # The same port inside and outside: the broker connects to itself at the address that it advertises.
        "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://{HOST}:{_CONTROLLER_PORT}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.quorum.voters": f"{SETTINGS['node.id']}@{HOST}:{_CONTROLLER_PORT}",
        # The directory that the image keeps in a volume.
        "log.dirs": "/var/lib/kafka/data",
        "num.partitions": "1",
        **properties,
    }
    return {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in settings.items()}


def new_container(factory: Callable[..., Any], port: int, properties: Mapping[str, str]) -> Any:
    """A container, not yet started, whose broker listens on 127.0.0.1 at this port.

    Args:
        factory: testcontainers' ``DockerContainer`` or what stands for it.
    """
    container = factory(container_image(), env=container_environment(port, properties))
    # The library's own methods publish on every interface of this machine.
    container.ports[f"{port}/tcp"] = (HOST, port)
    return container


@contextmanager
def _container(properties: Mapping[str, str]) -> Iterator[Broker]:
    from testcontainers.core.container import DockerContainer

    port = free_port(besides=_CONTROLLER_PORT)
    with new_container(DockerContainer, port, properties):
        broker = ExternalBroker(f"{HOST}:{port}")
        await_broker(broker.bootstrap_servers, START_TIMEOUT)
        yield broker
