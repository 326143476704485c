"""Resolve settings from flags, environment, a file and defaults, and record where each came from.

The first of these that names a setting decides: flag, environment, file, default. The caller passes in the flags, the
environment and the text of the file; this module reads nothing from the machine.

One name in three spellings: ``commit_interval`` in the file, ``--commit-interval`` as a flag,
``STREAMSTATE_COMMIT_INTERVAL`` in the environment. Kafka's own properties are the table ``[kafka]`` in the file,
``--set sasl.password=...`` and ``STREAMSTATE_KAFKA_SASL_PASSWORD``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from streamstate.app.kafka_properties import check_properties
from streamstate.app.settings import Settings
from streamstate.errors import ConfigError
from streamstate.units import parse_duration, parse_size, show_duration, show_size

__all__ = [
    "KAFKA_PREFIX",
    "OPTIONS",
    "Configuration",
    "Entry",
    "File",
    "Option",
    "is_secret",
    "parse_file",
    "resolve",
]

PREFIX = "STREAMSTATE_"
KAFKA_PREFIX = "STREAMSTATE_KAFKA_"
# Read elsewhere: where configuration and logs go, where the broker's files come from, and what tests run on.
OTHER_VARIABLES = frozenset(("STREAMSTATE_CONFIG", "STREAMSTATE_LOG_LEVEL", "STREAMSTATE_MAVEN_REPOSITORY"))
TEST_PREFIX = "STREAMSTATE_TEST_"
MASK = "********"
DEFAULT_BOOTSTRAP_SERVERS = "localhost:9092"

_SECRET = re.compile(
    r"password|passphrase|secret|credential|token|jaas|ssl\.key|oauthbearer\.config|(^|[._-])key([._-]|$)",
    re.IGNORECASE,
)
# The properties of librdkafka whose names hold an underscore, which an environment variable cannot tell from a dot.
_UNDERSCORED = {"log.level": "log_level"}


@dataclass(frozen=True, slots=True)
class Option:
    """A setting as users write it.

    Attributes:
        name: as in the file.
        field: of ``Settings``; None for what is not part of it.
        parse: from text or a TOML value.
        show: the text for a value; ``parse`` reads it again.
        metavar: what stands for the value in a help text.
        help: one line.
        choices: the only values, when there are few.
        default: of an option that ``Settings`` has no default for.
        unset: what it means when there is no value.
    """

    name: str
    field: str | None
    parse: Callable[[Any], Any]
    show: Callable[[Any], str]
    metavar: str
    help: str
    choices: tuple[str, ...] = ()
    default: Any = None
    unset: str = ""

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return PREFIX + self.name.upper()

    def default_value(self) -> Any:
        """The default."""
        if self.default is not None or self.field is None:
            return self.default
        for known in fields(Settings):
            if known.name == self.field:
                return known.default_factory() if known.default_factory is not MISSING else known.default
        raise AssertionError(f"no such setting: {self.field}")


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a setting, and where it came from.

    Attributes:
        name: of the setting; Kafka properties have the prefix ``kafka.``.
        value: as text; secrets are masked.
        origin: a flag, an environment variable, a file with the name in it, or ``default``.
        secret: true when ``value`` is not the real one.
    """

    name: str
    value: str
    origin: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings, and where each came from.

    Attributes:
        settings: of the application.
        workers: processes to run.
        entries: every setting with its origin, for people.
    """

    settings: Settings
    workers: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class File:
    """The content of a configuration file.

    Attributes:
        name: shown in messages.
        values: top-level settings.
        kafka: Kafka properties, by their full names.
        directory: what relative paths in it are relative to.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    kafka: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    directory: Path = Path()


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value.strip()


def _count(value: object) -> int:
    if isinstance(value, (int, str)) and not isinstance(value, bool) and re.fullmatch(r"[1-9]\d*", str(value).strip()):
        return int(value)
    raise ValueError("must be a whole number of at least 1")


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value in choices:
            return str(value)
        close = difflib.get_close_matches(str(value), choices, 1)
        raise ValueError(f"must be one of {', '.join(choices)}" + (f"; did you mean {close[0]!r}?" if close else ""))

    return parse


