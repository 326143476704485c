"""What a serde is, and what is said of a value that it cannot encode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from streamstate.errors import SerdeError, shown

T = TypeVar("T")

# Longer values are cut in errors.
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Serde(Generic[T]):
    """A pair of functions between ``T`` and bytes.

    Any pair makes a serde; nothing needs to be subclassed:

    >>> from streamstate import Serde
    >>> hexadecimal = Serde("hex", lambda number: b"%x" % number, lambda data: int(data, 16))
    >>> hexadecimal.serialize(255), hexadecimal.deserialize(b"ff")
    (b'ff', 255)

    Attributes:
        name: what errors and descriptions call it.
        serialize: value to bytes; never called with ``None``. It may raise anything on a value it cannot
            encode: the engine reports it with the record's topic, partition, offset and key.
        deserialize: bytes to value; never called with ``None``.
        immutable: true when no decoded value can be changed in place (numbers, strings, bytes) and a value that
            was encoded decodes to an equal one. Stores keep decoded values only of such serdes; of all others they
            keep bytes, so that changing a dict that a store handed out cannot reach the store.
        takes: the types it encodes, for errors; empty where the type alone does not decide.
        schema: tells apart serdes of one name that write different bytes, such as those of two Avro schemas; any text.
    """

    name: str
    serialize: Callable[[T], bytes]
    deserialize: Callable[[bytes], T]
    immutable: bool = False
    takes: tuple[type, ...] = ()
    schema: str = ""

    def __post_init__(self) -> None:
        # Those of the library give bytes, also where they are made of others, and are called for each record: they are
        # not checked. Methods of built-in types, such as str.encode, have no module.
        module = getattr(self.serialize, "__module__", None)
        if module is not None and not module.startswith("streamstate."):
            object.__setattr__(self, "serialize", _bytes_only(self.serialize))

    @property
    def identity(self) -> str:
        """Name and schema: what a store remembers of the serde that wrote it.

        >>> Serde("hex", str.encode, bytes.decode, schema="2").identity
        'hex 2'
        """
        return f"{self.name} {self.schema}" if self.schema else self.name

    def encode(self, value: T | None) -> bytes | None:
        """As ``serialize``, for everything that is not done for each record: its errors say what was expected.

        Args:
            value: to encode; None stays None.

        Raises:
            SerdeError: the value cannot be encoded; the message names the serde, the expected and the given type.

        >>> from streamstate import serde
        >>> serde.string().encode("a"), serde.string().encode(None)
        (b'a', None)
        >>> serde.string().encode(5)
        Traceback (most recent call last):
        streamstate.errors.SerdeError: the string serde takes str, not int: 5
        """
        if value is None:
            return None
        try:
            return self.serialize(value)
        except Exception as error:
            raise self.refusal(value, error) from error

    def decode(self, data: bytes | None) -> T | None:
        """As ``deserialize``, for everything that is not done for each record: its errors name the serde.

        Args:
            data: to decode; None stays None.

        Raises:
            SerdeError: the bytes cannot be decoded.

        >>> from streamstate import serde
        >>> serde.long().decode(b"1")
        Traceback (most recent call last):
        streamstate.errors.SerdeError: the long serde cannot decode b'1': ValueError('8 bytes are a long, not 1')
        """
        if data is None:
            return None
        try:
            return self.deserialize(data)
        except Exception as error:
            found = repr(data) if len(data) <= _SHOWN else f"{data[:_SHOWN]!r}... ({len(data)} bytes)"
            raise SerdeError(f"the {self.name} serde cannot decode {found}: {shown(error)}") from error

    def refusal(self, value: Any, error: BaseException) -> SerdeError:
        """What to raise where ``serialize`` raised ``error`` on a value.

        Functions that encode each record call ``serialize`` itself, in a ``try``, and ask for the words only when
        it has failed.
        """
        if isinstance(error, SerdeError):
            # Of a part of the value, by the serde of that part.
            return SerdeError(*error.args)
        given = f"{type(value).__name__}: {shown(value)}"
        if self.takes and not isinstance(value, self.takes):
            names = " or ".join(kind.__name__ for kind in self.takes)
            return SerdeError(f"the {self.name} serde takes {names}, not {given}")
        return SerdeError(f"the {self.name} serde cannot encode this {given} ({shown(error, 600, str)})")


def _bytes_only(serialize: Callable[[T], bytes]) -> Callable[[T], bytes]:
    """The same, but raises where it gives anything but bytes: a text or None would be taken for a record's bytes until
    the client, or a store at its commit, comes across it, when nobody knows any more whose record it was."""

    def checked(value: T) -> bytes:
        data = serialize(value)
        if type(data) is not bytes:
            raise TypeError(f"its serialize returned {type(data).__name__}, not bytes")
        return data

    return checked
