"""What a client says about its connections, outside any call: kept, classified, and raised by the next call.

librdkafka tries every connection again for ever and reports each failure to ``error_cb``. Some failures no waiting
mends (a wrong password, a certificate that is not trusted); a call that only times out would hide them for minutes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from time import monotonic
from typing import Any, Literal

from confluent_kafka import KafkaError

from streamstate.engine.ports import LoginFailed, Unavailable, Unreachable
from streamstate.kafka.errors import text
from streamstate.kafka.logs import client_logger

__all__ = ["ClientErrors", "Kind", "classified"]

Kind = Literal["login", "token", "tls", "name", "refused", "protocol", "connection", "other"]

# Kinds that end the application at once; the others may pass.
FATAL: frozenset[Kind] = frozenset(("login", "tls"))
_TOKEN = "Failed to acquire SASL OAUTHBEARER token"
# What the log says of a token endpoint that has refused: a client's id or secret that is wrong stays wrong; too many
# requests (429) and a time-out (408) pass.
_TOKEN_REFUSED = re.compile(r"Failed to retrieve OIDC token .*\((?!408|429)4\d\d\)\s*$", re.DOTALL)
# How long after it the lack of a token is the reason of whatever else fails; the client asks for one every 10 s.
_TOKEN_LACKS_S = 12.0
# Only the log names a topic that a transaction may not write.
_DENIED = re.compile(r'Failed to add partition "([^"]+)" \[\d+\] to transaction: .*Topic authorization failed')
# A connection that was lost in the middle of a login, as by a broker that stops.
_LOST = "handshake failed: Local: "
# A handshake that is only cut off may be a broker that stops, or a listener that speaks no TLS.
_CUT_OFF = ("Disconnected", "Connection reset", "connecting to a PLAINTEXT broker listener", "timed out")
# What a listener without SASL answers to a login; and one with SASL, to a second login within a second.
_NO_SASL = "Request not valid in current SASL state"
# A peer that closes before it has answered anything speaks another protocol, or stops just now.
_EARLY = (
    "in state SSL_HANDSHAKE",
    "in state APIVERSION_QUERY",
    "security.protocol",
    "PLAINTEXT broker listener",
)
# The client tries again after a tenth of a second, and after a second: a broker that is just being restarted is back
# by then, often enough.
PATIENCE_S = 1.2
WARNING_INTERVAL_S = 60.0

log = logging.getLogger("streamstate.kafka")


def classified(error: KafkaError) -> Kind:
    """The kind of a failure that a client reports about a connection.

    >>> classified(KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed"))
    'login'
    >>> classified(KafkaError(KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused"))
    'refused'
    """
    code, message = error.code(), error.str()
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        if _TOKEN in message:
            return "token"
        # Only the first connection of a client can meet a listener that takes no logins at all.
        too_soon = _NO_SASL in message and "/bootstrap: " not in message
        return "connection" if too_soon or _LOST in message else "login"
    if code == KafkaError._SSL:
        return "protocol" if any(part in message for part in _CUT_OFF) else "tls"
    if code == KafkaError._RESOLVE:
        return "name"
    if code == KafkaError._TRANSPORT:
        if "Connection refused" in message:
            return "refused"
        return "protocol" if any(part in message for part in _EARLY) else "connection"
    return "connection" if code == KafkaError._ALL_BROKERS_DOWN else "other"


def explained(kind: Kind, message: str, security_protocol: str) -> str:
    """What a report means, in words for people.

    Args:
        kind: as classified.
        message: of the client; it begins with the address of the broker and, behind a slash, its number.
        security_protocol: of the client.

    >>> explained("refused", "kafka:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused", "SSL")
    'nothing listens at kafka:9092 (connection refused)'
    """
    found = re.match(r"(?:\w+://)?(\S+)/(bootstrap|-?\d+): ", message)
    if found is None:
        return message
    address, node = found.groups()
    advertised = "" if node == "bootstrap" else f"; broker {node} says that it is there: see its advertised.listeners"
    if kind == "refused":
        return f"nothing listens at {address} (connection refused){advertised}"
    if kind == "name":
        host = address.rpartition(":")[0]
        return f"the host name {host!r} does not resolve{advertised or '. Check --bootstrap-servers'}"
    if kind == "login" and _NO_SASL in message:
        other = "SSL" if security_protocol == "SASL_SSL" else "PLAINTEXT"
        return f"the listener at {address} takes no logins: it wants security.protocol={other}, not {security_protocol}"
    if kind == "protocol":
        secured = security_protocol in ("SSL", "SASL_SSL")
        others = "PLAINTEXT or SASL_PLAINTEXT" if secured else "SSL or SASL_SSL"
        return (
            f"the listener at {address} hangs up on security.protocol={security_protocol} before it answers: it "
            f"speaks another one, it seems. Try --set security.protocol= with {others}"
        )
    if kind == "connection" and "Disconnected" in message:
        return (
            f"{address} closes the connection: it stops, or wants another security.protocol than {security_protocol}, "
            f"with a login perhaps"
        )
    return message


class ClientErrors:
    """What one client has reported. It is the client's ``error_cb`` and its ``logger``, called within its polls.

    Args:
        properties: of the client.
        warn: say in the log when the client has lost all brokers.

    Attributes:
        last: kind and text of the newest report that says why a connection failed; None before.
        denied_topic: one that a transaction of this client may not write; None before.
    """

    def __init__(self, properties: Mapping[str, Any] | None = None, *, warn: bool = False) -> None:
        self.last: tuple[Kind, str] | None = None
        self.denied_topic: str | None = None
        self._protocol = str((properties or {}).get("security.protocol", "PLAINTEXT")).upper()
        self._warn = warn
        self._warned_at = -WARNING_INTERVAL_S
        self._told_at = 0.0
        self._all_down = False
        self._fatal: LoginFailed | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take a report; never raises, because it would unwind through the client."""
        kind = classified(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._all_down = True
            self._say()
        elif kind != "other":
            self._take(kind, error.str())
        if kind == "token":
            self._say()
        if kind in FATAL:
            self._fatal = LoginFailed(self._words(kind, text(error), error.str()))

    def log(self, level: int, form: str, *arguments: Any) -> None:
        """Take a line of the client's log and hand it on. Only the log tells of a peer that closed a connection.

        See ``logging.Logger.log``.
        """
        line = form % arguments if arguments else form
        if "FAIL" in line and "Disconnected" in line:
            # Behind the names of the client and of its thread.
            message = line.rpartition("]: ")[2]
            self._take("protocol" if any(part in message for part in _EARLY) else "connection", message)
        elif (denied := _DENIED.search(line)) is not None:
            self.denied_topic = denied[1]
        elif _TOKEN_REFUSED.search(line):
            self._fatal = LoginFailed(line.rpartition("]: ")[2])
        # What it means is said elsewhere, as a warning or by the error that ends it all.
        client_logger().log(min(level, logging.INFO) if "FAIL" in line else level, form, *arguments)

    def answered(self) -> None:
        """A broker has answered."""
        self._all_down = False

    def check(self, since: float | None = None) -> None:
        """Raise what no waiting mends, and what the caller need not wait for.

        Args:
            since: the monotonic time in seconds at which the call began that waits for an answer; None: none waits.

        Raises:
            LoginFailed: a login or a TLS handshake has failed.
            Unavailable: the call has waited for a while, no broker is reached, and the client has said why.
        """
        if self._fatal is not None:
            raise self._fatal
        # Without a token the client does not even try a broker.
        cut_off = self._all_down or (self.last is not None and self.last[0] == "token")
        if since is not None and cut_off and monotonic() - since >= PATIENCE_S:
            reason = self.reason(since)
            if reason is not None:
                raise reason

    def reason(self, since: float) -> Unavailable | None:
        """Why no broker has answered, if the client has said so since then (monotonic seconds)."""
        if self.last is None or self._told_at < since:
            return None
        kind, message = self.last
        said = self._words(kind, message, message)
        return Unavailable(said) if kind == "refused" else Unreachable(said)

    def _words(self, kind: Kind, otherwise: str, message: str) -> str:
        said = explained(kind, message, self._protocol)
        return otherwise if said == message else said

    def _take(self, kind: Kind, message: str) -> None:
        lacks_token = self.last is not None and self.last[0] == "token" and monotonic() - self._told_at < _TOKEN_LACKS_S
        if lacks_token and kind in ("connection", "protocol"):
            return
        self.last = kind, message
        self._told_at = monotonic()

    def _say(self) -> None:
        if self._warn and self.last is not None and monotonic() - self._warned_at >= WARNING_INTERVAL_S:
            self._warned_at = monotonic()
            what = "the login cannot be renewed" if self.last[0] == "token" else "no broker is reached"
            log.warning("%s: %s. The client keeps trying", what, self._words(*self.last, self.last[1]))
