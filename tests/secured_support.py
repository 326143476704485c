"""A secured broker for tests: SASL_SSL for clients, KRaft's authorizer, and no rights but those that a test grants.

The PLAINTEXT listener of the embedded broker stays, on loopback, for the tests themselves: its anonymous principal is
the only super user.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from streamstate.broker import EmbeddedBroker
from streamstate.broker.node import HOST, free_port

PASSWORD = "correct-horse"
USERS = ("app", "stranger")
_LISTENER = "listener.name.client"
_MODULES = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Secured:
    """A running secured broker.

    Attributes:
        embedded: the broker itself; its ``bootstrap_servers`` are of the super user.
        bootstrap_servers: of the SASL_SSL listener.
        ca: the certificate that clients must trust.
    """

    embedded: EmbeddedBroker
    bootstrap_servers: str
    ca: Path

    def kafka(self, mechanism: str = "PLAIN", user: str = "app", password: str = PASSWORD) -> dict[str, str]:
        """Kafka properties of a client that logs in."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.ca),
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
        }

    def admin(self) -> AdminClient:
        """A client of the super user."""
        return AdminClient({"bootstrap.servers": self.embedded.bootstrap_servers, "log_level": 0})


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback address: the file that clients trust, and key and certificate in one,
    as a broker's PEM key store."""
    ca, key, store = (directory / f"{name}.{kind}.pem" for kind in ("ca", "key", "store"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=IP:{HOST}", "-keyout", str(key), "-out", str(ca)],
        check=True, capture_output=True,
    )  # fmt: skip
    store.write_text(key.read_text() + ca.read_text())
    return ca, store


@contextmanager
def secured_broker(
    directory: Path, properties: Mapping[str, str] | None = None, users: Sequence[str] = ()
) -> Iterator[Secured]:
    """A secured broker with the users ``USERS``, who have no rights.

    Args:
        directory: for certificates.
        properties: broker settings to add.
        users: more of them, for SASL PLAIN only.
    """
    ca, store = certificate(directory, "broker")
    port, controller, client = free_port(), free_port(), free_port()
    known = " ".join(f'user_{user}="{PASSWORD}"' for user in (*USERS, *users))
    settings = {
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller},CLIENT://{HOST}:{client}",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENT:SASL_SSL",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        f"{_LISTENER}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        f"{_LISTENER}.plain.sasl.jaas.config": f"{_MODULES}.plain.PlainLoginModule required {known};",
        f"{_LISTENER}.scram-sha-256.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{_LISTENER}.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{_LISTENER}.oauthbearer.sasl.jaas.config": (
            f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        ),
        # See tests/shared_broker.py.
        "broker.session.timeout.ms": "60000",
        f"{_LISTENER}.scram-sha-256.connections.max.reauth.ms": "2000",
        # With it, a session ends with its token.
        f"{_LISTENER}.oauthbearer.connections.max.reauth.ms": "3600000",
        **(properties or {}),
    }
    with EmbeddedBroker(port=port, properties=settings, start_timeout=timedelta(seconds=120)) as embedded:
        secured = Secured(embedded, f"{HOST}:{client}", ca)
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        changes = [UserScramCredentialUpsertion(user, credential, PASSWORD.encode()) for user in USERS]
        admin = secured.admin()
        for done in admin.alter_user_scram_credentials(changes).values():
            done.result(30)
        yield secured


def unsecured_token(subject: str, lifetime_s: float) -> tuple[str, float]:
    """A JWS without a signature, which Kafka's validator for development takes, and when it expires."""
    now = time.time()
    claims = {"sub": subject, "iat": now, "exp": now + lifetime_s}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
    return b".".join([*parts, b""]).decode(), now + lifetime_s
