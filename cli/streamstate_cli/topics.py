"""``streamstate topics``: what it takes to have topics, without Kafka's own tools."""

from __future__ import annotations

import json
from typing import Any

import click

from streamstate.app import client_properties, explained
from streamstate.engine.ports import NewTopic
from streamstate.errors import TopologyError
from streamstate.kafka import KafkaAdmin
from streamstate_cli.logs import configure_logging, logging_options
from streamstate_cli.options import CONNECTION, Given, json_option, key_value_pairs, setting_options

__all__ = ["topics"]


@click.group()
def topics() -> None:
    """Create and list topics.

    \b
    Examples:
      streamstate topics create lines --partitions 4
      streamstate topics list
    """


@topics.command()
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--partitions", type=click.IntRange(min=1), metavar="N", help="By default the broker's.")
@click.option("--topic-config", multiple=True, metavar="KEY=VALUE", callback=key_value_pairs,
              help="A topic setting, such as retention.ms=-1. Repeatable.")  # fmt: skip
@setting_options(*CONNECTION, "replication_factor")
@logging_options("warning")
def create(
    names: tuple[str, ...], partitions: int | None, topic_config: dict[str, str], log_level: str, **options: Any
) -> None:
    """Create topics. One that exists already with as many partitions is left as it is.

    \b
    Examples:
      streamstate topics create lines --partitions 4
      streamstate topics create flights --partitions 4 --topic-config retention.ms=-1
      streamstate topics create lines words --partitions 6 --replication-factor 3 --bootstrap-servers kafka:9092
    """
    configure_logging(log_level)
    settings = Given.take(options).resolve().settings
    with explained(settings):
        admin = KafkaAdmin(client_properties(settings, "admin"))
        existing = admin.topics(names)
        for name, info in existing.items():
            if partitions is not None and info.partitions != partitions:
                raise TopologyError(
                    f"topic {name!r} exists with {info.partitions} partitions, not {partitions}. A topic's partition "
                    f"count is not changed here, because keys would move to other partitions: use another name, or "
                    f"delete the topic first"
                )
            click.echo(f"{name} exists, {info.partitions} partitions")
        admin.create(
            [
                NewTopic(name, partitions, settings.replication_factor, topic_config)
                for name in dict.fromkeys(names)
                if name not in existing
            ]
        )
        for name, info in admin.topics(names).items():
            if name not in existing:
                click.echo(f"{name} created, {info.partitions} partitions")


@topics.command("list")
@click.option("--all", "everything", is_flag=True, help="Also topics of Kafka itself, such as __consumer_offsets.")
@json_option("Print one JSON object per topic and line.")
@setting_options(*CONNECTION)
@logging_options("warning")
def list_(everything: bool, as_json: bool, log_level: str, **options: Any) -> None:
    """List topics with their partition counts.

    \b
    Examples:
      streamstate topics list
      streamstate topics list --json --bootstrap-servers kafka:9092
    """
    configure_logging(log_level)
    settings = Given.take(options).resolve().settings
    with explained(settings):
        admin = KafkaAdmin(client_properties(settings, "admin"))
        found = admin.topics(name for name in admin.topic_names() if everything or not name.startswith("__"))
    width = max((len(name) for name in found), default=0)
    for name, info in sorted(found.items()):
        if as_json:
            click.echo(json.dumps({"topic": name, "partitions": info.partitions, "topic_id": info.topic_id}))
        else:
            click.echo(f"{name:<{width}}  {info.partitions:>4} partitions")
    if not found and not as_json:
        click.echo("No topics. Create one: streamstate topics create TOPIC --partitions 4", err=True)