def _positive(value: object) -> timedelta:
    duration = parse_duration(value)
    if not duration:
        raise ValueError("must be longer than 0")
    return duration


def _choice(name: str, text: str, *choices: str) -> Option:
    return Option(name, name, _one_of(*choices), str, "|".join(choices), text, choices)


def _duration(name: str, text: str, parse: Callable[[Any], timedelta] = _positive) -> Option:
    return Option(name, name, parse, show_duration, "DURATION", text)


def _size(name: str, text: str) -> Option:
    return Option(name, name.replace("_size", "_bytes"), parse_size, show_size, "SIZE", text)


OPTIONS: tuple[Option, ...] = (
    Option("bootstrap_servers", "bootstrap_servers", _text, str, "HOST:PORT,...", "Kafka addresses.",
           default=DEFAULT_BOOTSTRAP_SERVERS),
    Option("application_id", "application_id", _text, str, "NAME",
           "Names the consumer group, the internal topics and the state; processes with the same one share the work.",
           unset="the topology's name"),
    Option("state_dir", "state_dir", lambda value: Path(_text(value)).expanduser(), str, "DIRECTORY",
           "Local state; processes of one machine may share it."),
    Option("workers", None, _count, str, "N", "Processes to run on this machine.", default=1),
    _choice("processing_guarantee", "What holds when a process dies.", "exactly_once", "at_least_once"),
    _duration("commit_interval", "Longest time between commits."),
    Option("instance_id", "instance_id", _text, str, "NAME",
           "A fixed name for static membership: a restart within the session time-out moves nothing."),
    _choice("group_protocol", "Who assigns partitions: a member, or the broker.", "classic", "consumer"),
    Option("replication_factor", "replication_factor", _count, str, "N",
           "Of topics that are created.", unset="the broker's"),
    _duration("broker_timeout", "How long to go on without a broker before giving up."),
    _duration("transaction_timeout", "After which brokers abort what a dead process left open."),
    _choice("out_of_range", "When a committed offset is not in the log any more.", "fail", "earliest", "latest"),
    _duration("state_cleanup_delay", "After which local state of tasks that live elsewhere is deleted."),
    _duration("max_task_idle", "How long a task with several inputs waits for one without records.", parse_duration),
    _size("cache_size", "Committed entries kept in memory, per process."),
    _size("staging_size", "Uncommitted state that makes a process commit early."),
    _size("block_cache_size", "RocksDB's block cache, per process."),
    _size("write_buffer_size", "RocksDB's write buffers, per process."),
)  # fmt: skip
BY_NAME = {option.name: option for option in OPTIONS}


def is_secret(name: str) -> bool:
    """Return true when the value of a Kafka property must not be shown.

    >>> [is_secret(name) for name in ("sasl.password", "ssl.key.location", "security.protocol", "sasl.username")]
    [True, True, False, False]
    """
    return _SECRET.search(name) is not None


