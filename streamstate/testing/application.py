"""``MemoryApplication``, under the name of this module that users have imported it by."""

from streamstate.testing.memory_broker.application import MemoryApplication

__all__ = ["MemoryApplication"]
