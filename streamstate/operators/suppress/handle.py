"""``Table.suppress``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar

from streamstate.graph.handles import Handle, table_at
from streamstate.graph.names import checked
from streamstate.operators.suppress.build import TimeLimit, WindowClose, buffer_store, suppress_spec
from streamstate.serde import SerdeLike

if TYPE_CHECKING:
    from streamstate.dsl.table import Table

__all__ = ["Suppression"]

K = TypeVar("K")
V = TypeVar("V")


class Suppression(Handle[K, V]):
    """Holding changes back."""

    __slots__ = ()

    def suppress(
        self,
        until: TimeLimit | WindowClose,
        *,
        max_records: int | None = None,
        max_bytes: int | None = None,
        when_full: Literal["emit", "stop"] | None = None,
        value: SerdeLike[V] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Table[K, V]:
        """Hold changes back, of each key only the newest (Kafka Streams: ``KTable.suppress``).

        What is held is in a changelogged store; its keys and their order are in memory.

        Args:
            until: ``time_limit(...)`` or ``window_close()``. Time is that of the changes that come here.
            max_records: most keys held; by default any number.
            max_bytes: of what is held, roughly; by default any number.
            when_full: ``emit`` sends the first ones early; ``stop`` stops the worker, and is the only choice for
                ``window_close()``, whose results are final.
            value: serde of the table's values; by default the one known.
            store: name of the store; it names the changelog topic.
            name: of the operator.

        Raises:
            TopologyError: a serde is not known, there are no windows that close, a limit is below 1, or the name is
                taken.

        >>> from datetime import timedelta
        >>> from streamstate import Topology, serde, window_close, windows
        >>> words = Topology("t").stream("words", key=serde.string()).group_by_key()
        >>> hourly = words.windowed_by(windows.tumbling(timedelta(hours=1))).count(store="hourly")
        >>> hourly.suppress(window_close(), max_records=1_000_000, store="open-hours")
        <Table open-hours.suppress>
        """
        at = self._at.with_serdes(None, value)
        spec = suppress_spec(at, until, max_records, max_bytes, when_full)
        if store is None:
            store = at.builder.lasting_name(at.node, "suppress", "store")
            name = name or store
        name = name or f"{checked(store, 'name of a store')}.suppress"
        at.builder.claim_store(
            buffer_store(
                store,
                spec.key,
                at.value_serde("suppress"),
                "changes held until " + ("windows close" if spec.by_window else "a time limit"),
            )
        )
        return table_at(at.then(replace(spec, store=store), "suppress", name))
