"""Compile functions of operators that hold records back."""

from __future__ import annotations

from typing import Any

from streamstate.operators.compilation import Compilation, CompileFunction
from streamstate.operators.held import Batches, Holder, Waiting
from streamstate.topology import held_specs, specs
from streamstate.topology.graph import stores_of


def _held(made: Compilation, node: specs.Node, spec: Any) -> None:
    kind: Any = Waiting if isinstance(spec, held_specs.MapAsync) else Batches
    holder: Holder = kind(node.name, spec, made.context, made.forward(node), made.undo)
    holder.alone = _alone(made.graph, node.name)
    made.task.holders.append(holder)
    if spec.on_error is not None:
        made.task.policies[node.name] = spec.on_error
    made.streams[node.name] = holder.run


def _alone(graph: specs.Graph, name: str) -> bool:
    """True when all that is behind the node is fed, and its stores are used, by nothing else."""
    behind: dict[str, None] = {}
    waiting = list(graph.children(name))
    while waiting:
        child = waiting.pop()
        if child not in behind:
            behind[child] = None
            waiting += graph.children(child)
    stores = {store for node in behind for store in stores_of(graph.nodes[node].spec)}
    for node in graph.nodes.values():
        if node.name in behind:
            if any(parent != name and parent not in behind for parent in node.parents):
                return False
        elif stores.intersection(stores_of(node.spec)):
            return False
    return True


HELD: dict[type, CompileFunction] = {held_specs.MapAsync: _held, held_specs.MapBatches: _held}
