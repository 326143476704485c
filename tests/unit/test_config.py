"""Settings: who decides, where a value came from, what is refused, what is hidden."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstate.app import Settings
from streamstate.app.config import MASK, OPTIONS, Configuration, File, is_secret, parse_file, resolve
from streamstate.errors import ConfigError
from streamstate.units import parse_duration, parse_size, show_duration, show_size

PATH = Path("conf/app.toml")


def entry(configuration: Configuration, name: str) -> tuple[str, str]:
    [found] = [entry for entry in configuration.entries if entry.name == name]
    return found.value, found.origin


@pytest.mark.parametrize(
    ("flag", "variable", "in_file", "value", "origin"),
    [
        ("1s", "2s", "3s", "1s", "--commit-interval"),
        (None, "2s", "3s", "2s", "STREAMSTATE_COMMIT_INTERVAL"),
        (None, None, "3s", "3s", "conf/app.toml: commit_interval"),
        (None, "", "3s", "3s", "conf/app.toml: commit_interval"),
        (None, None, None, "100ms", "default"),
        ("1s", None, None, "1s", "--commit-interval"),
    ],
)
def test_who_decides(flag: str | None, variable: str | None, in_file: str | None, value: str, origin: str) -> None:
    environ = {} if variable is None else {"STREAMSTATE_COMMIT_INTERVAL": variable}
    file = None if in_file is None else parse_file(f'commit_interval = "{in_file}"', PATH)
    found = resolve({"commit_interval": flag}, {}, environ, file)
    assert entry(found, "commit_interval") == (value, origin)
    assert found.settings.commit_interval == parse_duration(value)


@pytest.mark.parametrize(
    ("flag", "variable", "in_file", "value", "origin"),
    [
        ("a", "b", "c", "a", "--set"),
        (None, "b", "c", "b", "STREAMSTATE_KAFKA_SASL_USERNAME"),
        (None, None, "c", "c", "conf/app.toml: kafka.sasl.username"),
    ],
)
def test_who_decides_kafka_properties(
    flag: str | None, variable: str | None, in_file: str, value: str, origin: str
) -> None:
    environ = {} if variable is None else {"STREAMSTATE_KAFKA_SASL_USERNAME": variable}
    properties = {} if flag is None else {"sasl.username": flag}
    found = resolve({}, properties, environ, parse_file(f'[kafka]\n"sasl.username" = "{in_file}"', PATH))
    assert found.settings.kafka == {"sasl.username": value}
    assert entry(found, "kafka.sasl.username") == (value, origin)


def test_defaults_are_those_of_the_settings() -> None:
    found = resolve({}, {}, {"PATH": "/bin", "HOME": "/"})
    assert found.settings == Settings(bootstrap_servers="localhost:9092")
    assert found.workers == 1
    assert entry(found, "application_id") == ("", "default: the topology's name")


def test_every_setting_can_be_given_in_every_way() -> None:
    given = {
        "bootstrap_servers": "k:1", "application_id": "app", "state_dir": "/s", "workers": "3",
        "processing_guarantee": "at_least_once", "commit_interval": "1s", "instance_id": "i",
        "group_protocol": "consumer", "replication_factor": "3", "broker_timeout": "1m", "transaction_timeout": "20s",
        "out_of_range": "latest", "state_cleanup_delay": "2m", "max_task_idle": "50ms", "cache_size": "1MiB",
        "staging_size": "2MiB",
        "block_cache_size": "3MiB", "write_buffer_size": "4MiB",
    }  # fmt: skip
    assert list(given) == [option.name for option in OPTIONS]
    by_flag = resolve(given, {}, {})
    by_variable = resolve({}, {}, {option.variable: given[option.name] for option in OPTIONS})
    text = "\n".join(f'{name} = "{value}"' for name, value in given.items())
    by_file = resolve({}, {}, {}, parse_file(text, PATH))
    assert by_flag.settings == by_variable.settings == by_file.settings
    assert by_flag.workers == by_file.workers == 3
    assert by_flag.settings.commit_interval == timedelta(seconds=1)
    assert by_flag.settings.write_buffer_bytes == 4 << 20
    for option in OPTIONS:
        assert option.show(option.parse(given[option.name])) == given[option.name]


def test_numbers_in_a_file() -> None:
    file = parse_file("workers = 2\nreplication_factor = 3\ncache_size = 4096\nmax_task_idle = 0", PATH)
    found = resolve({}, {}, {}, file)
    assert (found.workers, found.settings.replication_factor, found.settings.cache_bytes) == (2, 3, 4096)


def test_kafka_properties_in_a_file_may_be_nested() -> None:
    text = '[kafka]\nsecurity.protocol = "SSL"\n"socket.nagle.disable" = true\n[kafka.consumer]\nfetch.min.bytes = 2\n'
    file = parse_file(text, PATH)
    assert file.kafka == {"security.protocol": "SSL", "socket.nagle.disable": True, "consumer.fetch.min.bytes": 2}
    assert entry(resolve({}, {}, {}, file), "kafka.socket.nagle.disable")[0] == "true"


def test_kafka_properties_in_the_environment() -> None:
    variables = {
        "STREAMSTATE_KAFKA_SASL_PASSWORD": "x",
        "STREAMSTATE_KAFKA_CONSUMER_FETCH_MIN_BYTES": "2",
        "STREAMSTATE_KAFKA_LOG_LEVEL": "7",
    }
    expected = {"sasl.password": "x", "consumer.fetch.min.bytes": "2", "log_level": "7"}
    assert resolve({}, {}, variables).settings.kafka == expected


def test_a_state_directory_in_a_file_is_relative_to_the_file() -> None:
    assert resolve({}, {}, {}, parse_file('state_dir = "state"', PATH)).settings.state_dir == Path("conf/state")
    assert resolve({"state_dir": "state"}, {}, {}).settings.state_dir == Path("state")
    assert resolve({"state_dir": "~/state"}, {}, {}).settings.state_dir == Path.home() / "state"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("commit_intervall = 1", "unknown setting 'commit_intervall'; did you mean commit_interval"),
        ("[kafak]\nx = 1", "unknown setting 'kafak'; did you mean kafka"),
        ("kafka = 1", "must be a table"),
        ("[kafka]\nx = [1]", "Kafka property 'x'"),
        ("workers = [1]", "must be a single value"),
        ("workers = ", "not valid TOML"),
    ],
)
def test_a_file_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"conf/app\.toml") as raised:
        parse_file(text, PATH)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("commit_interval", "5", "not a duration"),
        ("commit_interval", "0s", "longer than 0"),
        ("commit_interval", "5 parsecs", "not a duration"),
        ("commit_interval", "99999999999999d", "too large"),
        ("cache_size", "many", "not a size"),
        ("workers", "0", "at least 1"),
        ("workers", "two", "at least 1"),
        ("application_id", " ", "not empty"),
        ("processing_guarantee", "exactly-once", "did you mean 'exactly_once'"),
    ],
)
def test_a_value_that_is_refused_names_its_origin(name: str, value: str, message: str) -> None:
    [option] = [option for option in OPTIONS if option.name == name]
    with pytest.raises(ConfigError, match=option.flag) as raised:
        resolve({name: value}, {}, {})
    assert message in str(raised.value)
    if value.strip():
        with pytest.raises(ConfigError, match=option.variable):
            resolve({}, {}, {option.variable: value})
    with pytest.raises(ConfigError, match=f"app.toml: {name}"):
        resolve({}, {}, {}, File("app.toml", {name: value}))


@pytest.mark.parametrize("value", [True, 1.5, 0, -1])
def test_a_number_in_a_file_that_is_no_count(value: object) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        resolve({}, {}, {}, File("app.toml", {"workers": value}))


def test_an_unknown_variable_is_refused_with_what_was_meant() -> None:
    with pytest.raises(ConfigError, match="STREAMSTATE_COMIT_INTERVAL; did you mean STREAMSTATE_COMMIT_INTERVAL"):
        resolve({}, {}, {"STREAMSTATE_COMIT_INTERVAL": "1s"})
    resolve({}, {}, {"STREAMSTATE_TEST_BROKER": "embedded", "STREAMSTATE_MAVEN_REPOSITORY": "x", "OTHER": "y"})


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.location",
        "ssl.key.pem",
        "ssl.keystore.location",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.token.endpoint.url",
        "sasl.oauthbearer.assertion.private.key.pem",
        "producer.sasl.password",
    ],
)
def test_secrets_are_masked(name: str) -> None:
    found = resolve({}, {name: "hunter2"}, {})
    assert entry(found, f"kafka.{name}")[0] == MASK
    assert "hunter2" not in repr(found.entries)
    assert found.settings.kafka[name] == "hunter2"


@pytest.mark.parametrize("name", ["sasl.jaas.config", "SASL.PASSWORD"])
def test_values_of_refused_properties_are_not_shown(name: str) -> None:
    assert is_secret(name)
    with pytest.raises(ConfigError) as refused:
        resolve({}, {name: "hunter2"}, {})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["security.protocol", "sasl.username", "sasl.mechanism", "ssl.ca.location", "session.timeout.ms", "client.rack"],
)
def test_what_is_no_secret_is_shown(name: str) -> None:
    assert not is_secret(name)


@given(st.integers(0, 10**13))
def test_durations_are_read_as_they_are_shown(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(show_duration(duration)) == duration


@given(st.integers(0, 1 << 50))
def test_sizes_are_read_as_they_are_shown(size: int) -> None:
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize("text", ["", "1", "-1s", "1x", "s", "1s 2", "1.s", "ms1", "1e3s", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)
