"""Types in place of serdes: ``str`` says as much as ``serde.string()``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, TypeVar
from uuid import UUID

from streamstate.errors import TopologyError
from streamstate.serde._base import Serde
from streamstate.serde._builtin import bytes_, double, long, string
from streamstate.serde._json import json
from streamstate.serde._types import boolean, date_, datetime_, time_, uuid

__all__ = ["SerdeLike", "known_serde", "serde_of"]

T = TypeVar("T")

SerdeLike = Serde[T] | type[T]

_BY_TYPE: dict[type, Callable[[], Serde[Any]]] = {
    str: string,
    bytes: bytes_,
    int: long,
    float: double,
    bool: boolean,
    dict: json,
    list: json,
    UUID: uuid,
    date: date_,
    time: time_,
    datetime: datetime_,
}


def serde_of(given: SerdeLike[T], what: str = "key= or value=", *, key: bool = False) -> Serde[T]:
    """The serde that is given, or the one for a type.

    ======================= =================================================
    ``str``                 ``serde.string()``
    ``bytes``               ``serde.bytes_()``
    ``int``                 ``serde.long()``
    ``float``               ``serde.double()``
    ``bool``                ``serde.boolean()``
    ``dict``, ``list``      ``serde.json()``; of keys ``serde.json(sort_keys=True)``
    ``uuid.UUID``           ``serde.uuid()``
    ``datetime.date``       ``serde.date_()``
    ``datetime.time``       ``serde.time_()``
    ``datetime.datetime``   ``serde.datetime_()``
    ======================= =================================================

    Args:
        given: a serde or a type.
        what: it was given as, for the error.
        key: it is for keys: equal ones must have equal bytes.

    Raises:
        TopologyError: it is neither, or a type without a serde.

    >>> serde_of(str).name, serde_of(dict).name, serde_of(long()).name
    ('string', 'json', 'long')
    """
    if isinstance(given, Serde):
        return given
    make = _BY_TYPE.get(given) if isinstance(given, type) else None
    if make is None:
        names = ", ".join(kind.__name__ for kind in _BY_TYPE)
        raise TopologyError(f"{what} takes a serde, such as serde.json(), or one of the types {names}, not {given!r}")
    return json(sort_keys=True) if key and make is json else make()


def known_serde(given: SerdeLike[T] | None, what: str = "key= or value=", *, key: bool = False) -> Serde[T] | None:
    """``serde_of``, where nothing may be given."""
    return None if given is None else serde_of(given, what, key=key)
