"""The graph while it is being described: what the handles write to.

It is the only mutable thing of the package. A handle such as ``Stream`` holds a ``NodeRef`` and adds nodes behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamstate.errors import TopologyError
from streamstate.functions import Kind, checked_function, takes_key
from streamstate.graph.error_policy import FAIL, ErrorPolicy
from streamstate.graph.names import checked, shortened
from streamstate.graph.node import GlobalTableSpec, Node
from streamstate.graph.reading import Reading
from streamstate.graph.spec import OperatorSpec
from streamstate.serde import Serde, SerdeLike, serde_of
from streamstate.state.spec import StoreSpec


class GraphBuilder:
    """Nodes and stores in the order in which they were added: parents before children.

    Attributes:
        name: the topology's name.
        key: serde of keys where none is given or known; None: there is none.
        value: serde of values where none is given or known; None: there is none.
        nodes: by name.
        stores: by name.
        global_tables: by name of their stores.
        readings: how topics are read, by topic.
        version: changes with every change.
    """

    def __init__(self, name: str, key: Serde[Any] | None = None, value: Serde[Any] | None = None) -> None:
        self.name = name
        self.key = key
        self.value = value
        self.nodes: dict[str, Node] = {}
        self.stores: dict[str, StoreSpec] = {}
        self.global_tables: dict[str, GlobalTableSpec] = {}
        self.readings: dict[str, Reading] = {}
        self.version = 0
        self._ordinals: dict[tuple[str, str], int] = {}
        # Nodes whose generated name depends on the order of siblings.
        self._shifting: set[str] = set()

    def add(self, spec: OperatorSpec, parents: tuple[str, ...], kind: str, name: str | None = None) -> str:
        """Add a node and return its name: the one given, or the first parent's and ``kind``."""
        if name is None:
            name = self._generate(parents[0], kind)
        else:
            checked(name, f"name of {kind}")
        self._insert(Node(name, spec, parents))
        return name

    def replace(self, name: str, spec: OperatorSpec) -> None:
        """Give a node another spec in its place."""
        node = self.nodes[name]
        self.nodes[name] = Node(name, spec, node.parents)
        self.version += 1

    def add_store(self, store: StoreSpec) -> None:
        """Add a store; adding an equal one again is adding nothing."""
        checked(store.name, "name of a store")
        known = self.stores.setdefault(store.name, store)
        if known != store:
            raise TopologyError(
                f"two stores are named {store.name!r} and differ: give one of them another name, "
                "or share one StoreSpec object"
            )
        self.version += 1

    def claim_store(self, store: StoreSpec) -> None:
        """Add a store that only one operator may have."""
        if store.name in self.stores or store.name in self.global_tables:
            raise TopologyError(f"two stores are named {store.name!r}: give one of them another name with store=")
        self.add_store(store)

    def add_global_table(self, table: GlobalTableSpec) -> None:
        """Add a global table."""
        name = table.store.name
        if name in self.stores or name in self.global_tables:
            raise TopologyError(f"two stores are named {name!r}: give one of them another name with store=")
        self.global_tables[name] = table
        self.version += 1

    def lasting_name(self, parent: str, kind: str, keyword: str) -> str:
        """A generated name for something that outlives this process: a store or a topic.

        Raises:
            TopologyError: the name would shift when a sibling is added before it.
        """
        name = self._generate(parent, kind)
        if name in self._shifting:
            raise TopologyError(
                f"{kind} after {parent!r} would be called {name!r} after its place among like operators, which "
                f"changes when one is added before it, and would leave its state behind: pass {keyword}='...'"
            )
        return name

    def _generate(self, parent: str, kind: str) -> str:
        ordinal = self._ordinals.get((parent, kind), 0) + 1
        self._ordinals[parent, kind] = ordinal
        name = shortened(f"{parent}.{kind}" if ordinal == 1 else f"{parent}.{kind}-{ordinal}")
        if ordinal > 1 or parent in self._shifting:
            self._shifting.add(name)
        return name

    def _insert(self, node: Node) -> None:
        if node.name in self.nodes:
            raise TopologyError(
                f"two operators are named {node.name!r}: give one of them another name with name= "
                "(for count, reduce and aggregate with store=)"
            )
        self.nodes[node.name] = node
        self.version += 1


