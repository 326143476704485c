"""What clients report about their connections: told apart, and raised where no waiting mends it."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from streamstate.engine.ports import LoginFailed
from streamstate.kafka.events import ClientErrors, Kind, classified

REPORTS: list[tuple[int, str, Kind]] = [
    (KafkaError._AUTHENTICATION, "sasl_ssl://b:1/1: SASL authentication error: Authentication failed", "login"),
    (KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: no route", "token"),
    (KafkaError._SSL, "ssl://b:1/1: SSL handshake failed: certificate verify failed", "tls"),
    (KafkaError._SSL, "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", "protocol"),
    (KafkaError._RESOLVE, "b:1/1: Failed to resolve 'b:1': Name or service not known", "name"),
    (KafkaError._TRANSPORT, "b:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused", "refused"),
    (KafkaError._TRANSPORT, "Disconnected: might be caused by incorrect security.protocol configuration", "protocol"),
    (KafkaError._TRANSPORT, "b:1/1: Disconnected", "connection"),
    (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down", "connection"),
    (KafkaError._FAIL, "something", "other"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "message", "kind"), REPORTS)
def test_reports_are_told_apart(code: int, message: str, kind: Kind) -> None:
    error = KafkaError(code, message)
    assert classified(error) == kind
    errors = ClientErrors()
    errors(error)
    if kind in ("login", "tls"):
        with pytest.raises(LoginFailed, match="failed"):
            errors.check()
    else:
        errors.check()


def test_the_newest_reason_stays_when_all_brokers_are_down() -> None:
    errors = ClientErrors()
    errors(KafkaError(KafkaError._RESOLVE, "Failed to resolve 'b:1'"))
    errors(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert errors.last is not None
    assert errors.last[0] == "name"
