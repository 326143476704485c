"""From a graph to the chain of closures of one task.

All decisions are taken once per task, by the ``compile`` method of each spec; what is left for a record is calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streamstate.graph.node import Graph, SubTopology
from streamstate.operators.base.compilation import Compilation, CompiledTask
from streamstate.operators.base.context import TaskContext
from streamstate.state import StagedStore, UndoLog

__all__ = ["compile_task"]

NO_STORES: Mapping[str, StagedStore] = MappingProxyType({})


def compile_task(
    graph: Graph,
    subtopology: SubTopology,
    context: TaskContext,
    stores: Mapping[str, StagedStore],
    undo: UndoLog | None,
    global_stores: Mapping[str, StagedStore] = NO_STORES,
) -> CompiledTask:
    """Compile ``subtopology`` for one task.

    Args:
        graph: the topology.
        subtopology: the part that the task runs.
        context: the task's, shared by all its operators.
        stores: staged views of the sub-topology's stores by name.
        undo: where emitters log what to take back when a record fails; None when no policy needs it.
        global_stores: of the process's global tables by name; for reading only.
    """
    compilation = Compilation(graph, context, stores, undo, global_stores)
    # Children first, so that each closure finds what it forwards to.
    for name in reversed(subtopology.nodes):
        node = graph.nodes[name]
        node.spec.compile(compilation, node)
    task = compilation.task
    task.processors.reverse()
    task.commit_emitters.reverse()
    task.holders.reverse()
    return task
