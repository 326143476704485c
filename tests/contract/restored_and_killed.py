"""Restores a store, and is killed on the way: ``python -m tests.contract.restored_and_killed PATH MOMENT ...``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from streamstate.rocksdb import backend as rocks
from streamstate.rocksdb.backend import Memory, RocksBackend

BATCH, BATCHES, EARLIER = 50, 40, 300
END = BATCH * BATCHES
# When it is killed: before the batch of this number; or, behind all of them, when the store is complete, within the
# next apply before its positions are written and right behind that, behind the apply, or behind a close.
MOMENTS = ("7", "25", "complete", "in files", "kept", "applied", "closed")

Record = tuple[bytes, bytes | None]


def changelog() -> list[Record]:
    """Keys that change often, or go; and keys that come once, which nothing later makes up for."""
    records: list[Record] = []
    for offset in range(END):
        if offset % 3 == 0:
            records.append((b"once-%d" % offset, b"%d" % offset * 50))
        else:
            records.append((b"often-%d" % (offset % 89), None if offset % 7 == 0 else b"%d" % offset * 50))
    return records


def newest(records: list[Record]) -> dict[bytes, bytes | None]:
    """One per key."""
    return dict(records)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying_at_the_next_write(behind: bool) -> None:
    """Die in place of it, or right behind it."""
    write = RocksBackend._write

    def last(backend: RocksBackend, batch: Any) -> None:
        if behind:
            write(backend, batch)
        _die()

    RocksBackend._write = last  # type: ignore[method-assign]


def main(path: str, moment: str, earlier: str, buffer_bytes: str, keep_every_s: str) -> None:
    """See above."""
    rocks.KEEP_EVERY_S = int(keep_every_s)  # type: ignore[misc]
    records = changelog()
    backend = RocksBackend(Path(path), ["s", "other"], Memory(1 << 20, int(buffer_bytes)))
    start = 0
    if earlier == "True":
        start = EARLIER
        backend.apply({"s": newest(records[:start])}, {"s": start, "other": 1}, {("in", 0): 1})
    for number in range(start // BATCH, BATCHES):
        if moment == str(number):
            _die()
        after = (number + 1) * BATCH
        backend.restore("s", newest(records[after - BATCH : after]), after)
        backend.restore("other", {b"%d" % after: b"v" * 50}, after)
    backend.restore("other", {}, END, complete=True)
    backend.restore("s", {}, END, complete=True)
    if moment == "complete":
        _die()
    if moment == "closed":
        backend.close()
        _die()
    if moment != "applied":
        _dying_at_the_next_write(behind=moment == "kept")
    backend.apply({"s": {b"applied": b"1"}}, {"s": END + 1}, {("in", 0): 2})
    _die()


if __name__ == "__main__":
    main(*sys.argv[1:])
