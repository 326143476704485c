"""The topology as data: nodes and what the graph must know of their operators, building, planning, describing.

Nothing here runs a record, knows a broker or reads a clock, and nothing lists the operators there are.
"""
