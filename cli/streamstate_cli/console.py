"""``streamstate produce`` and ``streamstate consume``: topics by hand, for the first five minutes and for a look.

Rule of this module: nothing here joins a consumer group or commits; looking at a topic changes nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click
from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from streamstate import serde
from streamstate.app import Settings, client_properties, explained
from streamstate.engine.ports import Output, Unavailable
from streamstate.errors import SerdeError, TopologyError
from streamstate.kafka import KafkaAdmin, KafkaProducer
from streamstate.kafka.errors import general
from streamstate.kafka.logs import client_logger
from streamstate_cli.logs import configure_logging, logging_options
from streamstate_cli.options import CONNECTION, Given, json_option, setting_options

__all__ = ["consume", "produce"]

BATCH = 1_000
FLUSH_MS = 60_000
POLL_S = 0.2
TIMEOUT_S = 15.0

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "string": lambda data: data.decode(errors="backslashreplace"),
    "bytes": bytes.hex,
    **{
        kind.name: kind.deserialize
        for kind in (serde.long(), serde.integer(), serde.short(), serde.double(), serde.float_(), serde.boolean())
    },
    "uuid": lambda data: str(serde.uuid().deserialize(data)),
    "date": lambda data: serde.date_().deserialize(data).isoformat(),
    "time": lambda data: serde.time_().deserialize(data).isoformat(),
    "datetime": lambda data: serde.datetime_().deserialize(data).isoformat(),
    "json": serde.json().deserialize,
}


@click.command()
@click.argument("topic")
@click.option("--key-separator", metavar="TEXT", help="What stands between key and value; without it, no keys.")
@setting_options(*CONNECTION)
@logging_options("warning")
def produce(topic: str, key_separator: str | None, log_level: str, **options: Any) -> None:
    """Send each line of stdin to TOPIC, as a UTF-8 value.

    Keys go to the partitions to which Kafka's Java clients send them. A line with --key-separator in it is cut at the
    first one.

    \b
    Examples:
      echo "to be or not to be" | streamstate produce lines
      printf 'UA:42\\nDL:7\\n' | streamstate produce delays --key-separator :
      streamstate produce lines                       then type; Ctrl-D ends
    """
    configure_logging(log_level)
    settings = Given.take(options).resolve().settings
    stdin = sys.stdin.buffer
    separator = key_separator.encode() if key_separator else None
    with explained(settings):
        _partitions(settings, topic)
        producer = KafkaProducer(client_properties(settings, "producer"))
        sent = 0
        try:
            for batch in _batches(stdin, interactive=sys.stdin.isatty()):
                producer.send([_output(topic, line, separator) for line in batch])
                sent += len(batch)
                if sys.stdin.isatty():
                    producer.flush(FLUSH_MS)
            producer.flush(FLUSH_MS)
        except KeyboardInterrupt:
            producer.flush(FLUSH_MS)
        finally:
            producer.close()
    click.echo(f"{sent:,} records sent to {topic}", err=True)


def _batches(lines: Any, *, interactive: bool) -> Iterator[list[bytes]]:
    if interactive:
        click.echo("One record per line; Ctrl-D ends.", err=True)
    batch: list[bytes] = []
    for line in lines:
        batch.append(line.rstrip(b"\r\n"))
        if interactive or len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _output(topic: str, line: bytes, separator: bytes | None) -> Output:
    key: bytes | None = None
    value = line
    if separator is not None and separator in line:
        key, _, value = line.partition(separator)
    return (topic, value, key, -1, None, None, None)


def _partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    found = KafkaAdmin(client_properties(settings, "admin")).topics([topic]).get(topic)
    if found is None:
        raise TopologyError(
            f"there is no topic {topic!r} at {settings.bootstrap_servers}. Create it with\n"
            f"  streamstate topics create {topic} --partitions 4 --bootstrap-servers {settings.bootstrap_servers}"
        )
    return [TopicPartition(topic, partition) for partition in range(found.partitions)]


@click.command()
@click.argument("topic")
@click.option("--from-beginning", is_flag=True, help="Also what is there already, not only what comes from now on.")
@click.option("--follow/--no-follow", default=True, help="Wait for more, until Ctrl-C; or print what is there and end "
              "(which implies --from-beginning).  [default: follow]")  # fmt: skip
@click.option("--max", "limit", type=click.IntRange(min=1), metavar="N", help="End after so many records.")
@click.option("--key", "key_type", type=click.Choice(list(DECODERS)), default="string", show_default=True,
              help="How keys are encoded; bytes are shown as hexadecimal digits.")  # fmt: skip
@click.option("--value", "value_type", type=click.Choice(list(DECODERS)), default="string", show_default=True,
              help="How values are encoded.")  # fmt: skip
@json_option("Print one JSON object per record, with topic, partition, offset, timestamp_ms, key, value and headers.")
@setting_options(*CONNECTION)
@logging_options("warning")
def consume(
    topic: str,
    from_beginning: bool,
    follow: bool,
    limit: int | None,
    key_type: str,
    value_type: str,
    as_json: bool,
    log_level: str,
    **options: Any,
) -> None:
    """Print the records of TOPIC: key, value and timestamp, with tabs between them.

    Reads committed records only: of open and aborted transactions nothing is shown. Records of one partition come in
    order.

    \b
    Examples:
      streamstate consume word-counts --from-beginning
      streamstate consume word-counts --no-follow --json
      streamstate consume counts --value long --max 10
    """
    configure_logging(log_level)
    settings = Given.take(options).resolve().settings
    decode_key, decode_value = DECODERS[key_type], DECODERS[value_type]
    count = 0
    try:
        with explained(settings):
            for message in _records(settings, topic, from_beginning=from_beginning or not follow, follow=follow):
                key = _decoded(message, "key", message.key(), decode_key, key_type)
                value = _decoded(message, "value", message.value(), decode_value, value_type)
                click.echo(_json(message, key, value) if as_json else _text(message, key, value))
                count += 1
                if count == limit:
                    break
    except KeyboardInterrupt:
        click.echo(f"{count:,} records", err=True)


def _records(settings: Settings, topic: str, *, from_beginning: bool, follow: bool) -> Iterator[Any]:
    partitions = _partitions(settings, topic)
    # Asked first: what is committed later is not waited for.
    ends = _committed_ends(settings, partitions)
    consumer = Consumer(
        {
            **client_properties(settings, "consumer"),
            # The client wants a name, but nothing joins or commits.
            "group.id": "streamstate-consume",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        },
        logger=client_logger(),
    )
    try:
        for partition in partitions:
            partition.offset = OFFSET_BEGINNING if from_beginning else ends[partition.partition]
        consumer.assign(partitions)
        unfinished = {number for number, end in ends.items() if end > 0}
        while follow or unfinished:
            message: Any
            for message in consumer.consume(BATCH, POLL_S):
                error = message.error()
                if error is None:
                    end = ends[message.partition()]
                    if follow or message.offset() < end:
                        yield message
                    if message.offset() + 1 >= end:
                        unfinished.discard(message.partition())
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                elif not isinstance(general(error), Unavailable):
                    raise general(error)
    finally:
        consumer.close()


def _committed_ends(settings: Settings, partitions: list[TopicPartition]) -> dict[int, int]:
    admin = AdminClient(client_properties(settings, "admin"), logger=client_logger())
    request = {partition: OffsetSpec.latest() for partition in partitions}  # type: ignore[no-untyped-call]
    futures = admin.list_offsets(request, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT_S)
    return {partition.partition: future.result(TIMEOUT_S + 1).offset for partition, future in futures.items()}


def _decoded(message: Any, part: str, data: bytes | None, decode: Callable[[bytes], Any], kind: str) -> Any:
    if data is None:
        return None
    try:
        return decode(data)
    except ValueError as error:
        raise SerdeError(
            f"topic {message.topic()!r}, partition {message.partition()}, offset {message.offset()}: the {part} "
            f"{data[:40]!r} is no {kind} ({error}). Try --{part} bytes"
        ) from None


def _text(message: Any, key: Any, value: Any) -> str:
    return f"{_word(key)}\t{_word(value)}\t{_time(message)}"


def _word(value: Any) -> str:
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(message: Any) -> str:
    kind, milliseconds = message.timestamp()
    if kind == 0:
        return "-"
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(message: Any, key: Any, value: Any) -> str:
    kind, milliseconds = message.timestamp()
    headers = [[name, None if data is None else DECODERS["string"](data)] for name, data in message.headers() or ()]
    return json.dumps(
        {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp_ms": milliseconds if kind else None,
            "key": key,
            "value": value,
            "headers": headers,
        },
        ensure_ascii=False,
    )
