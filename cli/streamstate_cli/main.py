"""The ``streamstate`` command: a group of commands, and what all of them share."""

from __future__ import annotations

import sys
from typing import Any

import click

import streamstate
from streamstate.errors import StreamStateError
from streamstate_cli.lazy import LazyCommand, LazyGroup
from streamstate_cli.logs import debug_option, show_error

__all__ = ["cli", "main"]

COMMANDS = {
    "run": LazyCommand("streamstate_cli.run:run", "Run a topology until it is told to stop."),
    "describe": LazyCommand("streamstate_cli.describe:describe", "Show sub-topologies, stores and internal topics."),
    "config": LazyCommand("streamstate_cli.config:config", "Show every setting and where it comes from."),
    "acls": LazyCommand("streamstate_cli.acls:acls", "Print the rights that a topology needs, or grant them."),
    "reset": LazyCommand("streamstate_cli.reset:reset", "Delete an application's progress and state: start over."),
    "topics": LazyCommand("streamstate_cli.topics:topics", "Create and list topics."),
    "produce": LazyCommand("streamstate_cli.console:produce", "Send lines of text to a topic."),
    "consume": LazyCommand("streamstate_cli.console:consume", "Print the records of a topic."),
    "feed": LazyCommand("streamstate_cli.feed:feed", "Fill the topics that the ready topologies read."),
    "broker": LazyCommand("streamstate_cli.broker:broker", "Run Apache Kafka on this machine."),
    "simulate": LazyCommand("streamstate_cli.simulate:simulate", "Break a topology in every way, in memory, by seeds."),
    "demo": LazyCommand("streamstate_cli.demo:demo", "Count 336,776 flights exactly once while processes die."),
    "completion": LazyCommand("streamstate_cli.completion:completion", "Print the script for completion in a shell."),
}


class _ErrorGroup(LazyGroup):
    """Ends with the exit code that belongs to an error of the library, and without a traceback unless asked for one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StreamStateError as error:
            show_error(error)
            sys.exit(error.exit_code)


@click.group(cls=_ErrorGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@debug_option
@click.version_option(streamstate.__version__, prog_name="streamstate")
def cli() -> None:
    """Stateful stream processing for Python on nothing but Kafka.

    \b
    Examples:
      streamstate broker start                                  Kafka on this machine, port 9092
      streamstate topics create lines --partitions 4
      streamstate run topologies/word_count.py --workers 2
      echo "to be or not to be" | streamstate produce lines
      streamstate consume word-counts --from-beginning
    """


def main() -> None:
    """Entry point of the installed command."""
    cli(prog_name="streamstate")