@dataclass(frozen=True, slots=True)
class NodeRef:
    """Where a handle stands in the builder, and what is known of the records there.

    Attributes:
        builder: the topology being described.
        node: the node whose output it is.
        key: serde of the key, where known.
        value: serde of the value, where known.
        key_changed: the key may differ from the one by which the records are partitioned.
        on_error: the policy of the source.
    """

    builder: GraphBuilder
    node: str
    key: Serde[Any] | None
    value: Serde[Any] | None
    key_changed: bool = False
    on_error: ErrorPolicy = FAIL

    def then(self, spec: OperatorSpec, kind: str, name: str | None) -> NodeRef:
        """The output of a new node that this one sends to."""
        return replace(self, node=self.builder.add(spec, (self.node,), kind, name))

    def with_new_key(self) -> NodeRef:
        """The same, after an operator that may change the key."""
        return replace(self, key=None, key_changed=True)

    def with_new_value(self) -> NodeRef:
        """The same, after an operator that may change the value."""
        return replace(self, value=None)

    def with_serdes(self, key: SerdeLike[Any] | None, value: SerdeLike[Any] | None) -> NodeRef:
        """The same, with the given serdes where not None.

        Raises:
            TopologyError: one is neither a serde nor a type that has one.
        """
        return replace(
            self,
            key=self.key if key is None else serde_of(key, f"key= after {self.node!r}", key=True),
            value=self.value if value is None else serde_of(value, f"value= after {self.node!r}"),
        )

    def check(self, function: object, operator: str, *forms: str, kind: Kind = "plain", argument: str = "") -> int:
        """Which of ``forms`` a function that ``operator`` was given has; see ``checked_function``.

        Raises:
            TopologyError: it has none of them.
        """
        where = f"{operator} after {self.node!r}"
        return checked_function(function, where, *forms, kind=kind, argument=argument)

    def takes_key(
        self, function: object, operator: str, *parameters: str, key: str = "key", kind: Kind = "plain"
    ) -> bool:
        """Whether a function takes the key in front of these parameters; see ``streamstate.functions.takes_key``.

        Raises:
            TopologyError: it takes something else.
        """
        return takes_key(function, f"{operator} after {self.node!r}", *parameters, key=key, kind=kind)

    def key_serde(self, kind: str) -> Serde[Any]:
        """The key's serde.

        Raises:
            TopologyError: it is not known; ``kind`` is the operator that needs it.
        """
        return self._need(self.key or self.builder.key, kind, "key")

    def value_serde(self, kind: str) -> Serde[Any]:
        """The value's serde.

        Raises:
            TopologyError: it is not known; ``kind`` is the operator that needs it.
        """
        return self._need(self.value or self.builder.value, kind, "value")

    def _need(self, serde: Serde[Any] | None, kind: str, what: str) -> Serde[Any]:
        if serde is None:
            raise TopologyError(
                f"{kind} after {self.node!r} needs the serde of the {what}, which an operator before it may have "
                f"changed: pass {what}= to {kind}, such as {what}=serde.json()"
            )
        return serde


@dataclass(frozen=True, slots=True)
class GlobalTableRef:
    """A global table of a topology.

    Attributes:
        builder: the topology being described.
        store: name of its store.
    """

    builder: GraphBuilder
    store: str


def same_builder(builder: GraphBuilder, other: GraphBuilder, kind: str) -> None:
    """Check that two handles belong together.

    Raises:
        TopologyError: they are of different topologies.
    """
    if builder is not other:
        raise TopologyError(
            f"{kind} of a stream of topology {builder.name!r} got one of another Topology, {other.name!r}: "
            "make both from one Topology object"
        )


def attached_stores(builder: GraphBuilder, stores: Sequence[StoreSpec | str], where: str) -> tuple[str, ...]:
    """Names of the stores in ``stores=``; those given as specs are added.

    Raises:
        TopologyError: it is no list, a name is illegal, or a different store has it.
    """
    if isinstance(stores, (str, StoreSpec)):
        raise TopologyError(f"{where} takes a list: stores=[{stores!r}]")
    for store in stores:
        if isinstance(store, StoreSpec):
            builder.add_store(store)
        else:
            checked(store, "name of a store")
    return tuple(dict.fromkeys(store if isinstance(store, str) else store.name for store in stores))
