"""``streamstate demo``. Thin: the logic is `streamstate_cli.demonstration`."""

from __future__ import annotations

import json
import logging
import sys

import click

from streamstate.errors import StreamStateError

__all__ = ["demo"]


@click.command()
@click.option("--limit", type=click.IntRange(min=1_000), metavar="N", help="Only the first N flights; all by default.")
@click.option("--keep-state", is_flag=True, help="Leave the killed worker's local state to the one in its place, which "
              "then has hardly anything to restore.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end; progress goes to stderr.")
def demo(limit: int | None, keep_state: bool, as_json: bool) -> None:
    """Count 336,776 flights exactly once, while a process is killed.

    Starts Apache Kafka on this machine, feeds it every flight that left New York City in 2013, and runs
    topologies/flight_delays.py with two worker processes. Half way one gets SIGKILL, its local state is deleted, and
    another takes its place. In the end every output record is compared with the source file. Takes about a minute;
    leaves nothing behind.

    Ends with status 0 when every flight was counted exactly once, 1 when not.

    \b
    Examples:
      streamstate demo
      streamstate demo --limit 50000
      streamstate demo --json > report.json
    """
    from rich.console import Console

    from streamstate_cli.demonstration import data
    from streamstate_cli.demonstration.interrupts import Interrupted
    from streamstate_cli.demonstration.show import Show
    from streamstate_cli.demonstration.view import View

    # What the Kafka clients grumble about while the broker starts would tear the picture.
    logging.getLogger("streamstate").addHandler(logging.NullHandler())
    console = Console(stderr=as_json)
    try:
        report = Show(View(console), limit, keep_state=keep_state).run()
    except StreamStateError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(error)}))
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except Interrupted as interrupted:
        click.echo(f"{interrupted}: everything is stopped.", err=True)
        sys.exit(128 + interrupted.number)
    if as_json:
        click.echo(json.dumps(report.as_json()))
    else:
        report.show(console, data.airlines(data.find()))
    sys.exit(0 if report.ok else 1)
