"""The streams that ``Stream.split`` makes of branches with names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from streamstate.errors import TopologyError
from streamstate.graph.names import checked

if TYPE_CHECKING:
    from streamstate.dsl.stream import Stream

__all__ = ["REST", "Branches", "checked_names"]

K = TypeVar("K")
V = TypeVar("V")

REST = "rest"


class Branches(Generic[K, V]):
    """A stream for each named branch and, as the last, ``rest``. Made by ``Stream.split``.

    Each is an attribute and an item, and all of them come in order, to be unpacked:

    >>> from streamstate import Topology, serde
    >>> numbers = Topology("t").stream("numbers", value=serde.long())
    >>> branches = numbers.split(small=lambda key, n: n < 10, large=lambda key, n: n > 99)
    >>> branches.small, branches["rest"]
    (<Stream numbers.split.small>, <Stream numbers.split.rest>)
    >>> small, large, rest = branches
    """

    __slots__ = ("_streams",)

    def __init__(self, streams: Mapping[str, Stream[K, V]]) -> None:
        self._streams = dict(streams)

    def __repr__(self) -> str:
        return f"<Branches {', '.join(self._streams)}>"

    def __getitem__(self, name: str) -> Stream[K, V]:
        try:
            return self._streams[name]
        except KeyError:
            raise KeyError(self._unknown(name)) from None

    def __getattr__(self, name: str) -> Stream[K, V]:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._streams[name]
        except KeyError:
            raise AttributeError(self._unknown(name)) from None

    def __iter__(self) -> Iterator[Stream[K, V]]:
        return iter(self._streams.values())

    def __len__(self) -> int:
        return len(self._streams)

    def _unknown(self, name: str) -> str:
        return f"there is no branch {name!r}, but {', '.join(self._streams)}"


def checked_names(names: tuple[str, ...], where: str) -> None:
    """Check the names of branches, after which nodes are called.

    Raises:
        TopologyError: one is taken or illegal.
    """
    for name in names:
        if name == REST or name.startswith("_"):
            raise TopologyError(
                f"{where}: a branch cannot be called {name!r}: {REST!r} is what no predicate takes, and names begin "
                "with a letter"
            )
        checked(name, f"name of a branch of {where}")
