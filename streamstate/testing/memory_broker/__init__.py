"""A Kafka broker in memory, the engine's ports on it, and an application that a test drives tick by tick.

Put here what behaves as Kafka does. The driver and the simulation use it; nothing here imports either of them.
"""
