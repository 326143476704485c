"""``streamstate run``: one worker in this process, or several that this process supervises."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import click
from rich.console import Console

from streamstate.app import Settings
from streamstate.app import run as run_application
from streamstate.app.config import Configuration
from streamstate.engine.metrics import WorkerStatus
from streamstate.errors import StreamStateError
from streamstate.units import show_duration
from streamstate_cli.events import JsonReporter, LiveReporter, LogReporter, Reporter, event, status_fields
from streamstate_cli.loader import load_topology
from streamstate_cli.logs import configure_logging, debugging, logging_options
from streamstate_cli.options import Given, json_option, setting_options
from streamstate_cli.supervisor import Supervised, Supervisor

__all__ = ["run"]

log = logging.getLogger("streamstate.run")


@click.command()
@click.argument("target", metavar="PATH[:ATTRIBUTE]", type=click.Path())
@setting_options()
@json_option("Print events, one JSON object per line: started, status (once a second), stopped, error; with --workers "
             "also worker_started and worker_exited.")  # fmt: skip
@click.option("--supervised", is_flag=True, hidden=True)
@logging_options("info")
def run(target: str, as_json: bool, supervised: bool, log_level: str, **options: Any) -> None:
    """Run the topology in the file PATH until SIGTERM or Ctrl-C.

    ATTRIBUTE is a Topology or a function that returns one; `topology` when not given. MODULE:ATTRIBUTE works too.
    Start it again, here or on another machine, and the processes with the same application id share the work.

    A setting is taken from the option, else from the environment (--commit-interval is STREAMSTATE_COMMIT_INTERVAL;
    the Kafka property sasl.password is STREAMSTATE_KAFKA_SASL_PASSWORD), else from the file --config, else the
    default. Durations have units: 100ms, 1s, 2m. So have sizes: 64MiB. `streamstate config` shows the result.

    \b
    Examples:
      streamstate run topologies/word_count.py
      streamstate run topologies/word_count.py --bootstrap-servers kafka:9092 --workers 2
      streamstate run word_count.py:topology --commit-interval 1s --state-dir ./state
      streamstate run my_package.counts:make_topology --config production.toml
      streamstate run word_count.py --set security.protocol=SSL --json

    \b
    Exit codes:
      0  stopped by SIGTERM or Ctrl-C, everything committed
      1  unexpected error
      2  a setting is wrong
      3  the topology is wrong, or does not fit the topics
      4  no broker answers
      5  the state directory is locked
      6  a record could not be processed
      7  local state contradicts what was committed
      8  a committed offset is not in its log any more
      9  the state directory cannot be written or read
    """
    given = Given.take(options)
    with _ended_by_signals():
        if supervised:
            _run_supervised(target, log_level)
            return
        configure_logging(log_level)
        configuration = given.resolve()
        # Nothing but events may stand on stdout then, whatever the topology prints.
        with (
            contextlib.closing(_reporter(as_json)) as reporter,
            contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
        ):
            status = 0
            if configuration.workers == 1:
                _run_worker(target, configuration.settings, reporter, 0)
            else:
                status = _supervise(target, given, configuration, reporter, as_json, log_level)
    if status:
        sys.exit(status)


def _reporter(as_json: bool) -> Reporter:
    if as_json:
        return JsonReporter(sys.stdout, on_closed=lambda: os.kill(os.getpid(), signal.SIGTERM))
    console = Console()
    return LiveReporter(console) if console.is_terminal else LogReporter()


def _run_worker(target: str, settings: Settings, reporter: Reporter, index: int) -> None:
    started = False

    def on_status(status: WorkerStatus) -> None:
        nonlocal started
        if not started:
            started = True
            reporter.emit(event("started", index, application_id=settings.application_id or graph.name))
        reporter.emit(event("status", index, **status_fields(status)))

    try:
        graph = load_topology(target)
        if index == 0:
            log.info("application %s, %s", settings.application_id or graph.name, _described(settings))
        run_application(graph, settings, on_status)
    except Exception as error:
        code = error.exit_code if isinstance(error, StreamStateError) else 1
        reporter.emit(event("error", index, error=type(error).__name__, message=str(error), exit_code=code))
        raise
    reporter.emit(event("stopped", index, exit_code=0))


def _described(settings: Settings) -> str:
    return (
        f"Kafka at {settings.bootstrap_servers}, state in {settings.state_dir}, {settings.processing_guarantee}, "
        f"commits every {show_duration(settings.commit_interval)}"
    )


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end this process in order also before and after the application takes care of them."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_supervised(target: str, log_level: str) -> None:
    supervised = Supervised.begin()
    configure_logging(log_level, f"worker {supervised.index}")
    given = Given(supervised.order["flags"], supervised.order["properties"], supervised.order["file"])
    # When the supervisor is gone, so is the reader of the events; the end of its pipe is what stops this process.
    reporter = JsonReporter(supervised.events, on_closed=lambda: None)
    _run_worker(target, given.resolve().settings, reporter, supervised.index)


def _supervise(
    target: str, given: Given, configuration: Configuration, reporter: Reporter, as_json: bool, log_level: str
) -> int:
    # What this process does not import from the working directory, its workers must not either.
    safe = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
    command = [sys.executable, *safe, "-m", "streamstate_cli", "run", target, "--supervised", "--log-level", log_level]
    command += ["--debug"] if debugging() else []

    def order(index: int) -> dict[str, Any]:
        flags = {**given.flags, "workers": "1"}
        if configuration.settings.instance_id is not None:
            flags["instance_id"] = f"{configuration.settings.instance_id}-{index}"
        return {"flags": flags, "properties": given.properties, "file": given.file}

    supervisor = Supervisor(
        configuration.workers,
        command,
        order,
        reporter.emit,
        stdout=sys.__stderr__ if as_json else None,
        relay=_relay if isinstance(reporter, LiveReporter) else None,
    )
    return supervisor.run()


def _relay(line: str) -> None:
    print(line)
