"""Turn errors of Kafka clients into errors that tell the user what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from streamstate.app.settings import Settings
from streamstate.engine.ports import LoginFailed, NotAuthorized, PortError, Unavailable, Unreachable
from streamstate.errors import BrokerUnavailable, ConfigError, StreamStateError
from streamstate.kafka.errors import general, kafka_error

__all__ = ["explained", "no_broker_message"]

START_HINT = "Is it running? For a local one: streamstate broker start"


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Raise what Kafka clients raise within the block as errors that tell the user what to do.

    Raises:
        StreamStateError: in place of the client's error, which is its cause.
    """
    try:
        yield
    except TimeoutError as error:
        # Of a client's future; what user code raises comes as ProcessingError.
        raise _explanation(Unavailable(str(error) or "no answer in time"), settings) from error
    except KafkaException as error:
        if kafka_error(error).code() != KafkaError._INVALID_ARG:
            raise _explanation(general(error), settings) from error
        raise ConfigError(
            f"the Kafka client refuses its configuration: {kafka_error(error).str()}. `streamstate config` shows every "
            f"setting and where it comes from"
        ) from error
    except PortError as error:
        raise _explanation(error, settings) from error


def _explanation(error: PortError, settings: Settings) -> StreamStateError:
    if isinstance(error, Unavailable):
        return BrokerUnavailable(no_broker_message(error, settings))
    if isinstance(error, LoginFailed):
        return ConfigError(
            f"cannot log in at {settings.bootstrap_servers}: {error}. Check security.protocol, sasl.mechanism, "
            f"sasl.username, sasl.password and ssl.ca.location; `streamstate config` shows where each comes from"
        )
    if isinstance(error, NotAuthorized):
        return ConfigError(f"the broker denies access: {error}. `streamstate acls` prints all rights that it needs")
    return StreamStateError(f"the Kafka client failed: {error}")


def no_broker_message(error: Unavailable, settings: Settings) -> str:
    """Return the message of an outage, with advice where the client has none."""
    message = f"no broker at {settings.bootstrap_servers} answers: {error}"
    return message if isinstance(error, Unreachable) else f"{message}. {START_HINT}"
