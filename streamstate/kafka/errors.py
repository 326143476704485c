"""From the client's errors to the engine's: named by what has to be done.

Rule of this module: every KafkaError maps to one port error; none is swallowed. Codes are librdkafka's.
"""

from __future__ import annotations

import re
from typing import Literal

from confluent_kafka import KafkaError, KafkaException

from streamstate.engine.ports import (
    AbortRequired,
    Fenced,
    LoginFailed,
    NotAuthorized,
    PortError,
    ProducerFatal,
    Refused,
    Retriable,
    Unavailable,
)

_NAMED_TOPIC = re.compile(r"""(?:partition "|ProduceRequest for |not available: )([\w.-]+)""")
Resource = Literal["topic", "group", "transactional-id", "cluster"]

# The group has moved on: what was read under the old generation belongs to somebody else now.
GROUP_MOVED = frozenset(
    code
    for name in (
        "ILLEGAL_GENERATION",
        "UNKNOWN_MEMBER_ID",
        "FENCED_INSTANCE_ID",
        "STALE_MEMBER_EPOCH",
        "FENCED_MEMBER_EPOCH",
        "UNRELEASED_INSTANCE_ID",
        "REBALANCE_IN_PROGRESS",
        # A coordinator that has just come back does not know the group until its members join again.
        "GROUP_ID_NOT_FOUND",
    )
    if (code := getattr(KafkaError, name, None)) is not None
)
PRODUCER_FENCED = frozenset(
    code
    for name in ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "TRANSACTION_COORDINATOR_FENCED")
    if (code := getattr(KafkaError, name, None)) is not None
)
NO_BROKER = frozenset(
    (
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        # A request that was lost with its connection. Whether the login itself was refused, ``error_cb`` tells.
        KafkaError._AUTHENTICATION,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.PREFERRED_LEADER_NOT_AVAILABLE,
    )
)
# The record itself is not acceptable: sending it again cannot help.
RECORD_REFUSED = frozenset(
    (
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    )
)
NOT_SETTLED = frozenset((KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError.CONCURRENT_TRANSACTIONS))
AUTHORIZATION = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    )
)


def kafka_error(error: KafkaException | KafkaError) -> KafkaError:
    """The KafkaError inside."""
    if isinstance(error, KafkaError):
        return error
    inner: KafkaError = error.args[0]
    return inner


def text(error: KafkaError) -> str:
    """Name and message, as shown to people."""
    return f"{error.name()}: {error.str()}"


def denied(what: str, resource: Resource, name: str, operation: str) -> NotAuthorized:
    """A denial that names the resource and the command that grants what is missing.

    >>> print(denied("no", "topic", "in", "Read"))
    Read on topic 'in' is denied (no). Grant it: kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal \
User:NAME --operation Read --topic in
    """
    return NotAuthorized.lacking(what, resource, name, operation)


def topic_in(error: KafkaError) -> str:
    """The topic that a denial names in its text only; ``TOPIC`` when it names none.

    >>> topic_in(KafkaError(29, "Subscribed topic not available: lines: Broker: Topic authorization failed"))
    'lines'
    """
    found = _NAMED_TOPIC.search(error.str())
    return found[1] if found else "TOPIC"


def transactional(error: KafkaException | KafkaError) -> PortError:
    """An error of the transactional producer. Its flags say more than its code."""
    inner = kafka_error(error)
    code, message = inner.code(), text(inner)
    if code in GROUP_MOVED:
        return Fenced(message)
    if code in PRODUCER_FENCED:
        return Fenced(message)
    # A client that was denied its transactional id calls that fatal, but a new client would be denied it too.
    if code in AUTHORIZATION:
        return NotAuthorized(message)
    if code == KafkaError.SASL_AUTHENTICATION_FAILED:
        return LoginFailed(message)
    if inner.fatal() or code == KafkaError._FATAL:
        return ProducerFatal(message)
    if code in RECORD_REFUSED:
        return Refused(message)
    if inner.txn_requires_abort():
        return AbortRequired(message)
    if inner.retriable() or code in NO_BROKER or code in NOT_SETTLED:
        return Retriable(message)
    # What is left says that the transaction has failed before; the client refuses everything but its end.
    return AbortRequired(message)


def general(error: KafkaException | KafkaError) -> PortError:
    """An error of a consumer or admin call."""
    inner = kafka_error(error)
    code, message = inner.code(), text(inner)
    if code in GROUP_MOVED:
        return Fenced(message)
    if code in NOT_SETTLED:
        return Retriable(message)
    if code in NO_BROKER:
        return Unavailable(message)
    if code in AUTHORIZATION:
        return NotAuthorized(message)
    if code == KafkaError.SASL_AUTHENTICATION_FAILED:
        return LoginFailed(message)
    if inner.retriable():
        return Retriable(message)
    return PortError(message)
