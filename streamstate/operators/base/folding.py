"""What ``aggregate`` is given: functions by their names, or ready aggregates by names of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamstate.aggregates import Aggregate as NamedAggregate
from streamstate.errors import TopologyError
from streamstate.graph.builder import NodeRef

__all__ = ["NOT_GIVEN", "checked_initializer", "functions_or_named"]

# None is something that a user may have given by mistake.
NOT_GIVEN: Any = object()

_COUNT = {2: "two", 3: "three"}


def functions_or_named(
    at: NodeRef,
    in_order: tuple[Any, ...],
    functions: Mapping[str, Any],
    named: Mapping[str, NamedAggregate],
    settings: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, NamedAggregate], tuple[Any, ...]]:
    """Tell the two ways of calling ``aggregate`` apart.

    A ready aggregate may be called like a parameter, such as ``value``: what is given there decides.

    Args:
        at: what is aggregated.
        in_order: functions that were given without a name.
        functions: the user's by the names of their parameters; ``NOT_GIVEN`` where none was given.
        named: ready aggregates.
        settings: other parameters, of which ``value`` is the serde of the aggregate.

    Returns:
        The functions, all of them or none; the ready aggregates; the settings in their order.

    Raises:
        TopologyError: neither or both ways were used, a function is missing, or the serde is.
    """
    functions = _by_name(at, in_order, functions)
    taken = {name: given for name, given in {**functions, **settings}.items() if isinstance(given, NamedAggregate)}
    ready = {**taken, **named}
    others = {name: NOT_GIVEN if name in taken else given for name, given in functions.items()}
    rest = tuple(None if name in taken else given for name, given in settings.items())
    value = None if "value" in taken else settings["value"]
    if ready and value is None and all(given is NOT_GIVEN for given in others.values()):
        return {}, ready, rest
    missing = [name for name, given in others.items() if given is NOT_GIVEN]
    if ready or missing:
        both = ", ".join(f"{name}=..." for name in functions)
        raise TopologyError(
            f"aggregate after {at.node!r} takes either {_COUNT[len(functions)]} functions and value=, as in "
            f"aggregate({both}, value=dict), or ready aggregates by name, as in aggregate(n=aggregates.count())"
        )
    if value is None:
        raise TopologyError(
            f"aggregate after {at.node!r} needs the serde of the aggregate: pass value=, such as value=serde.json()"
        )
    return others, {}, rest


def _by_name(at: NodeRef, in_order: tuple[Any, ...], functions: Mapping[str, Any]) -> dict[str, Any]:
    """The functions, with those that were given in order under the names they have."""
    by_name = dict(functions)
    for name, given in zip(functions, in_order, strict=False):
        if isinstance(given, NamedAggregate):
            raise TopologyError(
                f"aggregate after {at.node!r} got a ready aggregate without a name: give it one, as in "
                "aggregate(n=aggregates.count())"
            )
        if by_name[name] is not NOT_GIVEN:
            raise TopologyError(f"aggregate after {at.node!r} got {name}= twice")
        by_name[name] = given
    if len(in_order) > len(functions):
        raise TopologyError(
            f"aggregate after {at.node!r} takes {_COUNT[len(functions)]} functions, {', '.join(functions)}, "
            f"not {len(in_order)}"
        )
    return by_name


def checked_initializer(at: NodeRef, initializer: Any, operator: str = "aggregate") -> Callable[[], Any]:
    """The function that makes the first aggregate.

    Raises:
        TopologyError: it takes arguments, or is none.
    """
    at.check(initializer, operator, "", argument="initializer")
    made: Callable[[], Any] = initializer
    return made
