"""The handle of global tables: topics that every process reads whole."""

from __future__ import annotations

from typing import Generic, TypeVar

from streamstate.graph.builder import GlobalTableRef

__all__ = ["GlobalTable"]

K = TypeVar("K")
V = TypeVar("V")


class GlobalTable(Generic[K, V]):
    """A topic of which every process has all rows (Kafka Streams: ``GlobalKTable``). Made by ``Topology.global_table``.

    Streams are joined with it by any key, without a repartition topic; processors read its store, which they need not
    list. It is complete, as of when the process started, before the first record is processed, and follows its topic
    from then on: changes of its rows make no results and are not ordered with the records that meet them.
    """

    __slots__ = ("_at",)

    def __init__(self, at: GlobalTableRef) -> None:
        self._at = at

    @property
    def store(self) -> str:
        """Name of its store."""
        return self._at.store

    def __repr__(self) -> str:
        return f"<GlobalTable {self.store}>"
