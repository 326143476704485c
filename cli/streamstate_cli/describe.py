"""``streamstate describe``: a topology for people and for tools, without a broker."""

from __future__ import annotations

import json
from typing import Any

import click

from streamstate.graph.describe import describe_json, describe_mermaid, describe_text
from streamstate_cli.loader import load_topology
from streamstate_cli.options import Given, json_option, setting_options

__all__ = ["describe"]


@click.command()
@click.argument("target", metavar="PATH[:ATTRIBUTE]", type=click.Path())
@setting_options("application_id", kafka=False)
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart, which Markdown renderers draw.")
@json_option("Print one JSON object, for programs.")
def describe(target: str, mermaid: bool, as_json: bool, **options: Any) -> None:
    """Show a topology's sub-topologies, nodes, stores and internal topics. No broker is asked.

    \b
    Examples:
      streamstate describe topologies/word_count.py
      streamstate describe topologies/word_count.py --mermaid > topology.mmd
      streamstate describe my_package.counts:topology --json
    """
    if mermaid and as_json:
        raise click.UsageError("--mermaid and --json exclude each other.")
    settings = Given.take(options).resolve().settings
    graph = load_topology(target)
    application_id = settings.application_id or graph.name
    if as_json:
        click.echo(json.dumps(describe_json(graph, application_id), indent=2))
    else:
        click.echo(describe_mermaid(graph, application_id) if mermaid else describe_text(graph, application_id))
