"""What tables and their joins are made of: plain descriptions, no behaviour.

Rule of this module: as of ``specs``, which lists these among its own. Every spec here names the stores that its
operator uses in ``stores``; an operator that looks into another table also names that table's node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamstate.serde import Serde
from streamstate.store_spec import StoreSpec
from streamstate.topology.emit import TableEmit


@dataclass(frozen=True, slots=True)
class TableSource:
    """The records of its parent as rows of a table: the newest per key by offset, a null value deletes.

    Attributes:
        key, value: serdes of the rows.
        store: holds the rows; None while nothing needs them.
        source: the input topic; None where there is none of its own.
        reuse: the topic may serve as the store's changelog.
        emit: ``change`` passes on only what differs from the row that was there.
    """

    key: Serde[Any]
    value: Serde[Any]
    source: str | None
    reuse: bool
    store: str | None = None
    emit: TableEmit = "update"

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return _named(self.store)


@dataclass(frozen=True, slots=True)
class ToTable(TableSource):
    """The same of the records of a stream."""


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
    """Rows with their values replaced; ``store`` as in ``TableFilter``, ``with_key`` as in ``MapValues``."""

    function: Callable[..., Any]
    store: str | None = None
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return _named(self.store)


@dataclass(frozen=True, slots=True)
class TableTransformValues:
    """Rows with their values replaced by a user's ValueTransformer.

    Attributes:
        supplier: makes a new ValueTransformer for each task.
        uses: names of the stores it may use.
        key, value: serdes of the result; the value's may be unknown while there is no store.
        store: keeps the result; None while nothing needs its rows.
    """

    supplier: Callable[[], Any]
    uses: tuple[str, ...]
    key: Serde[Any]
    value: Serde[Any] | None
    store: str | None = None

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (*_named(self.store), *self.uses)


@dataclass(frozen=True, slots=True)
class TableJoin:
    """The rows of two tables under equal keys.

    Attributes:
        left, right: the tables' nodes.
        rows: the stores in which their rows are found.
        joiner: (left value, right value) to the result; None where a row is missing.
        left_alone: a left row without a right one makes a row too.
        right_alone: and the other way round.
        store: keeps the result; None: it is computed from both.
        with_key: ``joiner`` takes the key too, in front.
    """

    left: str
    right: str
    rows: tuple[str, ...]
    joiner: Callable[..., Any]
    left_alone: bool = False
    right_alone: bool = False
    store: str | None = None
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return tuple(dict.fromkeys((*_named(self.store), *self.rows)))


@dataclass(frozen=True, slots=True)
class TableGroupBy:
    """Changes of rows as changes of the groups they belong to: a stream of (new value, old value) per group's key.

    Attributes:
        function: (key, value) to the key of the group.
        select: (key, value) to what is aggregated; None: the value.
        key: serde of the group's key, whose bytes say whether a row has stayed in its group.
        stores: what old rows are found in.
    """

    function: Callable[[Any, Any], Any]
    select: Callable[[Any, Any], Any] | None
    key: Serde[Any]
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableReduce:
    """Folds the values of the rows of each group, the first being the start; old values are taken off first."""

    store: str
    adder: Callable[[Any, Any], Any]
    subtractor: Callable[[Any, Any], Any]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.store,)


@dataclass(frozen=True, slots=True)
class TableAggregate:
    """Folds (key, value, aggregate) of the rows of each group; old values are taken off first."""

    store: str
    initializer: Callable[[], Any]
    adder: Callable[[Any, Any, Any], Any]
    subtractor: Callable[[Any, Any, Any], Any]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.store,)


@dataclass(frozen=True, slots=True)
class ForeignKeySend:
    """Left side of a foreign-key join: says to the task that owns the right key which left rows want its row.

    Attributes:
        function: (key, value) to the right table's key, or None.
        key, value: serdes of the left table.
        foreign: serde of the right table's key.
        left: rows without a right one make a result too.
        stores: what old rows are found in.
    """

    function: Callable[[Any, Any], Any]
    key: Serde[Any]
    value: Serde[Any]
    foreign: Serde[Any]
    left: bool
    stores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForeignKeySubscribe:
    """Right side: keeps who wants a row, and answers with the row as it is.

    Attributes:
        right: node of the right table.
        subscriptions: store of who wants what.
        foreign: serde of the right table's key.
        key: serde of the left table's key.
        rows: what the right rows are found in.
    """

    right: str
    subscriptions: str
    foreign: Serde[Any]
    key: Serde[Any]
    rows: tuple[str, ...]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.subscriptions, *self.rows)


@dataclass(frozen=True, slots=True)
class ForeignKeyChange:
    """Right side: sends a changed row to all who want it. Attributes as of ``ForeignKeySubscribe``."""

    subscriptions: str
    foreign: Serde[Any]
    key: Serde[Any]

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (self.subscriptions,)


@dataclass(frozen=True, slots=True)
class ForeignKeyResult:
    """Left side: joins answers with the left row, if it is still the one that asked.

    Attributes:
        table: node of the left table.
        send: node that asks.
        joiner: (left value, right value or None) to the result.
        left: rows without a right one make a result too.
        key: serde of the left table's key.
        asked: serde of the left table's values.
        value: serde of the result; unknown while there is no store.
        rows: what the left rows are found in.
        store: keeps the result; None while nothing needs its rows.
        with_key: ``joiner`` takes the left row's key too, in front.
    """

    table: str
    send: str
    joiner: Callable[..., Any]
    left: bool
    key: Serde[Any]
    asked: Serde[Any]
    value: Serde[Any] | None
    rows: tuple[str, ...]
    store: str | None = None
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return (*_named(self.store), *self.rows)


@dataclass(frozen=True, slots=True)
class GlobalTableSpec:
    """A topic that every process reads whole.

    Attributes:
        topic: its name.
        store: holds the rows; one per process.
        timestamp: as in ``Source``.
        skip: true when records that cannot be decoded are left out; otherwise they end the process.
    """

    topic: str
    store: StoreSpec
    timestamp: str | Callable[[Any, Any], int] | None = None
    skip: bool = False


@dataclass(frozen=True, slots=True)
class StreamGlobalJoin:
    """Each record of a stream with the row of a global table that a function of (key, value) chooses.

    Attributes:
        table: store of the global table.
        function: (key, value) to the row's key, or None.
        joiner: (stream's value, row's value or None) to the result.
        left: also records without a row.
        with_key: ``joiner`` takes the record's key too, in front.
    """

    table: str
    function: Callable[[Any, Any], Any]
    joiner: Callable[..., Any]
    left: bool = False
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the task's stores that it uses: none."""
        return ()


