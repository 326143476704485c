"""Global tables: topics that every process reads whole.

Rule of this module: a handle holds nothing but its name.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from streamstate.topology.draft import Draft

K = TypeVar("K")
V = TypeVar("V")


class GlobalTable(Generic[K, V]):
    """A topic of which every process has all rows (Kafka Streams: ``GlobalKTable``). Made by ``Topology.global_table``.

    Streams are joined with it by any key, without a repartition topic; processors read its store, which they need not
    list. It is complete, as of when the process started, before the first record is processed, and follows its topic
    from then on: changes of its rows make no results and are not ordered with the records that meet them.

    Attributes:
        store: name of its store.
    """

    __slots__ = ("_draft", "store")

    def __init__(self, draft: Draft, store: str) -> None:
        self._draft = draft
        self.store = store

    def __repr__(self) -> str:
        return f"<GlobalTable {self.store}>"
