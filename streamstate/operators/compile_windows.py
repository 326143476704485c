"""Compile functions of windowed aggregations."""

from __future__ import annotations

from streamstate.operators import windowed
from streamstate.operators.compilation import Compilation, CompileFunction
from streamstate.topology import specs


def _windowed_aggregate(made: Compilation, node: specs.Node, spec: specs.WindowedAggregate) -> None:
    store = made.stores[spec.store]
    late = windowed.late_records(node.name, None, made.context)
    made.streams[node.name] = windowed.time_windows(node.name, spec, store, made.context, made.change(node), late)


WINDOWS: dict[type, CompileFunction] = {specs.WindowedAggregate: _windowed_aggregate}
