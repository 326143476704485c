"""The properties of the Kafka clients: the user's, over the defaults of this package."""

from __future__ import annotations

from typing import Any, Literal

from streamstate.app.settings import Settings
from streamstate.kafka.tokens import TokenSource

__all__ = ["CONSUMER_DEFAULTS", "client_properties"]

# Members notice a rebalance with a heartbeat. At the client's default of 3 s, tasks that move would rest for several
# seconds.
CONSUMER_DEFAULTS = {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 500}


def client_properties(
    settings: Settings, client: Literal["consumer", "producer", "admin"], name: str = "streamstate"
) -> dict[str, Any]:
    """Properties for one kind of Kafka client.

    Args:
        settings: where to find the cluster, and what the user wants every client to be told.
        client: the kind.
        name: shown in the broker's logs.

    Raises:
        LoginFailed: the function that gives an application's tokens has none for the client that is made next.
    """
    found: dict[str, Any] = {"bootstrap.servers": settings.bootstrap_servers, "client.id": name}
    if client == "consumer":
        found["allow.auto.create.topics"] = False
    if settings.oauth_cb is not None:
        found["oauth_cb"] = settings.oauth_cb
    for key, value in settings.kafka.items():
        kind, _, rest = key.partition(".")
        if kind not in ("consumer", "producer", "admin"):
            found.setdefault(key, value)
        elif kind == client:
            found[rest] = value
    if isinstance(settings.oauth_cb, TokenSource):
        settings.oauth_cb.prepare(str(found.get("sasl.oauthbearer.config", "")))
    return found
