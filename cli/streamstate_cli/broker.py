"""``streamstate broker``: starts, finds and stops a local broker. Thin: the logic is `streamstate.broker`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from streamstate.broker import EmbeddedBroker, daemon
from streamstate.errors import BrokerUnavailable, StreamStateError
from streamstate_cli.logs import show_error

__all__ = ["broker"]

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Ends with the exit code that belongs to an error of the library."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StreamStateError as error:
            show_error(error)
            sys.exit(error.exit_code)


def _parse_properties(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    properties = {}
    for value in values:
        key, separator, setting = value.partition("=")
        if not separator or not key.strip():
            raise click.BadParameter(f"{value!r} is not of the form key=value.")
        properties[key.strip()] = setting
    return properties


def _directory_option(command: F) -> F:
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=daemon.default_directory,
        show_default="the user's data directory",
        help="Where topics and logs are kept. One broker runs per directory.",
    )(command)


def _json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")(command)


def _start_options(command: F) -> F:
    options = [
        click.option("--port", type=click.IntRange(1, 65535), default=None,
                     show_default=str(daemon.DEFAULT_PORT), help="Port on 127.0.0.1."),
        click.option("--partitions", type=click.IntRange(min=1), default=1, show_default=True,
                     help="Partitions of topics that are created without a count."),
        click.option("--heap", type=click.IntRange(min=128), default=512, show_default=True, metavar="MIB",
                     help="Largest heap of the JVM, in MiB."),
        click.option("--java", metavar="PATH", help="Java 17 or newer. Found by default."),
        click.option("--set", "properties", multiple=True, metavar="KEY=VALUE", callback=_parse_properties,
                     help="A broker setting, such as log.retention.ms=-1. Repeatable."),
        click.option("--timeout", type=click.FloatRange(min=1), default=60, show_default=True, metavar="SECONDS",
                     help="How long to wait for the broker's first answer."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group(cls=_Group)
def broker() -> None:
    """Run Apache Kafka on this machine, without Docker and without installing anything.

    One node on 127.0.0.1, for development, demos and tests. The first start downloads Kafka (45 MB).

    \b
    Examples:
      streamstate broker start                    in the background, on port 9092
      streamstate broker status --json
      streamstate broker stop
      streamstate broker run --temporary          in this terminal, until Ctrl-C; keeps nothing
    """


@broker.command()
@_start_options
@_directory_option
@_json_option
def start(
    port: int | None,
    partitions: int,
    heap: int,
    java: str | None,
    properties: dict[str, str],
    timeout: float,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Start a broker that stays until `stop`, and print its address.

    When one runs already on this data directory, say so and end with status 0.

    \b
    Examples:
      streamstate broker start
      streamstate broker start --port 19092 --data-dir ./kafka --partitions 4
      streamstate broker start --set log.retention.ms=-1
    """
    running, started = daemon.start(
        data_dir,
        port=port,
        num_partitions=partitions,
        heap_mb=heap,
        java=java,
        properties=properties,
        start_timeout=timedelta(seconds=timeout),
    )
    if as_json:
        _print_json({**_described(running), "started": started})
        return
    click.echo(running.bootstrap_servers)
    click.echo(
        f"{'Started' if started else 'Already running'}: process {running.pid}, log {running.log_path}", err=True
    )


@broker.command()
@_directory_option
@_json_option
def status(data_dir: Path, as_json: bool) -> None:
    """Say whether a broker runs and answers: status 0 if so, 4 if not.

    \b
    Examples:
      streamstate broker status
      streamstate broker status --json --data-dir ./kafka
    """
    running = daemon.find(data_dir.absolute())
    answers = running is not None and running.answers()
    if as_json:
        described = {"data_dir": str(data_dir.absolute())} if running is None else _described(running)
        _print_json({**described, "running": running is not None, "answers": answers})
    elif running is None:
        click.echo(f"No broker runs on {data_dir}. Start one: streamstate broker start")
    elif answers:
        click.echo(f"{running.bootstrap_servers} answers: process {running.pid}, log {running.log_path}")
    else:
        click.echo(
            f"Process {running.pid} runs, but {running.bootstrap_servers} does not answer; see {running.log_path}"
        )
    if not answers:
        sys.exit(BrokerUnavailable.exit_code)


@broker.command()
@_directory_option
@_json_option
@click.option("--timeout", type=click.FloatRange(min=0), default=20, show_default=True, metavar="SECONDS",
              help="How long a clean shutdown may take before the process is killed.")  # fmt: skip
def stop(data_dir: Path, as_json: bool, timeout: float) -> None:
    """Stop the broker; its data is kept. Ends with status 0 also when none ran.

    \b
    Examples:
      streamstate broker stop
      streamstate broker stop --data-dir ./kafka
    """
    stopped = daemon.stop(data_dir.absolute(), timeout=timedelta(seconds=timeout))
    if as_json:
        described = {"data_dir": str(data_dir.absolute())} if stopped is None else _described(stopped)
        _print_json({**described, "stopped": stopped is not None})
    elif stopped is None:
        click.echo(f"No broker runs on {data_dir}.")
    else:
        click.echo(f"Stopped {stopped.bootstrap_servers} (process {stopped.pid}).")


@broker.command()
@_start_options
@_directory_option
@click.option("--temporary", is_flag=True, help="Use a temporary data directory and delete it at the end.")
@_json_option
def run(
    port: int | None,
    partitions: int,
    heap: int,
    java: str | None,
    properties: dict[str, str],
    timeout: float,
    data_dir: Path,
    temporary: bool,
    as_json: bool,
) -> None:
    """Run a broker in this terminal; Ctrl-C or SIGTERM stops it.

    \b
    Examples:
      streamstate broker run
      streamstate broker run --temporary --port 19092
    """
    # SIGTERM takes the same way out as Ctrl-C: through the context manager that stops the broker.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = None if temporary else data_dir.absolute()
    port = port or daemon.DEFAULT_PORT
    try:
        with EmbeddedBroker(
            port=port,
            data_dir=directory,
            num_partitions=partitions,
            heap_mb=heap,
            java=java,
            properties=properties,
            start_timeout=timedelta(seconds=timeout),
        ) as embedded:
            running = daemon.record(embedded.log_path.parent.parent, embedded.pid, port)
            if as_json:
                _print_json(_described(running))
            else:
                click.echo(running.bootstrap_servers)
                click.echo(f"Running until Ctrl-C: process {running.pid}, log {running.log_path}", err=True)
            try:
                embedded.wait()
            finally:
                daemon.forget(Path(running.directory))
            click.echo("The broker was stopped from outside.", err=True)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _described(running: daemon.Daemon) -> dict[str, Any]:
    return {
        "bootstrap_servers": running.bootstrap_servers,
        "pid": running.pid,
        "data_dir": running.directory,
        "log": str(running.log_path),
    }


def _print_json(document: dict[str, Any]) -> None:
    # Flushed, because a program that waits for this line reads it from a pipe.
    click.echo(json.dumps(document))
    sys.stdout.flush()