@dataclass(frozen=True, slots=True)
class JoinGrace:
    """Records of a stream that wait for the table.

    Attributes:
        store: keeps them.
        grace_ms: until the stream's time is so far past theirs.
        key, value: serdes of the stream.
    """

    store: str
    grace_ms: int
    key: Serde[Any]
    value: Serde[Any]


@dataclass(frozen=True, slots=True)
class StreamTableJoin:
    """Each record of a stream with the table's row of its key.

    Attributes:
        table: node of the table.
        rows: the stores in which its rows are found.
        joiner: (stream's value, row's value or None) to the result.
        left: also records without a row.
        tolerance_ms: how much older than the record the row may be; None: any.
        grace: keeps records back; None: they are joined when they come.
        with_key: ``joiner`` takes the record's key too, in front.
    """

    table: str
    rows: tuple[str, ...]
    joiner: Callable[..., Any]
    left: bool = False
    tolerance_ms: int | None = None
    grace: JoinGrace | None = None
    with_key: bool = False

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the stores it uses."""
        return self.rows if self.grace is None else (*self.rows, self.grace.store)


def _named(store: str | None) -> tuple[str, ...]:
    return () if store is None else (store,)


TableSpec = (
    TableSource | ToTable | TableFilter | TableMapValues | TableTransformValues | TableJoin | TableGroupBy | TableReduce
    | TableAggregate | StreamTableJoin | StreamGlobalJoin | ForeignKeySend | ForeignKeySubscribe | ForeignKeyChange
    | ForeignKeyResult
)  # fmt: skip
