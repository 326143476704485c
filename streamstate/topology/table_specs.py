"""What tables and their joins are made of: plain descriptions, no behaviour.

Rule of this module: as of ``specs``, which lists these among its own. Every spec here names the stores that its
operator uses in ``stores``; an operator that looks into another table also names that table's node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from streamstate.serde import Serde

TableEmit = Literal["update", "change"]


@dataclass(frozen=True, slots=True)
class TableSource:
    """The records of its parent as rows of a table: the newest per key by offset, a null value deletes.

    Attributes:
        key, value: serdes of the rows.
        store: holds the rows; None while nothing needs them.
        source: the input topic.
        reuse: the topic may serve as the store's changelog.
        emit: ``change`` passes on only what differs from the row that was there.
    """

    key: Serde[Any]
    value: Serde[Any]
    source: str
    reuse: bool
    store: str | None = None
    emit: TableEmit = "update"

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return _named(self.store)


@dataclass(frozen=True, slots=True)
class TableFilter:
    """Rows for which a predicate of (key, value) holds.

    Attributes:
        store: keeps the rows that pass; None: they are found by way of the parent.
    """

    predicate: Callable[[Any, Any], object]
    negate: bool = False
    store: str | None = None

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return _named(self.store)


@dataclass(frozen=True, slots=True)
class TableMapValues:
    """Rows with their values replaced; ``store`` as in ``TableFilter``."""

    function: Callable[[Any], Any]
    store: str | None = None

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return _named(self.store)


@dataclass(frozen=True, slots=True)
class StreamTableJoin:
    """Each record of a stream with the table's row of its key.

    Attributes:
        table: node of the table.
        stores: what the rows are found in.
        joiner: (stream's value, row's value or None) to the result.
        left: also records without a row.
    """

    table: str
    stores: tuple[str, ...]
    joiner: Callable[[Any, Any], Any]
    left: bool = False


def _named(store: str | None) -> tuple[str, ...]:
    return () if store is None else (store,)


TableSpec = TableSource | TableFilter | TableMapValues | StreamTableJoin
