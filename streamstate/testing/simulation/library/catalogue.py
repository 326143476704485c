"""The built-in workloads by name.

Every module ``streamstate.operators.FAMILY.workload`` is found by itself; its ``WORKLOADS`` has those of the family.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Final

import streamstate.operators
from streamstate.errors import ConfigError
from streamstate.testing.simulation.library import several_inputs
from streamstate.testing.simulation.library.poison import poison
from streamstate.testing.simulation.library.versions import VERSION_MAKERS
from streamstate.testing.simulation.workloads import Workload

__all__ = ["WORKLOADS", "find_workload", "workload_names"]

Makers = Mapping[str, Callable[[], Workload]]

# What a seed chooses from. The others are found by name only, so that a seed stays what it is.
WORKLOADS: Final = (
    "stateless",
    "count",
    "newest",
    "punctuation",
    "windows",
    "poison",
    "collect",
    "merge",
    "merge-by-time",
    "enrich",
)


def _of_families() -> Iterator[Makers]:
    """The workloads of each family by name, in the order of the families' names."""
    package = streamstate.operators
    for family in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{family.name}"
        if family.ispkg and importlib.util.find_spec(f"{name}.workload") is not None:
            yield importlib.import_module(f"{name}.workload").WORKLOADS


_LIBRARY: Final[Makers] = {
    "poison": poison,
    "collect": several_inputs.collect,
    "merge": several_inputs.merge,
    "merge-by-time": several_inputs.merge_by_time,
    "enrich": several_inputs.enrich,
    **VERSION_MAKERS,
}


@cache
def _every() -> Makers:
    """All of them. The families are looked for when this is first called: their modules import the simulation."""
    return {**_LIBRARY, **{name: make for makers in _of_families() for name, make in makers.items()}}


def workload_names() -> tuple[str, ...]:
    """The names of all built-in workloads: first those that a seed chooses from."""
    return (*WORKLOADS, *sorted(_every().keys() - set(WORKLOADS)))


@cache
def find_workload(name: str) -> Workload:
    """A built-in workload by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in _every():
        raise ConfigError(f"there is no workload {name!r}; there are {', '.join(workload_names())}")
    return _every()[name]()
