"""Keep the group membership under which the offsets of a transaction are sent."""

from __future__ import annotations

from streamstate.engine.ports import Consumer, GroupMetadata


class GroupMembership:
    """Keeps the metadata of the membership that the records in the transaction were read under, or a newer one of it.

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
        """Keep the present membership: records were read under it.

        Asks the client only once after each change, because each answer waits for the client's thread, which costs
        several per cent of a batch. The kept membership is then the present one or an older one of the same member,
        which is safe.
        """
        if self._changed or self._known is None:
            self._ask()

    def assigned(self) -> None:
        """Ask again before the next batch: the group has changed, perhaps with the member's id."""
        self._changed = True

    def revoking(self) -> None:
        """Keep the present generation: the group holds revoked partitions for us until the callback returns."""
        self._ask()

    def _ask(self) -> None:
        present = self._consumer.group_metadata()
        if present.is_member:
            self._known = present
            self._changed = False

    def forget(self) -> None:
        """Forget the membership after a roll-back: the next commit holds nothing that was read before."""
        self._known = None

    def metadata_to_commit(self) -> GroupMetadata:
        """Return the metadata to send with offsets. The caller must refuse it when it is not of a member."""
        present, known = self._consumer.group_metadata(), self._known
        if known is None:
            return present
        if present.is_member and present.member_id == known.member_id:
            self._known = known = present
        return known