def parse_file(text: str, path: Path) -> File:
    """Read a configuration file.

    Args:
        text: its content, TOML.
        path: for messages, and what relative paths in it are relative to.

    Raises:
        ConfigError: it is not TOML, or has an unknown key.

    >>> file = parse_file('commit_interval = "1s"\\n[kafka]\\nsasl.username = "me"', Path("app.toml"))
    >>> file.values, file.kafka
    ({'commit_interval': '1s'}, {'sasl.username': 'me'})
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    kafka = content.pop("kafka", {})
    if not isinstance(kafka, dict):
        raise ConfigError(f"{path}: kafka must be a table of Kafka client properties: [kafka]")
    for name, value in content.items():
        if name not in BY_NAME:
            raise ConfigError(f"{path}: unknown setting {name!r}{_close(name, [*BY_NAME, 'kafka'])}")
        if isinstance(value, (dict, list)):
            raise ConfigError(f"{path}: {name} must be a single value, not a {type(value).__name__}")
    return File(str(path), content, dict(_flattened(kafka, path)), path.parent)


def _flattened(table: Mapping[str, Any], path: Path, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, path, f"{prefix}{name}.")
        elif isinstance(value, (str, int, float, bool)):
            yield prefix + name, value
        else:
            raise ConfigError(f"{path}: Kafka property {prefix + name!r} must be a text, a number, true or false")


def resolve(
    flags: Mapping[str, str | None],
    properties: Mapping[str, str],
    environ: Mapping[str, str],
    file: File | None = None,
) -> Configuration:
    """Resolve every setting.

    Args:
        flags: by the names of ``OPTIONS``; None when not given.
        properties: Kafka properties given as flags.
        environ: environment variables; those that are empty count as not set.
        file: read by ``parse_file``.

    Raises:
        ConfigError: a name is unknown, a value malformed, or a Kafka property one that cannot be set.

    >>> found = resolve({"commit_interval": "1s"}, {}, {"STREAMSTATE_WORKERS": "2"})
    >>> found.settings.commit_interval, found.workers
    (datetime.timedelta(seconds=1), 2)
    >>> [(entry.value, entry.origin) for entry in found.entries if entry.name == "workers"]
    [('2', 'STREAMSTATE_WORKERS')]
    """
    variables = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value.strip()}
    _refuse_unknown(variables)
    values: dict[str, Any] = {}
    entries: list[Entry] = []
    for option in OPTIONS:
        value, origin = _decide(option, flags, variables, file)
        values[option.name] = value
        entries.append(Entry(option.name, "" if value is None else option.show(value), origin))
    kafka: dict[str, str | int | float | bool] = {}
    origins: dict[str, str] = {}
    for name, kafka_value, origin in _kafka(properties, variables, file):
        kafka[name], origins[name] = kafka_value, origin
        secret = is_secret(name)
        entries.append(Entry(f"kafka.{name}", MASK if secret else _plain(kafka_value), origin, secret))
    check_properties(kafka, origins, values["group_protocol"])
    chosen = {option.field: values[option.name] for option in OPTIONS if option.field is not None}
    return Configuration(Settings(**chosen, kafka=kafka), values["workers"], tuple(entries))


def _decide(
    option: Option, flags: Mapping[str, str | None], variables: Mapping[str, str], file: File | None
) -> tuple[Any, str]:
    given: Any = flags.get(option.name)
    if given is not None:
        return _parsed(option, given, option.flag), option.flag
    given = variables.get(option.variable)
    if given is not None:
        return _parsed(option, given, option.variable), option.variable
    if file is not None and option.name in file.values:
        origin = f"{file.name}: {option.name}"
        value = _parsed(option, file.values[option.name], origin)
        return (file.directory / value if isinstance(value, Path) else value), origin
    return option.default_value(), f"default: {option.unset}" if option.unset else "default"


def _parsed(option: Option, given: Any, origin: str) -> Any:
    try:
        return option.parse(given)
    except ValueError as error:
        raise ConfigError(f"{origin}: {given!r} {error}") from None
    except OverflowError:
        raise ConfigError(f"{origin}: {given!r} is too large") from None


def _kafka(
    properties: Mapping[str, str], variables: Mapping[str, str], file: File | None
) -> Iterable[tuple[str, str | int | float | bool, str]]:
    found: dict[str, tuple[str | int | float | bool, str]] = {}
    if file is not None:
        found.update({name: (value, f"{file.name}: kafka.{name}") for name, value in file.kafka.items()})
    for variable, value in variables.items():
        if variable.startswith(KAFKA_PREFIX):
            name = variable.removeprefix(KAFKA_PREFIX).lower().replace("_", ".")
            found[_UNDERSCORED.get(name, name)] = (value, variable)
    found.update({name: (value, "--set") for name, value in properties.items()})
    return [(name, value, origin) for name, (value, origin) in sorted(found.items())]


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    known = [*(option.variable for option in OPTIONS), *OTHER_VARIABLES]
    for variable in variables:
        if variable not in known and not variable.startswith((KAFKA_PREFIX, TEST_PREFIX)):
            raise ConfigError(f"unknown environment variable {variable}{_close(variable, known)}")


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _plain(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
