"""Drive a topology record by record in a test: ``TopologyTestDriver``, its topics and views of its stores.

Put here what a test of one topology calls. The broker below it is in ``testing.memory_broker``; several workers and
faults are in ``testing.simulation``.
"""
