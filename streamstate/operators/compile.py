"""From the graph to one task's chain of closures.

Rule of this module: all decisions are taken once per task, by one compile function per kind of spec, in modules by
family of operators; what is left for a record is calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streamstate.operators.compilation import Compilation, CompiledTask, CompileFunction
from streamstate.operators.compile_foreign_keys import FOREIGN_KEYS
from streamstate.operators.compile_held import HELD
from streamstate.operators.compile_rows import ROWS
from streamstate.operators.compile_streams import STREAMS
from streamstate.operators.compile_tables import TABLES
from streamstate.operators.compile_windows import WINDOWS
from streamstate.operators.context import TaskContext
from streamstate.state import StagedStore, UndoLog
from streamstate.topology import specs

COMPILE: dict[type, CompileFunction] = {**STREAMS, **TABLES, **ROWS, **FOREIGN_KEYS, **WINDOWS, **HELD}

NO_STORES: Mapping[str, StagedStore] = MappingProxyType({})


def compile_task(
    graph: specs.Graph,
    subtopology: specs.SubTopology,
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
        stores: overlays of the sub-topology's stores by name.
        undo: where emitters log what to take back when a record fails; None when no policy needs it.
        global_stores: of the process' global tables by name; for reading only.
    """
    made = Compilation(graph, context, stores, undo, global_stores)
    # Children first, so that each closure finds what it forwards to.
    for name in reversed(subtopology.nodes):
        node = graph.nodes[name]
        COMPILE[type(node.spec)](made, node, node.spec)
    made.task.processors.reverse()
    made.task.commit_emitters.reverse()
    made.task.holders.reverse()
    return made.task
