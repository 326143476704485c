"""Workloads that belong to no single family of operators, and how all of them are found.

Those of a family are in its folder, ``streamstate.operators.FAMILY.workload``.
"""
