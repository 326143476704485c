"""Serdes: a typed value to bytes and back.

Rule of this package: a serde is two functions and two facts, nothing more. Most of them are C functions used
as they are, so that the engine calls them without a Python frame in between. ``None`` never reaches a serde:
a null key or value is null on the wire.
"""

from streamstate.serde._avro import avro
from streamstate.serde._base import Serde
from streamstate.serde._builtin import bytes_, double, float_, integer, long, short, string
from streamstate.serde._json import json
from streamstate.serde._of import SerdeLike, known_serde, serde_of
from streamstate.serde._types import boolean, date_, datetime_, list_, time_, uuid

__all__ = [
    "Serde",
    "SerdeLike",
    "avro",
    "boolean",
    "bytes_",
    "date_",
    "datetime_",
    "double",
    "float_",
    "integer",
    "json",
    "known_serde",
    "list_",
    "long",
    "serde_of",
    "short",
    "string",
    "time_",
    "uuid",
]
