"""The options by which commands are told settings. What they mean is decided in ``streamstate.app.config``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from streamstate.app.config import KAFKA_PREFIX, OPTIONS, Configuration, is_secret, parse_file, resolve
from streamstate.errors import ConfigError

__all__ = ["CONNECTION", "Given", "json_option", "key_value_pairs", "setting_options"]

F = TypeVar("F", bound=Callable[..., Any])

# What it takes to talk to a cluster at all.
CONNECTION = ("bootstrap_servers",)
CONFIG_VARIABLE = "STREAMSTATE_CONFIG"


class Given:
    """What the command line says about settings.

    Attributes:
        flags: by name of the option; None where nothing was said.
        properties: Kafka properties, from ``--set``.
        file: from ``--config``.
    """

    def __init__(self, flags: Mapping[str, str | None], properties: Mapping[str, str], file: str | None) -> None:
        self.flags = dict(flags)
        self.properties = dict(properties)
        self.file = file

    @classmethod
    def take(cls, params: dict[str, Any]) -> Given:
        """Take the parameters that ``setting_options`` added out of a command's parameters."""
        flags = {option.name: params.pop(option.name) for option in OPTIONS if option.name in params}
        properties = params.pop("properties", {})
        _warn_of_secrets(properties)
        return cls(flags, properties, params.pop("config_file"))

    def resolve(self) -> Configuration:
        """Decide every setting.

        Raises:
            ConfigError: see ``streamstate.app.config``; or the file cannot be read.
        """
        path = Path(self.file) if self.file is not None else None
        if path is None and os.environ.get(CONFIG_VARIABLE):
            path = Path(os.environ[CONFIG_VARIABLE])
        if path is None:
            return resolve(self.flags, self.properties, os.environ)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"the configuration file {path} is not UTF-8 text") from None
        return resolve(self.flags, self.properties, os.environ, parse_file(text, path))


def _warn_of_secrets(properties: Mapping[str, str]) -> None:
    """Say on stderr which flags show a secret; where a secret is, is none."""
    for name in properties:
        if is_secret(name) and not name.endswith((".location", ".file", ".url")):
            variable = KAFKA_PREFIX + name.upper().replace(".", "_")
            click.echo(
                f"Warning: --set {name}=... stands on the command line, where every user of this machine can read it. "
                f"Give it as {variable} in the environment, or in the table [kafka] of the file --config",
                err=True,
            )


def setting_options(*names: str, kafka: bool = True) -> Callable[[F], F]:
    """An option for each of these settings (all of them when none is named), ``--config`` and ``--set``.

    The command gets them as keyword arguments for ``Given.take``.

    Args:
        names: of the settings.
        kafka: false for a command that talks to no cluster: no ``--set``.
    """

    def add(command: F) -> F:
        if kafka:
            command = click.option(
                "--set",
                "properties",
                multiple=True,
                metavar="KEY=VALUE",
                callback=key_value_pairs,
                help="A Kafka client property, such as security.protocol=SSL. Repeatable.",
            )(command)
        command = click.option("--config", "config_file", metavar="FILE.toml", type=click.Path(dir_okay=False),
                               help="Settings by the names of the options with _ for -, Kafka client properties in the "
                               f"table [kafka]. By default ${CONFIG_VARIABLE}.")(command)  # fmt: skip
        for option in reversed(OPTIONS):
            if names and option.name not in names:
                continue
            default = option.default_value()
            text = option.help
            if default is not None or option.unset:
                text += f"  [default: {option.unset or option.show(default)}]"
            command = click.option(
                option.flag,
                option.name,
                metavar=None if option.choices else option.metavar,
                type=click.Choice(option.choices) if option.choices else str,
                help=text,
            )(command)
        return command

    return add


def json_option(text: str) -> Callable[[F], F]:
    """``--json``; the command gets ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def key_value_pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Callback of a repeatable option whose values are ``key=value``."""
    pairs = {}
    for value in values:
        key, separator, setting = value.partition("=")
        if not separator or not key.strip():
            # Not the value itself: it may be a secret.
            raise click.BadParameter(f"{key!r} is not of the form key=value.")
        pairs[key.strip()] = setting
    return pairs
