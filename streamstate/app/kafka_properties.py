"""Refuse properties of Kafka clients that users must not set, and say what to use instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from streamstate.errors import ConfigError
from streamstate.kafka.consumer import READER_RULES
from streamstate.kafka.properties import unknown_to_the_client

__all__ = ["FIXED_PROPERTIES", "JAVA_ONLY", "KNOWN", "OWNED_PROPERTIES", "check_properties"]

# The guarantees rest on these values; other values are refused rather than ignored.
FIXED_PROPERTIES: dict[str, Any] = {
    **READER_RULES,
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
}
# What to do instead of giving one of them another value.
INSTEAD = {
    "auto.offset.reset": "Say where a source begins in the topology: stream(..., reset=\"latest\"), \"earliest\" or "
    "\"error\"; and with --out-of-range what happens when a committed offset is not in the log any more",
    "enable.auto.commit": "Input offsets are committed with the outputs and the state, every --commit-interval",
    "enable.auto.offset.store": "Input offsets are committed with the outputs and the state, every --commit-interval",
    "isolation.level": "Records of aborted transactions must not be counted. `streamstate consume` reads committed "
    "records, too",
    "enable.idempotence": "For less than exactly once use --processing-guarantee at_least_once, which keeps it",
    "acks": "For less than exactly once use --processing-guarantee at_least_once, which keeps it. How many replicas "
    "must have a record is min.insync.replicas of the topic",
    "partitioner": "A record must reach the task that owns its key. To choose the partitions of an output yourself, "
    "give it another key with select_key",
}  # fmt: skip
# Names under which librdkafka knows the same properties.
ALIASES = {
    "request.required.acks": "acks",
    "auto.commit.enable": "enable.auto.commit",
    "metadata.broker.list": "bootstrap.servers",
}
# Decided by settings of our own, or by the topology.
OWNED_PROPERTIES = {
    "group.id": "--application-id",
    "group.instance.id": "--instance-id",
    "group.protocol": "--group-protocol",
    "group.remote.assignor": "the topology (range where topics must meet, uniform elsewhere)",
    "client.id": "--application-id and --state-dir",
    "transactional.id": "--application-id and --state-dir",
    "transaction.timeout.ms": "--transaction-timeout",
    "bootstrap.servers": "--bootstrap-servers",
    "partition.assignment.strategy": "the topology (range where topics must meet, cooperative-sticky elsewhere)",
    "auto.commit.interval.ms": "--commit-interval",
}
# With --group-protocol consumer the broker decides these; the client would refuse them.
OF_THE_BROKER = {
    "session.timeout.ms": "group.consumer.session.timeout.ms",
    "heartbeat.interval.ms": "group.consumer.heartbeat.interval.ms",
}
_SERDE = "give serdes in the topology: stream(..., key=serde.string(), value=serde.json())"
_ON_ERROR = 'give on_error="fail", "continue" or dead_letter(TOPIC) in the topology'
_NO_STANDBY = "there are no standby copies of state: a task that moves restores from its changelog"
_STORE_MEMORY = "use --block-cache-size and --write-buffer-size"
_NOTHING = "leave it out: there is nothing to set"
_TLS = "leave it out: OpenSSL needs PEM files, without a type"
# Of Kafka Streams and the Java clients, by what people of theirs should do here.
JAVA_ONLY = {
    "application.id": "use --application-id",
    "application.server": "leave it out: there are no queries from outside",
    "num.stream.threads": "use --workers, which starts processes",
    "processing.guarantee": "use --processing-guarantee exactly_once or at_least_once",
    "commit.interval.ms": "use --commit-interval, with a unit: 100ms, 1s",
    "state.dir": "use --state-dir",
    "state.cleanup.delay.ms": "use --state-cleanup-delay, with a unit: 10m",
    "statestore.cache.max.bytes": 'use --cache-size; it emits nothing later, emit="commit" does',
    "cache.max.bytes.buffering": 'use --cache-size; it emits nothing later, emit="commit" does',
    "max.task.idle.ms": "use --max-task-idle, with a unit: 100ms",
    "task.timeout.ms": "use --broker-timeout, with a unit: 10m",
    "max.block.ms": "use --broker-timeout, with a unit: 10m",
    "default.api.timeout.ms": "use --broker-timeout, with a unit: 10m",
    "replication.factor": "use --replication-factor",
    "num.standby.replicas": _NO_STANDBY,
    "max.warmup.replicas": _NO_STANDBY,
    "acceptable.recovery.lag": _NO_STANDBY,
    "probing.rebalance.interval.ms": _NO_STANDBY,
    "default.key.serde": _SERDE,
    "default.value.serde": _SERDE,
    "key.serializer": _SERDE,
    "value.serializer": _SERDE,
    "key.deserializer": _SERDE,
    "value.deserializer": _SERDE,
    "default.timestamp.extractor": "give timestamp= of the source in the topology",
    "deserialization.exception.handler": _ON_ERROR,
    "default.deserialization.exception.handler": _ON_ERROR,
    "processing.exception.handler": _ON_ERROR,
    "production.exception.handler": _ON_ERROR,
    "default.production.exception.handler": _ON_ERROR,
    "errors.dead.letter.queue.topic.name": _ON_ERROR,
    "rocksdb.config.setter": _STORE_MEMORY,
    "default.dsl.store": "leave it out: state lives in RocksDB",
    "dsl.store.suppliers.class": "leave it out: state lives in RocksDB",
    "topology.optimization": _NOTHING,
    "upgrade.from": _NOTHING,
    "poll.ms": "leave it out: the size of a batch adapts to the time that records take",
    "max.poll.records": "leave it out: the size of a batch adapts to the time that records take",
    "buffered.records.per.partition": _NOTHING,
    "window.size.ms": "give the window's size in the topology: windows.tumbling(...)",
    "windowstore.changelog.additional.retention.ms": "give grace= and retention= of the window in the topology",
    "repartition.purge.interval.ms": _NOTHING,
    "metric.reporters": "use `streamstate run --json`, which prints the numbers once a second",
    "metrics.recording.level": "use `streamstate run --json`, which prints the numbers once a second",
    "metrics.num.samples": "use `streamstate run --json`, which prints the numbers once a second",
    "metrics.sample.window.ms": "use `streamstate run --json`, which prints the numbers once a second",
    "partitioner.class": "leave it out: keys go to partitions as Kafka's Java clients send them (murmur2)",
    "interceptor.classes": "leave it out: peek in the topology sees each record",
    "buffer.memory": "use producer.queue.buffering.max.kbytes",
    "max.request.size": "use producer.message.max.bytes",
    "fetch.max.wait.ms": "use consumer.fetch.wait.max.ms",
    "send.buffer.bytes": "use socket.send.buffer.bytes",
    "receive.buffer.bytes": "use socket.receive.buffer.bytes",
    "sasl.jaas.config": "use sasl.username and sasl.password",
    "sasl.login.callback.handler.class": "use sasl.oauthbearer.method=oidc and sasl.oauthbearer.token.endpoint.url",
    "sasl.client.callback.handler.class": "use sasl.oauthbearer.method=oidc and sasl.oauthbearer.token.endpoint.url",
    "ssl.truststore.location": "use ssl.ca.location, a PEM file",
    "ssl.truststore.certificates": "use ssl.ca.pem",
    "ssl.truststore.password": _TLS,
    "ssl.truststore.type": _TLS,
    "ssl.keystore.type": _TLS,
    "ssl.keystore.key": "use ssl.key.pem",
    "ssl.keystore.certificate.chain": "use ssl.certificate.pem",
    "ssl.protocol": "leave it out: the newest protocol that both sides speak is used",
    "ssl.enabled.protocols": "leave it out: the newest protocol that both sides speak is used",
}
CLIENTS = ("consumer", "producer", "admin")
# Of clients that Kafka Streams tells apart.
JAVA_PREFIXES = {"main.consumer": "consumer", "restore.consumer": "consumer", "global.consumer": "consumer"}
# Names to find the nearest of. Whether a name exists, the client itself says.
_NAMES = """
acks allow.auto.create.topics api.version.fallback.ms api.version.request api.version.request.timeout.ms
auto.commit.interval.ms auto.offset.reset batch.num.messages batch.size bootstrap.servers
broker.address.family broker.address.ttl broker.version.fallback check.crcs client.dns.lookup client.id
client.rack client.software.name client.software.version compression.codec compression.level compression.type
connections.max.idle.ms coordinator.query.interval.ms debug delivery.timeout.ms enable.auto.commit
enable.auto.offset.store enable.gapless.guarantee enable.idempotence enable.metrics.push enable.partition.eof
enable.random.seed enable.sasl.oauthbearer.unsecure.jwt enable.sparse.connections
enable.ssl.certificate.verification fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes
fetch.min.bytes fetch.queue.backoff.ms fetch.wait.max.ms group.id group.instance.id group.protocol
group.remote.assignor heartbeat.interval.ms https.ca.location https.ca.pem isolation.level linger.ms
log.connection.close log.thread.name log_level max.in.flight max.in.flight.requests.per.connection
max.partition.fetch.bytes max.poll.interval.ms message.copy.max.bytes message.max.bytes
message.send.max.retries message.timeout.ms metadata.broker.list metadata.max.age.ms
metadata.recovery.rebootstrap.trigger.ms metadata.recovery.strategy metadata.request.timeout.ms
partition.assignment.strategy partitioner plugin.library.paths queue.buffering.backpressure.threshold
queue.buffering.max.kbytes queue.buffering.max.messages queue.buffering.max.ms queued.max.messages.kbytes
queued.min.messages receive.message.max.bytes reconnect.backoff.jitter.ms reconnect.backoff.max.ms
reconnect.backoff.ms request.required.acks request.timeout.ms retries retry.backoff.max.ms retry.backoff.ms
sasl.kerberos.keytab sasl.kerberos.kinit.cmd sasl.kerberos.min.time.before.relogin sasl.kerberos.principal
sasl.kerberos.service.name sasl.mechanism sasl.mechanisms sasl.oauthbearer.assertion.algorithm
sasl.oauthbearer.assertion.claim.aud sasl.oauthbearer.assertion.claim.exp.seconds
sasl.oauthbearer.assertion.claim.iss sasl.oauthbearer.assertion.claim.jti.include
sasl.oauthbearer.assertion.claim.nbf.seconds sasl.oauthbearer.assertion.claim.sub
sasl.oauthbearer.assertion.file sasl.oauthbearer.assertion.jwt.template.file
sasl.oauthbearer.assertion.private.key.file sasl.oauthbearer.assertion.private.key.passphrase
sasl.oauthbearer.assertion.private.key.pem sasl.oauthbearer.client.credentials.client.id
sasl.oauthbearer.client.credentials.client.secret sasl.oauthbearer.client.id sasl.oauthbearer.client.secret
sasl.oauthbearer.config sasl.oauthbearer.extensions sasl.oauthbearer.grant.type
sasl.oauthbearer.metadata.authentication.type sasl.oauthbearer.method sasl.oauthbearer.scope
sasl.oauthbearer.sub.claim.name sasl.oauthbearer.token.endpoint.url sasl.password sasl.username
security.protocol session.timeout.ms share.acknowledgement.mode socket.connection.setup.timeout.ms
socket.keepalive.enable socket.max.fails socket.nagle.disable socket.receive.buffer.bytes
socket.send.buffer.bytes socket.timeout.ms ssl.ca.certificate.stores ssl.ca.location ssl.ca.pem
ssl.certificate.location ssl.certificate.pem ssl.cipher.suites ssl.crl.location ssl.curves.list
ssl.endpoint.identification.algorithm ssl.engine.id ssl.engine.location ssl.key.location ssl.key.password
ssl.key.pem ssl.keystore.location ssl.keystore.password ssl.providers ssl.sigalgs.list statistics.interval.ms
sticky.partitioning.linger.ms topic.metadata.propagation.max.ms topic.metadata.refresh.fast.cnt
topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.interval.ms topic.metadata.refresh.sparse
transaction.timeout.ms transactional.id
"""
KNOWN = frozenset(_NAMES.split())


def check_properties(
    properties: Mapping[str, Any], origins: Mapping[str, str] | None = None, group_protocol: str = "classic"
) -> None:
    """Refuse Kafka properties that other settings decide, that the guarantees rest on, or that no client knows.

    Args:
        properties: by name, with or without the prefix of a client.
        origins: where each property was set, by name; shown in the error.
        group_protocol: of the application.

    Raises:
        ConfigError: it is one of them; the message says what to use instead.

    >>> check_properties({"num.stream.threads": 4})
    Traceback (most recent call last):
    streamstate.errors.ConfigError: Kafka property 'num.stream.threads' is not known here, but to Kafka's Java \
libraries only: use --workers, which starts processes
    """
    for name, value in properties.items():
        refusal = next(_refusals(name, value, group_protocol), None)
        if refusal is not None:
            place = f"{origins[name]}: " if origins is not None else ""
            raise ConfigError(f"{place}Kafka property {name!r} {refusal}")


def _refusals(name: str, value: Any, group_protocol: str) -> Iterator[str]:
    """Yield why a property is refused, and what to use instead."""
    for prefix, client in JAVA_PREFIXES.items():
        if name.startswith(f"{prefix}."):
            yield f"has a prefix of Kafka Streams: use {client}.{name.removeprefix(prefix + '.')}"
    client, _, rest = name.partition(".")
    bare = rest if client in CLIENTS else name
    canonical = ALIASES.get(bare, bare)
    if canonical in OWNED_PROPERTIES:
        owner = OWNED_PROPERTIES[canonical]
        instead = f": use {owner}" if owner.startswith("--") else f": it follows from {owner}"
        yield f"cannot be set{instead}"
    if canonical in FIXED_PROPERTIES:
        fixed = str(FIXED_PROPERTIES[canonical]).lower()
        # -1 is another way to write all.
        if str(value).lower() not in (fixed, {"all": "-1", "true": "1", "false": "0"}.get(fixed)):
            instead = INSTEAD.get(canonical, "Leave it out")
            yield f"cannot be {str(value)!r}: the guarantees rest on {canonical}={fixed}. {instead}"
        return
    if bare in OF_THE_BROKER and group_protocol == "consumer":
        yield (
            f"cannot be set with --group-protocol consumer, in which the broker decides: set "
            f"{OF_THE_BROKER[bare]} there, or use --group-protocol classic"
        )
    if bare in JAVA_ONLY:
        yield f"is not known here, but to Kafka's Java libraries only: {JAVA_ONLY[bare]}"
    if bare not in KNOWN and unknown_to_the_client(bare):
        close = difflib.get_close_matches(bare.lower(), KNOWN, 1, 0.7)
        prefix = f"{client}." if bare != name else ""
        hint = f"did you mean {prefix}{close[0]}?" if close else "its documentation, CONFIGURATION.md, lists all names"
        yield f"is not known to the Kafka client (librdkafka): {hint}"
