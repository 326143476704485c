"""The tests' choice of a broker. The container itself needs a container engine; what is asked of it does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

from streamstate.errors import BrokerUnavailable, ConfigError
from tests import broker_support
from tests.broker_support import VARIABLE, acquire_broker, eventually, new_container


class FakeContainer:
    def __init__(self, image: str, env: dict[str, str]) -> None:
        self.image = image
        self.env = env
        self.ports: dict[str, Any] = {}


def test_the_container_is_published_on_loopback_under_the_port_it_advertises() -> None:
    container = new_container(FakeContainer, 19092, {"log.retention.ms": "-1"})
    assert container.image.startswith("apache/kafka:4.")
    assert container.ports == {"19092/tcp": ("127.0.0.1", 19092)}
    assert container.env["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:19092"
    assert "PLAINTEXT://0.0.0.0:19092" in container.env["KAFKA_LISTENERS"]
    assert container.env["KAFKA_LOG_RETENTION_MS"] == "-1"


def test_the_real_container_class_takes_what_is_asked_of_it() -> None:
    container_module = pytest.importorskip("testcontainers.core.container")
    accepted = container_module.DockerContainer.__init__.__annotations__
    assert {"image", "env"} <= set(accepted)


class Choices:
    """Stands for the three ways and notes which one was taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[str] = []
        monkeypatch.setattr(broker_support, "EmbeddedBroker", lambda **_: self.note("embedded"))
        monkeypatch.setattr(broker_support, "_container", lambda _: self.note("container"))
        monkeypatch.setattr(broker_support, "await_broker", lambda address, _: self.taken.append(address))

    def note(self, name: str) -> Any:
        self.taken.append(name)
        return nullcontext(broker_support.ExternalBroker(name))


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Choices]:
    return Choices(monkeypatch)


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (None, "embedded"),
        ("", "embedded"),
        ("embedded", "embedded"),
        ("testcontainers", "container"),
        ("localhost:9092", "localhost:9092"),
    ],
)
def test_the_variable_chooses(choices: Choices, value: str | None, taken: str) -> None:
    environment = {} if value is None else {VARIABLE: value}
    with acquire_broker(environment=environment) as broker:
        assert broker.bootstrap_servers == taken
    assert choices.taken == [taken]


def test_another_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=VARIABLE), acquire_broker(environment={VARIABLE: "podman"}):
        pass


def test_a_broker_that_does_not_answer_is_told() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(BrokerUnavailable, match=address):
            broker_support.await_broker(address, timedelta(seconds=0.1))


def test_eventually_gives_up() -> None:
    with pytest.raises(TimeoutError, match="what never comes"):
        eventually(lambda: False, timedelta(seconds=0.05), "what never comes")
