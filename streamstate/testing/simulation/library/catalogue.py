"""The built-in workloads by name.

Rule of this module: a workload counts once it is in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from streamstate.errors import ConfigError
from streamstate.testing.simulation.library import several_inputs as meeting
from streamstate.testing.simulation.library import single_input as single
from streamstate.testing.simulation.library.stores import STORE_MAKERS
from streamstate.testing.simulation.library.tables import TABLE_MAKERS
from streamstate.testing.simulation.library.versions import VERSION_MAKERS
from streamstate.testing.simulation.library.windows import WINDOW_MAKERS
from streamstate.testing.simulation.workloads import Workload

__all__ = ["EVERY_WORKLOAD", "WORKLOADS", "find_workload"]

_MAKERS: Final[Mapping[str, Callable[[], Workload]]] = {
    "stateless": single.stateless,
    "count": single.count,
    "newest": single.newest,
    "punctuation": single.punctuation,
    "windows": single.windowed,
    "poison": single.poison,
    "collect": meeting.collect,
    "merge": meeting.merge,
    "merge-by-time": meeting.merge_by_time,
    "enrich": meeting.enrich,
}
# What a seed chooses from; the others are found by name only, so that a seed stays what it is.
WORKLOADS: Final = tuple(_MAKERS)
_EVERY: Final = {**_MAKERS, **TABLE_MAKERS, **STORE_MAKERS, **WINDOW_MAKERS, **VERSION_MAKERS}
EVERY_WORKLOAD: Final = tuple(_EVERY)


@cache
def find_workload(name: str) -> Workload:
    """A built-in workload by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in _EVERY:
        raise ConfigError(f"there is no workload {name!r}; there are {', '.join(_EVERY)}")
    return _EVERY[name]()
