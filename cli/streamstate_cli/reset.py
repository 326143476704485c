"""``streamstate reset``: shows what starting over deletes, asks, and deletes it."""

from __future__ import annotations

from typing import Any

import click

from streamstate.app import client_properties, explained
from streamstate.app.reset import Findings, delete, find
from streamstate.kafka import KafkaAdmin
from streamstate.units import show_size
from streamstate_cli.loader import load_topology
from streamstate_cli.logs import configure_logging, logging_options
from streamstate_cli.options import CONNECTION, Given, setting_options

__all__ = ["reset"]


@click.command()
@click.argument("target", metavar="PATH[:ATTRIBUTE]", type=click.Path())
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@setting_options(*CONNECTION, "application_id", "state_dir")
@logging_options("warning")
def reset(target: str, dry_run: bool, yes: bool, log_level: str, **options: Any) -> None:
    """Start an application over: delete its committed offsets, its internal topics and its state on this machine.

    The next run reads the input from where its sources begin. Input and output topics are not touched: results of the
    next run follow the old ones. Nothing is deleted while a process of the application runs.

    \b
    Examples:
      streamstate reset topologies/word_count.py --dry-run
      streamstate reset topologies/word_count.py --application-id word-count --yes
    """
    configure_logging(log_level)
    settings = Given.take(options).resolve().settings
    graph = load_topology(target)
    with explained(settings):
        admin = KafkaAdmin(client_properties(settings, "admin"))
        findings = find(graph, settings, admin)
        if findings.empty:
            click.echo(
                f"Nothing to delete: application {findings.application_id!r} has no committed offsets and no internal "
                f"topics at {settings.bootstrap_servers}, and no state in {settings.state_dir}."
            )
            return
        _show(findings, settings.bootstrap_servers)
        if dry_run:
            click.echo("Nothing was deleted (--dry-run).")
            return
        if not yes:
            click.confirm("Delete all this?", abort=True)
        delete(findings, settings, admin, lambda line: click.echo(f"Deleted {line}"))
    click.echo("Other machines that ran this application have state of their own: reset there too.")


def _show(findings: Findings, cluster: str) -> None:
    click.echo(f"To be deleted of application {findings.application_id!r} at {cluster}:")
    if findings.has_group:
        counts = ", ".join(f"{topic} ({count} partitions)" for topic, count in sorted(findings.offsets.items()))
        click.echo(f"  committed offsets: {counts or 'none'}")
    for topic, partitions in findings.topics.items():
        click.echo(f"  topic {topic}, {partitions} partitions")
    for state in findings.local:
        click.echo(f"  local state {state.path}, {_rounded(state.bytes)}")
    if findings.leftovers:
        click.echo(
            "Not deleted, because this topology does not use them (of an earlier version of it, perhaps): "
            + ", ".join(findings.leftovers)
        )
    if findings.outputs:
        click.echo(f"Output topics keep what they hold: {', '.join(findings.outputs)}")


def _rounded(size: int) -> str:
    for shift in (20, 10):
        if size >> shift:
            return show_size(size >> shift << shift)
    return f"{size} bytes"
