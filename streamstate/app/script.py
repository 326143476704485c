"""Running a topology from a script of one's own: ``topology.run()``.

Settings come from the script's arguments, the environment and a file, as for ``streamstate run``; what they mean is
decided in ``streamstate.app.config``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamstate.app.config import OPTIONS, Configuration, parse_file, resolve
from streamstate.app.process import run
from streamstate.dsl.topology import Topology
from streamstate.engine.metrics import WorkerStatus
from streamstate.errors import ConfigError, StreamStateError

__all__ = ["run_script"]

log = logging.getLogger("streamstate.run")

STATUS_EVERY = 10


def run_script(topology: Topology[Any, Any], arguments: Sequence[str] | None = None) -> None:
    """Run one process of an application until SIGTERM or Ctrl-C, then end in order.

    An error is printed, and ends the script with the exit code that ``streamstate run`` has for it.

    Args:
        topology: to run.
        arguments: of the script; by default those of the command line.
    """
    parser = _parser(topology.name)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        configuration = _configuration(given)
        if configuration.workers != 1:
            raise ConfigError(
                f"a script runs one worker, not {configuration.workers}: start it several times, or let "
                f"`streamstate run {Path(sys.argv[0]).name} --workers {configuration.workers}` do that"
            )
        run(topology, configuration.settings, _Status().log)
    except StreamStateError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Run the topology {name} until SIGTERM or Ctrl-C.")
    for option in OPTIONS:
        text = option.help.replace("%", "%%")
        metavar = None if option.choices else option.metavar
        parser.add_argument(option.flag, dest=option.name, metavar=metavar, choices=option.choices or None, help=text)
    parser.add_argument("--config", metavar="FILE.toml", help="settings, as for streamstate run")
    parser.add_argument(
        "--set", dest="properties", metavar="KEY=VALUE", action="append", default=[], help="a Kafka client property"
    )
    return parser


def _configuration(given: argparse.Namespace) -> Configuration:
    flags = {option.name: getattr(given, option.name) for option in OPTIONS}
    properties = {}
    for pair in given.properties:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            # Not the value itself: it may be a secret.
            raise ConfigError(f"--set takes KEY=VALUE; {key!r} is not of this form")
        properties[key.strip()] = value
    path = given.config or os.environ.get("STREAMSTATE_CONFIG")
    if not path:
        return resolve(flags, properties, os.environ)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from None
    return resolve(flags, properties, os.environ, parse_file(text, Path(path)))


class _Status:
    """Logs what the worker has done, now and then."""

    def __init__(self) -> None:
        self._calls = 0

    def log(self, status: WorkerStatus) -> None:
        if self._calls % STATUS_EVERY == 0:
            log.info(
                "%d tasks, %d records processed, %d committed, %d dropped, %d failed",
                len(status.tasks), status.processed, status.committed, status.dropped, status.failed,
            )  # fmt: skip
        self._calls += 1
