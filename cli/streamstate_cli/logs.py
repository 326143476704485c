"""Log lines and errors for people, on stderr."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["configure_logging", "debug_option", "debugging", "logging_options", "show_error"]

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("debug", "info", "warning", "error")
VARIABLE = "STREAMSTATE_LOG_LEVEL"
_DEBUG = "streamstate.debug"


def _concerns_somebody(record: logging.LogRecord) -> bool:
    # The client warns about every property that another kind of client understands; settings are shared by all.
    return "CONFWARN" not in record.getMessage()


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at the moment: a live display puts itself there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # In one piece, because several processes may write to the same terminal or file.
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except OSError:
            # Nobody reads any more: no reason to stop the work.
            return


def configure_logging(level: str, name: str | None = None) -> None:
    """Send log lines with time, level and logger to stderr.

    Args:
        level: one of ``LEVELS``.
        name: of this process among several that share a terminal.
    """
    handler = _StderrHandler()
    process = f" [{name}]" if name else ""
    line = f"%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s{process}: %(message)s"
    handler.setFormatter(logging.Formatter(line, "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(_concerns_somebody)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def logging_options(default: str) -> Callable[[F], F]:
    """Options ``--log-level``, ``-v`` and ``--debug``; the command gets ``log_level``.

    Args:
        default: the level when nothing is said.
    """

    def add(command: F) -> F:
        def verbose(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
            if value:
                ctx.params["log_level"] = "debug"

        command = debug_option(command)
        command = click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=verbose, help="The same as --log-level debug."
        )(command)
        return click.option(
            "--log-level",
            type=click.Choice(LEVELS),
            default=default,
            show_default=True,
            envvar=VARIABLE,
            is_eager=True,
            help="Least severe log lines that are written to stderr.",
        )(command)

    return add


def debug_option(command: F) -> F:
    """Option ``--debug``, which says that ``show_error`` shows tracebacks."""

    def debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[_DEBUG] = True

    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=debug,
        help="With an error, show the traceback down to the line that raised it.",
    )(command)


def debugging() -> bool:
    """True when ``--debug`` was given, to the command or before it."""
    return bool(click.get_current_context().meta.get(_DEBUG))


def show_error(error: Exception) -> None:
    """What ended the command: its message, and with ``--debug`` first how it came to that."""
    if debugging():
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    click.echo(f"Error: {error}", err=True)
