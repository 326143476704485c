"""Under which membership of the group a transaction is sent."""

from __future__ import annotations

from streamstate.engine.ports import Consumer, GroupMetadata


class GroupMembership:
    """The metadata of the records in the transaction, or a newer one of the same unbroken membership.

    A rebalance that left our partitions with us raises the generation, and brokers then refuse the older one. The
    client keeps its member id through such a change, and can only come back from being dropped after the lost
    callback ran, which voids what is uncommitted. Metadata of a client that is not a member is never kept: brokers
    take offsets sent with it unchecked.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._known: GroupMetadata | None = None
        self._changed = True

    def records_polled(self) -> None:
        """Records were read under the present membership.

        The client is asked once after each change only: asking waits for its own thread, several per cent of a batch.
        What is known then is the present one or an older one of the same member, which is the safe side.
        """
        if self._changed or self._known is None:
            self._ask()

    def assigned(self) -> None:
        """The group has changed, perhaps together with the member's id."""
        self._changed = True

    def revoking(self) -> None:
        """Revoked, not lost: the group still holds the partitions for us, so its present generation is ours."""
        self._ask()

    def _ask(self) -> None:
        present = self._consumer.group_metadata()
        if present.is_member:
            self._known = present
            self._changed = False

    def forget(self) -> None:
        """Nothing that was read before will be committed: it is rolled back. So what is committed next, be it only
        where idle partitions begin, is of the present membership."""
        self._known = None

    def metadata_to_commit(self) -> GroupMetadata:
        """What to send with the offsets; one that is not of a member must be refused by the caller."""
        present, known = self._consumer.group_metadata(), self._known
        if known is None:
            return present
        if present.is_member and present.member_id == known.member_id:
            self._known = known = present
        return known
