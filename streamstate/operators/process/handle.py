"""Operators of a stream that a user's class makes up: processors, and transformers of values.

Rule of this module: a part of ``Stream``, with its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from streamstate.functions import checked_supplier
from streamstate.graph.builder import NodeRef, attached_stores
from streamstate.graph.error_policy import checked_policy
from streamstate.graph.handles import Handle, OnError, stream_at
from streamstate.operators.process.api import Processor, ValueProcessor, ValueTransformer
from streamstate.operators.process.spec import Process, ProcessValues, TransformValues
from streamstate.state.spec import StoreSpec

if TYPE_CHECKING:
    from streamstate.dsl.stream import Stream

__all__ = ["Processing"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")


class Processing(Handle[K, V]):
    """What ``Stream`` has of these operators."""

    __slots__ = ()

    def process(
        self,
        supplier: Callable[[], Processor[K, V, K2, V2]],
        *,
        stores: Sequence[StoreSpec | str] = (),
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Stream[K2, V2]:
        """Send the records through a Processor of your own (Kafka Streams: ``process``).

        Args:
            supplier: a Processor subclass, or a function without arguments that makes one; it is called once for
                each task.
            stores: what ``context.store(name)`` may ask for: stores, or names of stores added by
                ``Topology.add_store``. Operators that share a store run in the same task.
            name: of the operator.
            on_error: for errors raised by this processor; by default the policy of the source.

        Raises:
            TopologyError: the supplier is not one, or a store's name is taken by a different store.

        >>> from streamstate import Processor, Topology, serde, stores
        >>> class Latest(Processor[str, int, str, int]):
        ...     def process(self, key, value):
        ...         self.context.store("latest").put(key, value)
        >>> numbers = Topology("t").stream("numbers", key=serde.string(), value=serde.long())
        >>> latest = stores.key_value("latest", key=serde.string(), value=serde.long())
        >>> numbers.process(Latest, stores=[latest])
        <Stream numbers.process>
        """
        spec = self._processing(Process, supplier, "process", Processor, "process", stores, on_error)
        return self._processed(self._at.then(spec, "process", name).with_new_key().with_new_value())

    def process_values(
        self,
        supplier: Callable[[], ValueProcessor[K, V, V2]],
        *,
        stores: Sequence[StoreSpec | str] = (),
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Stream[K, V2]:
        """Send the records through a ValueProcessor of your own (Kafka Streams: ``processValues``).

        It sees the key and cannot change it, so that no grouping behind it repartitions: as ``process`` in everything
        else.

        Args:
            supplier: a ValueProcessor subclass, or a function without arguments that makes one; it is called once for
                each task.
            stores: as for ``process``.
            name: of the operator.
            on_error: as for ``process``.

        Raises:
            TopologyError: as for ``process``.

        >>> from streamstate import Topology, ValueProcessor, serde
        >>> class Words(ValueProcessor[str, str, str]):
        ...     def process(self, key, value):
        ...         for word in value.split():
        ...             self.context.forward(word)
        >>> lines = Topology("t").stream("lines", key=serde.string(), value=serde.string())
        >>> lines.process_values(Words).group_by_key()
        <GroupedStream lines.process_values>
        """
        spec = self._processing(ProcessValues, supplier, "process_values", ValueProcessor, "process", stores, on_error)
        return self._processed(self._at.then(spec, "process_values", name).with_new_value())

    def transform_values(
        self,
        supplier: Callable[[], ValueTransformer[K, V, V2]],
        *,
        stores: Sequence[StoreSpec | str] = (),
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Stream[K, V2]:
        """Replace each value by what a ValueTransformer of your own makes of it: ``map_values`` with stores.

        Kafka Streams: ``transformValues``, since version 4 ``processValues``. It sees the key and cannot change it.

        Args:
            supplier: a ValueTransformer subclass, or a function without arguments that makes one; it is called once
                for each task. It is called for null values too, and a None that it returns is a null value.
            stores: as for ``process``.
            name: of the operator.
            on_error: as for ``process``.

        Raises:
            TopologyError: as for ``process``.

        >>> from streamstate import Topology, ValueTransformer, serde
        >>> class Labelled(ValueTransformer[str, str, str]):
        ...     def transform(self, key, value):
        ...         return f"{key}: {value}"
        >>> Topology("t").stream("lines", key=serde.string(), value=serde.string()).transform_values(Labelled)
        <Stream lines.transform_values>
        """
        spec = self._processing(
            TransformValues, supplier, "transform_values", ValueTransformer, "transform", stores, on_error
        )
        return self._processed(self._at.then(spec, "transform_values", name).with_new_value())

    def _processing(
        self,
        kind: type[Process],
        supplier: object,
        operator: str,
        base: type,
        method: str,
        stores: Sequence[StoreSpec | str],
        on_error: OnError | None,
    ) -> Process:
        where = f"{operator} after {self._at.node!r}"
        made = checked_supplier(supplier, where, base, method)
        names = attached_stores(self._at.builder, stores, where)
        return kind(made, names, None if on_error is None else checked_policy(on_error))

    def _processed(self, at: NodeRef) -> Stream[Any, Any]:
        return stream_at(at)
