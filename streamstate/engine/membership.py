"""Under which membership of the group a transaction is sent."""

from __future__ import annotations

from collections.abc import Callable

from streamstate.engine.ports import Consumer, GroupMetadata


class Membership:
    """The metadata of the records in the transaction, or a newer one of the same unbroken membership.

    A rebalance that left our partitions with us raises the generation, and brokers then refuse the older one. The
    client keeps its member id through such a change, and can only come back from being dropped after the lost
    callback ran, which voids what is uncommitted. Metadata of a client that is not a member is never kept: brokers
    take offsets sent with it unchecked.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._known: GroupMetadata | None = None
        self._losses = 0

    def records_taken(self) -> None:
        """Records were read under the present membership."""
        present = self._consumer.group_metadata()
        if present.is_member:
            self._known = present

    # Revoked, not lost: the group still holds the partitions for us, so its present generation is ours.
    revoking = records_taken

    def lost(self) -> None:
        """The group dropped this member: nothing that was read before may be committed. To be called before anything
        else is done about it."""
        self._losses += 1
        self._known = None

    def for_commit(self) -> Callable[[], GroupMetadata]:
        """What to send with the offsets of a commit that begins now: a function to be called when they are sent, in
        whatever thread. Metadata that is not of a member must be refused by the caller."""
        known = self._known or self._consumer.group_metadata()
        losses = self._losses

        def current() -> GroupMetadata:
            present = self._consumer.group_metadata()
            # In this order: with no loss told by now, ``present`` was still the unbroken membership when it was asked.
            if self._losses == losses and present.is_member and present.member_id == known.member_id:
                return present
            return known

        return current
