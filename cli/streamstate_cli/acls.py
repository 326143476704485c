"""``streamstate acls``: the rights an application needs, for people, for programs, and granted."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from streamstate.app import client_properties, explained
from streamstate.app.acls import commands, least_acls
from streamstate.errors import ConfigError
from streamstate.kafka import KafkaAdmin
from streamstate_cli.loader import load_topology
from streamstate_cli.logs import configure_logging, logging_options
from streamstate_cli.options import CONNECTION, Given, json_option, setting_options

__all__ = ["acls"]


@click.command()
@click.argument("target", metavar="PATH[:ATTRIBUTE]", type=click.Path())
@click.option("--principal", metavar="USER:NAME", help="Who gets them.  [default: User: and the application id]")
@click.option("--host", default="*", metavar="ADDRESS", help="From where; an address, or * for everywhere.")
@click.option("--apply", "grant", is_flag=True, help="Grant them. Needs ALTER on the cluster, and --principal.")
@json_option("Print one JSON object per right and line.")
@setting_options(*CONNECTION, "application_id", "processing_guarantee")
@logging_options("warning")
def acls(
    target: str, principal: str | None, host: str, grant: bool, as_json: bool, log_level: str, **options: Any
) -> None:
    """Print the rights that a topology needs on a secured cluster, as commands of Kafka's own tool.

    They are enough for `streamstate run` and `streamstate reset`, and no broker is asked without --apply.

    \b
    Examples:
      streamstate acls topologies/word_count.py --principal User:word-count
      streamstate acls topologies/word_count.py --json
      streamstate acls topologies/word_count.py --principal User:word-count --apply --config admin.toml
    """
    configure_logging(log_level)
    settings = Given.take(options).resolve().settings
    graph = load_topology(target)
    application_id = settings.application_id or graph.name
    if grant and principal is None:
        raise ConfigError("--apply needs to know whom to grant the rights: add --principal User:NAME")
    principal = principal or f"User:{application_id}"
    kind, colon, name = principal.partition(":")
    if not (kind and colon and name):
        raise ConfigError(f"--principal is {principal!r}; it must be of the form User:NAME")
    needed = least_acls(graph, application_id, exactly_once=settings.processing_guarantee == "exactly_once")
    if grant:
        with explained(settings):
            rights = [(acl.resource, acl.name, acl.operation, acl.prefixed) for acl in needed]
            KafkaAdmin(client_properties(settings, "admin")).grant(rights, principal, host)
    if as_json:
        for acl in needed:
            click.echo(json.dumps({**asdict(acl), "principal": principal, "host": host}))
    elif grant:
        click.echo(f"Granted {len(needed)} rights to {principal}.")
    else:
        for line in commands(needed, settings.bootstrap_servers, principal, host):
            click.echo(line)
