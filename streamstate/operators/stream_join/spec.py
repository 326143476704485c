"""Joins of two streams, by key and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from streamstate.graph.node import Graph, Node
from streamstate.graph.queries import policy_behind
from streamstate.graph.spec import Facts, SpecDefaults
from streamstate.operators.base.compilation import Compilation
from streamstate.operators.base.describing import grace_is_default, with_grace
from streamstate.operators.base.forwarding import fan_out
from streamstate.operators.stream_join.runtime import TimedRecords, UnmatchedRecords, inner_join, self_join, stream_join
from streamstate.serde import Serde
from streamstate.windows import JoinWindows

__all__ = ["StreamJoin"]


@dataclass(frozen=True, slots=True)
class StreamJoin(SpecDefaults):
    """Joins two streams by key and time.

    Attributes:
        left, right: the nodes they come from; the same one in a self-join.
        within: how far apart records may be.
        joiner: (left value, right value) to that of the result; None for what is missing.
        left_alone, right_alone: records of that side that meet nothing are sent too.
        key: serde of the key.
        stores: of left records, of right ones and of those that wait; a self-join that sends nothing alone has one.
        with_key: ``joiner`` takes the key too, in front.
    """

    operator: ClassVar[str] = "stream_join"

    left: str
    right: str
    within: JoinWindows
    joiner: Callable[..., Any]
    left_alone: bool
    right_alone: bool
    key: Serde[Any]
    stores: tuple[str, ...]
    with_key: bool = False

    @property
    def takes_null_keys(self) -> bool:
        """In left and outer joins they are sent alone."""
        return self.left_alone or self.right_alone

    def facts(self, graph: Graph, application_id: str) -> Facts:
        """How far apart records may be, and who is sent alone."""
        alone = [side for side, sent in (("left", self.left_alone), ("right", self.right_alone)) if sent]
        return {"within": asdict(self.within), "alone": alone, "grace_is_default": grace_is_default(self.within)}

    def summary(self, facts: Mapping[str, Any]) -> list[str]:
        """The same."""
        parts = [self.operator, "within " + with_grace(facts["within"], default=facts["grace_is_default"])]
        return parts + [f"{side} records alone too" for side in facts["alone"]]

    def compile(self, compilation: Compilation, node: Node) -> None:
        """An entry for each side."""
        name, context, forward = node.name, compilation.context, compilation.forward(node)
        records = [TimedRecords(compilation.stores[store]) for store in self.stores[:2]]
        if len(records) == 1:
            compilation.streams[name] = self_join(name, self, records[0], context, forward)
            return
        unmatched = None
        if len(self.stores) == 3:
            store, policy = compilation.stores[self.stores[2]], policy_behind(compilation.graph, name)
            unmatched = UnmatchedRecords(name, self, store, context, forward, policy)
            compilation.task.processors.append(unmatched)
        left, right = records
        if unmatched is None and self.left != self.right and not left.undoing and left.length_ms == right.length_ms:
            compilation.sides[name, self.left] = inner_join(name, self, left, right, context, forward, left=True)
            compilation.sides[name, self.right] = inner_join(name, self, right, left, context, forward, left=False)
            return
        from_left = stream_join(name, self, left, right, unmatched, context, forward, left=True)
        from_right = stream_join(name, self, right, left, unmatched, context, forward, left=False)
        if self.left == self.right:
            compilation.streams[name] = fan_out([from_left, from_right])
            return
        compilation.sides[name, self.left] = from_left
        compilation.sides[name, self.right] = from_right
