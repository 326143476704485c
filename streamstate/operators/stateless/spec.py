"""Operators without state: filters, maps, splits and merges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from streamstate.graph.node import Node
from streamstate.graph.spec import SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.forwarding import Forward, fan_out
from streamstate.operators.stateless import runtime

__all__ = [
    "Branch",
    "Filter",
    "FlatMap",
    "FlatMapValues",
    "Map",
    "MapValues",
    "Merge",
    "Peek",
    "SelectKey",
    "Split",
]


class _Stateless(SpecDefaults):
    __slots__ = ()

    stores: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Filter(_Stateless):
    """Passes on the records for which a predicate holds, or, with ``negate``, those for which it does not."""

    operator: ClassVar[str] = "filter"

    predicate: Callable[[Any, Any], object]
    negate: bool = False

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.filter_``."""
        compilation.streams[node.name] = runtime.filter_(node.name, self, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class Map(_Stateless):
    """Replaces records by pairs of a key and a value."""

    operator: ClassVar[str] = "map"

    function: Callable[[Any, Any], tuple[Any, Any]]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.map_``."""
        compilation.streams[node.name] = runtime.map_(node.name, self, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class MapValues(_Stateless):
    """Replaces values. ``with_key``: the function takes the key too, in front; it may not change it."""

    operator: ClassVar[str] = "map_values"

    function: Callable[..., Any]
    with_key: bool = False

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.map_values``."""
        compilation.streams[node.name] = runtime.map_values(node.name, self, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class FlatMap(_Stateless):
    """Replaces each record by any number of pairs of a key and a value."""

    operator: ClassVar[str] = "flat_map"

    function: Callable[[Any, Any], Iterable[tuple[Any, Any]]]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.flat_map``."""
        compilation.streams[node.name] = runtime.flat_map(node.name, self, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class FlatMapValues(_Stateless):
    """Replaces each value by any number of them. ``with_key`` as in ``MapValues``."""

    operator: ClassVar[str] = "flat_map_values"

    function: Callable[..., Iterable[Any]]
    with_key: bool = False

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.flat_map_values``."""
        compilation.streams[node.name] = runtime.flat_map_values(node.name, self, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class SelectKey(_Stateless):
    """Replaces keys."""

    operator: ClassVar[str] = "select_key"

    function: Callable[[Any, Any], Any]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.select_key``."""
        compilation.streams[node.name] = runtime.select_key(node.name, self, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class Peek(_Stateless):
    """Calls a function for its effect. ``forward`` is false for ``for_each``, which ends the stream."""

    operator: ClassVar[str] = "peek"

    function: Callable[[Any, Any], object]
    forward: bool = True

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.peek``."""
        compilation.streams[node.name] = runtime.peek(node.name, self, compilation.forward(node))


@dataclass(frozen=True, slots=True)
class Merge(_Stateless):
    """Passes on what any of its parents sends."""

    operator: ClassVar[str] = "merge"

    def compile(self, compilation: Compilation, node: Node) -> None:
        """What follows is what it is."""
        compilation.streams[node.name] = compilation.forward(node)


@dataclass(frozen=True, slots=True)
class Branch(_Stateless):
    """Child ``index`` of a Split; ``index == len(predicates)`` takes the rest. Passes records on."""

    operator: ClassVar[str] = "branch"

    index: int

    def compile(self, compilation: Compilation, node: Node) -> None:
        """What follows is what it is."""
        compilation.streams[node.name] = compilation.forward(node)


@dataclass(frozen=True, slots=True)
class Split(_Stateless):
    """Sends a record to the first ``Branch`` child whose predicate holds; the last one is for the rest."""

    operator: ClassVar[str] = "split"

    predicates: tuple[Callable[[Any, Any], object], ...]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """See ``runtime.split``."""
        branches: list[list[Forward]] = [[] for _ in range(len(self.predicates) + 1)]
        for child in compilation.graph.children(node.name):
            branch = compilation.graph.nodes[child].spec
            if isinstance(branch, Branch):
                branches[branch.index].append(compilation.streams[child])
        forwards = [fan_out(branch) for branch in branches]
        compilation.streams[node.name] = runtime.split(node.name, self, forwards)
