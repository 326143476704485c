"""The handles that users hold: a topology, its streams and tables, and the stores of processors.

A handle class has no operators of its own. It puts together what the families under ``streamstate.operators`` give:
to add an operator, write its family and name it in the bases of ``Stream`` or ``Table``.
"""

from streamstate.dsl.global_table import GlobalTable
from streamstate.dsl.stream import Stream
from streamstate.dsl.table import Table
from streamstate.graph.handles import bind
from streamstate.operators.aggregate.handle import GroupedStream

bind(stream=Stream, table=Table, global_table=GlobalTable, grouped_stream=GroupedStream)
