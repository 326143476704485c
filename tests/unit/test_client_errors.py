"""What clients report about their connections: told apart, and raised where no waiting mends it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamstate.engine.ports import AbortRequired, LoginFailed, NotAuthorized, Unavailable, Unreachable
from streamstate.kafka import KafkaProducer, events, producer
from streamstate.kafka.events import ClientErrors, Kind, classified

REPORTS: list[tuple[int, str, Kind]] = [
    (KafkaError._AUTHENTICATION, "sasl_ssl://b:1/1: SASL authentication error: Authentication failed", "login"),
    (KafkaError._AUTHENTICATION, "b:1/1: SASL PLAIN mechanism handshake failed: Local: Broker transport failure: "
     "broker's supported mechanisms: (n/a) (after 0ms in state DOWN)", "connection"),
    (KafkaError._AUTHENTICATION, "b:1/1: SASL OAUTHBEARER mechanism handshake failed: Broker: Request not valid in "
     "current SASL state: broker's supported mechanisms:", "connection"),
    (KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: no route", "token"),
    (KafkaError._SSL, "ssl://b:1/1: SSL handshake failed: certificate verify failed", "tls"),
    (KafkaError._SSL, "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", "protocol"),
    (KafkaError._RESOLVE, "b:1/1: Failed to resolve 'b:1': Name or service not known", "name"),
    (KafkaError._TRANSPORT, "b:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused", "refused"),
    (KafkaError._TRANSPORT, "Disconnected: might be caused by incorrect security.protocol configuration", "protocol"),
    (KafkaError._TRANSPORT, "ssl://b:1/1: Disconnected: closed by peer (after 4ms in state SSL_HANDSHAKE)", "protocol"),
    (KafkaError._TRANSPORT, "SSL handshake failed: reset: connecting to a PLAINTEXT broker listener?", "protocol"),
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


def all_down(errors: ClientErrors) -> None:
    errors(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))


REFUSED = KafkaError(KafkaError._TRANSPORT, "b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused")


def test_a_call_is_given_up_only_after_a_while_with_no_broker_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(events, "monotonic", lambda: now[0])
    errors = ClientErrors()
    errors(REFUSED)
    now[0] += 10
    errors.check(100.0)  # another broker may answer
    all_down(errors)
    with pytest.raises(Unavailable, match="nothing listens at b:1"):
        errors.check(100.0)
    errors.check(now[0])  # begun just now
    errors.check(101.0)  # nothing was said since
    errors.check()  # nobody waits
    errors.answered()
    errors.check(100.0)


def test_a_peer_that_hangs_up_is_known_from_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamstate.librdkafka")
    errors = ClientErrors({"security.protocol": "plaintext"})
    begun = monotonic()
    line = "b:1/bootstrap: Disconnected: connection reset by peer (after 1ms in state APIVERSION_QUERY)"
    errors.log(logging.INFO, "%s [%s] [thrd:x]: %s", "FAIL", "me", line)
    reason = errors.reason(begun)
    assert isinstance(reason, Unreachable)
    assert "hangs up on security.protocol=PLAINTEXT" in str(reason)
    assert [record.name for record in caplog.records] == ["streamstate.librdkafka"]


def test_other_lines_of_the_log_are_no_reasons() -> None:
    errors = ClientErrors()
    errors.log(logging.WARNING, "%s [%s] [thrd:app]: %s", "CONFWARN", "me", "Disconnected is a word here")
    assert errors.last is None


def test_a_client_that_loses_its_brokers_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    errors = ClientErrors(warn=True)
    for _ in range(3):
        errors(REFUSED)
        all_down(errors)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "nothing listens at b:1 (connection refused)" in warnings[0]


def test_a_listener_without_logins() -> None:
    errors = ClientErrors({"security.protocol": "SASL_PLAINTEXT"})
    said = "sasl_plaintext://b:1/bootstrap: handshake failed: Broker: Request not valid in current SASL state"
    errors(KafkaError(KafkaError._AUTHENTICATION, said))
    with pytest.raises(
        LoginFailed, match=r"takes no logins: it wants security\.protocol=PLAINTEXT, not SASL_PLAINTEXT"
    ):
        errors.check()


def told_by_the_log(status: int) -> ClientErrors:
    errors = ClientErrors()
    answer = f'Failed to retrieve OIDC token from "http://t:1/token": {{"error": "no"}} ({status})'
    errors.log(logging.ERROR, "%s [%s] [thrd:background]: %s", "OIDC", "me", answer)
    return errors


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_token_endpoint_that_refuses_is_a_failed_login(status: int) -> None:
    with pytest.raises(LoginFailed, match=f"^Failed to retrieve OIDC token .* \\({status}\\)$"):
        told_by_the_log(status).check()


@pytest.mark.parametrize("status", [-1, 200, 408, 429, 500, 503])
def test_a_token_endpoint_that_is_out_of_order_is_none(status: int) -> None:
    told_by_the_log(status).check()


NO_TOKEN = KafkaError(KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: could not connect")


def test_without_a_token_a_call_is_given_up_although_no_broker_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(events, "monotonic", lambda: now[0])
    errors = ClientErrors()
    errors(NO_TOKEN)
    errors.check(100.0)
    now[0] += 2
    with pytest.raises(Unreachable, match="could not connect"):
        errors.check(100.0)


def test_the_lack_of_a_token_is_the_reason_of_connections_that_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(events, "monotonic", lambda: now[0])
    errors = ClientErrors(warn=True)
    errors(NO_TOKEN)
    assert "the login cannot be renewed: Failed to acquire" in caplog.text
    lost = KafkaError(KafkaError._TRANSPORT, "b:1/1: Disconnected")
    errors(lost)
    assert errors.last is not None
    assert errors.last[0] == "token"
    now[0] += 60
    errors(lost)
    assert errors.last[0] == "connection"


def test_only_the_log_names_a_topic_that_a_transaction_may_not_write() -> None:
    errors = ClientErrors()
    form = 'TxnCoordinator/1: Failed to add partition "%s" [1] to transaction: Broker: %s authorization failed'
    errors.log(logging.ERROR, form, "other", "Transactional Id")
    assert errors.denied_topic is None
    errors.log(logging.ERROR, form, "a.b-c", "Topic")
    assert errors.denied_topic == "a.b-c"


class Transactional:
    """In place of the client: its transaction has failed, and the log has said why."""

    def __init__(self, settings: dict[str, Any], logger: ClientErrors) -> None:
        self.logger = logger
        self.told: list[str] = []

    def poll(self, timeout: float) -> int:
        for topic in self.told:
            self.logger.log(
                logging.ERROR,
                'Failed to add partition "%s" [0] to transaction: Broker: Topic authorization failed',
                topic,
            )
        return 0

    def abort_transaction(self, timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE))

    def begin_transaction(self) -> None:
        """Succeeds."""


def test_a_transaction_without_a_right_is_denied_whatever_its_abort_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker refuses to abort a transaction that it has not let begin."""
    monkeypatch.setattr(producer, "Producer", Transactional)
    kafka = KafkaProducer({}, transactional_id="app-0")
    kafka.begin()
    with pytest.raises(AbortRequired):
        kafka.abort(1_000)
    client: Any = kafka._producer
    client.told.append("out")
    for call in (lambda: kafka.abort(1_000), kafka.begin):
        with pytest.raises(NotAuthorized, match=r"^Write on topic 'out' is denied"):
            call()


def test_a_fatal_denial_that_the_next_poll_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "Producer", Transactional)
    kafka = KafkaProducer({}, transactional_id="app-0")

    def poll(timeout: float) -> int:
        raise KafkaException(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "denied", True))

    monkeypatch.setattr(kafka._producer, "poll", poll)
    for call in (lambda: kafka.abort(1_000), kafka.begin):
        with pytest.raises((NotAuthorized, AbortRequired)) as failed:
            call()
    assert str(failed.value).startswith("Write on transactional-id 'app-0' is denied")


def test_offsets_of_an_input_without_a_right_are_left_to_the_consumer_which_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(producer, "Producer", Transactional)
    kafka = KafkaProducer({}, transactional_id="app-0")
    said = "Failed to commit offsets to transaction on broker b:1/1: Broker: Topic authorization failed"
    refused = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, said))
    assert isinstance(kafka._named(refused), AbortRequired)
