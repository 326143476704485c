"""``streamstate config``: what holds, and who said so."""

from __future__ import annotations

import json
from typing import Any

import click

from streamstate.app.config import Entry
from streamstate_cli.loader import load_topology
from streamstate_cli.options import Given, json_option, setting_options

__all__ = ["config"]

NUMBERS = ("workers", "replication_factor")


@click.command()
@click.argument("target", metavar="[PATH[:ATTRIBUTE]]", required=False, type=click.Path())
@setting_options()
@json_option("Print one JSON object, for programs.")
def config(target: str | None, as_json: bool, **options: Any) -> None:
    """Show every setting and where it comes from, with secrets masked.

    Takes the options of `streamstate run`. With PATH, the application id is that of its topology. The output can be
    saved and given to --config.

    \b
    Examples:
      streamstate config
      streamstate config --config production.toml --commit-interval 1s
      STREAMSTATE_KAFKA_SASL_PASSWORD=... streamstate config topologies/word_count.py --json
    """
    configuration = Given.take(options).resolve()
    entries = list(configuration.entries)
    if target is not None:
        name = load_topology(target).name
        entries = [
            Entry(entry.name, name, f"default: the topology in {target}")
            if entry.name == "application_id" and not entry.value
            else entry
            for entry in entries
        ]
    if as_json:
        told = {e.name: {"value": e.value or None, "origin": e.origin, "secret": e.secret} for e in entries}
        click.echo(json.dumps(told, indent=2))
        return
    lines = [(_line(entry), entry.origin) for entry in entries if not entry.name.startswith("kafka.")]
    kafka = [(_line(entry), entry.origin) for entry in entries if entry.name.startswith("kafka.")]
    width = max(len(line) for line, _ in lines + kafka)
    for line, origin in lines:
        click.echo(f"{line:<{width}}  # {origin}")
    if kafka:
        click.echo("\n[kafka]")
    for line, origin in kafka:
        click.echo(f"{line:<{width}}  # {origin}")


def _line(entry: Entry) -> str:
    """An entry as TOML; commented out when it has no value or must not be read back."""
    name = entry.name
    if name.startswith("kafka."):
        name = json.dumps(name.removeprefix("kafka."))
    value = entry.value if name in NUMBERS else json.dumps(entry.value, ensure_ascii=False)
    if not entry.value:
        return f"# {name} ="
    return f"# {name} = {value}" if entry.secret else f"{name} = {value}"
