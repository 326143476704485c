"""Every operator says itself what the graph has to know of it: nothing is looked up in a list that could lack it."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar

import pytest

import streamstate.operators
from streamstate.graph.build import build_graph
from streamstate.graph.node import Node
from streamstate.graph.spec import OperatorSpec, SpecDefaults
from streamstate.operators.topics.spec import Source
from streamstate.serde import bytes_


def specs() -> list[type]:
    """The specs of all families."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(streamstate.operators.__path__, "streamstate.operators."):
        if module.name.endswith(".spec"):
            for name, kind in vars(importlib.import_module(module.name)).items():
                if isinstance(kind, type) and kind.__module__ == module.name and is_dataclass(kind):
                    found[name] = kind
    return [kind for kind in found.values() if issubclass(kind, SpecDefaults)]


def test_all_families_are_found() -> None:
    assert {"Source", "Filter", "Count", "WindowedAggregate", "TableJoin", "ForeignKeySend", "MapAsync"} <= {
        kind.__name__ for kind in specs()
    }


@pytest.mark.parametrize("kind", specs(), ids=lambda kind: kind.__name__)
def test_a_spec_has_all_that_the_graph_asks_for(kind: type) -> None:
    asked = [name for name in vars(OperatorSpec) if not name.startswith("_")]
    assert {"operator", "stores", "error_policies", "output_topics", "facts", "compile"} <= set(asked)
    fields: dict[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    assert [name for name in asked if not hasattr(kind, name) and name not in fields] == []


def test_operators_have_names_of_their_own() -> None:
    names = [kind.operator for kind in specs() if isinstance(kind.operator, str)]  # type: ignore[attr-defined]
    assert len(names) > 20
    assert len(set(names)) == len(names)


def test_a_spec_that_does_not_name_its_stores_fails_when_the_graph_is_built() -> None:
    @dataclass(frozen=True, slots=True)
    class Forgetful(SpecDefaults):
        operator: ClassVar[str] = "forgetful"

    source = Source(("in",), bytes_(), bytes_())
    forgetful: Any = Forgetful()
    with pytest.raises(AttributeError, match="stores"):
        build_graph("t", {"in": Node("in", source), "it": Node("it", forgetful, ("in",))}, {})
