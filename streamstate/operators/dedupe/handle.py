"""``Stream.dedupe``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from streamstate.graph.handles import Handle, stream_at
from streamstate.operators.dedupe.build import deduplicated
from streamstate.serde import SerdeLike
from streamstate.units import Duration

if TYPE_CHECKING:
    from streamstate.dsl.stream import Stream

__all__ = ["Deduplication"]

K = TypeVar("K")
V = TypeVar("V")


class Deduplication(Handle[K, V]):
    """Leaving out records that came before."""

    __slots__ = ()

    def dedupe(
        self,
        within: Duration,
        *,
        by: str | Callable[[K, V], Any] | None = None,
        identity: SerdeLike[Any] | None = None,
        store: str | None = None,
        name: str | None = None,
    ) -> Stream[K, V]:
        """Pass on the first record of each identity, and leave out those that repeat it (Flink SQL: deduplication).

        A record repeats another when it has the same identity, the other one has passed, and stream time is less than
        ``within`` past the other one's event time. Records that are left out are counted as ``dropped``. They do not
        prolong the time: the first record behind it passes again. A record that is later than ``within`` when it comes
        passes, because nobody remembers what came in its time.

        Args:
            within: how long an identity is remembered.
            by: the identity: the name of a field of the value, or a function of (key, value); by default the key. Of
                records whose identity is None, all pass. Records with the same identity must have the same key: each
                task remembers what came in its own partition.
            identity: serde of what ``by`` gives; by default the topology's serde of keys, or JSON.
            store: name of the store that remembers; it names the changelog topic.
            name: of the operator.

        Raises:
            TopologyError: a serde is not known, ``within`` is below a millisecond, or the store's name is taken,
                illegal or cannot be generated.

        >>> from streamstate import Topology
        >>> orders = Topology("t", key=str, value=dict).stream("orders")
        >>> orders.dedupe("1h", by="order_id", store="seen-orders")
        <Stream seen-orders.dedupe>
        """
        return stream_at(deduplicated(self._at, within, by, identity, store, name))
