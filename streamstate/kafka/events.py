"""What a client says about its connections, outside any call: kept, classified, and raised by the next call.

librdkafka tries every connection again for ever and reports each failure to ``error_cb``. Some failures no waiting
mends (a wrong password, a certificate that is not trusted); a call that only times out would hide them for minutes.
"""

from __future__ import annotations

from typing import Literal

from confluent_kafka import KafkaError

from streamstate.engine.ports import LoginFailed
from streamstate.kafka.errors import text

__all__ = ["ClientErrors", "Kind", "classified"]

Kind = Literal["login", "token", "tls", "name", "refused", "protocol", "connection", "other"]

# Kinds that end the application at once; the others may pass.
FATAL: frozenset[Kind] = frozenset(("login", "tls"))
_TOKEN = "Failed to acquire SASL OAUTHBEARER token"
# A handshake that is only cut off may be a broker that stops, or a listener that speaks no TLS.
_CUT_OFF = ("Disconnected", "Connection reset", "connecting to a PLAINTEXT broker listener", "timed out")


def classified(error: KafkaError) -> Kind:
    """The kind of a failure that a client reports about a connection.

    >>> classified(KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed"))
    'login'
    >>> classified(KafkaError(KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused"))
    'refused'
    """
    code, message = error.code(), error.str()
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        return "token" if _TOKEN in message else "login"
    if code == KafkaError._SSL:
        return "protocol" if any(part in message for part in _CUT_OFF) else "tls"
    if code == KafkaError._RESOLVE:
        return "name"
    if code == KafkaError._TRANSPORT:
        if "Connection refused" in message:
            return "refused"
        # Also said by librdkafka itself: "might be caused by incorrect security.protocol configuration".
        return "protocol" if "security.protocol" in message else "connection"
    return "connection" if code == KafkaError._ALL_BROKERS_DOWN else "other"


class ClientErrors:
    """What one client has reported. It is the client's ``error_cb``, called within its polls.

    Attributes:
        last: kind and text of the newest report that says why a connection failed; None before.
    """

    def __init__(self) -> None:
        self.last: tuple[Kind, str] | None = None
        self._fatal: LoginFailed | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take a report; never raises, because it would unwind through the client."""
        kind = classified(error)
        if kind != "other" and error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = kind, text(error)
        if kind in FATAL:
            self._fatal = LoginFailed(text(error))

    def check(self) -> None:
        """Raise what no waiting mends.

        Raises:
            LoginFailed: a login or a TLS handshake has failed.
        """
        if self._fatal is not None:
            raise self._fatal
