"""``Backend`` on RocksDB: one database per task, one column family per store.

Rule of this module: every change is one WriteBatch over all column families, with the write-ahead log on and not
synced. A killed process loses nothing it applied; a machine that loses power loses the newest batches whole, and the
changelog has them.

Entries that are restored go past the log, and their position stays in memory until they are in files: a position on
disk never says more than the files have. What a crash leaves of them is replayed over, from the position before.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Env,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from streamstate.errors import StateDirectoryFailed, StreamStateError, TaskCorrupted, TooManyOpenFiles
from streamstate.rocksdb.files import MOST_TABLES, RESERVED_BY_ROCKSDB, limit_reached
from streamstate.state.backend import NO_FACTS, NOTHING_EXPIRED, InputPartition, StateDamaged, Writes

log = logging.getLogger("streamstate.rocksdb")

FORMAT = b"1"
FORMAT_KEY = b"format"
POSITION = b"position:"
OFFSET = b"offset:"
FACT = b"fact:"
# When (seconds since 1970) a store last was what Kafka had: at the task's newest commit, or when its replay began. Each
# store has its own: one that is out of the topology for a while ages, while the others' commits go on.
CURRENT = b"current:"
# A crash makes at most this long a part of a restore, in seconds, be done again.
KEEP_EVERY_S: Final = 10
# Column families of stores are prefixed, so that a store may be called "default".
FAMILY = "store:"
# Databases that are closed at the same time, each of which waits for the disk several times, and write buffers that
# RocksDB writes to files at the same time.
CLOSING: Final = 8
FLUSHING: Final = 4
# What a write buffer takes at a time as it grows. RocksDB's own choice is the first; it counts in full against the
# budget from the first entry on: 300 tasks with a store would be over it for good, and commits would write tiny files.
MOST_ARENA_BYTES: Final = 1 << 20
LEAST_ARENA_BYTES: Final = 4 << 10
# Write-ahead log of a database whose entries are not all in files: read again after a kill, and its files are open.
MOST_LOG_BYTES: Final = 128 << 20
LEAST_LOG_BYTES: Final = 32 << 20
ALL_LOGS_BYTES: Final = 1 << 30


class Memory:
    """What all databases of the process share: block cache, write buffers, and the threads that close them.

    Args:
        block_cache_bytes: for blocks read.
        write_buffer_bytes: for blocks not yet written to files, over all databases.
    """

    def __init__(self, block_cache_bytes: int = 128 << 20, write_buffer_bytes: int = 128 << 20) -> None:
        self.cache = Cache(block_cache_bytes)
        self.write_buffers = WriteBufferManager(write_buffer_bytes, False)
        self._write_buffer_bytes = write_buffer_bytes
        self._arena_bytes = MOST_ARENA_BYTES
        self._log_bytes = MOST_LOG_BYTES
        self._tables = MOST_TABLES
        self._closers: ThreadPoolExecutor | None = None
        # Of the process, whatever the number of databases.
        Env().set_high_priority_background_threads(FLUSHING)

    def share(self, databases: int, tables: int) -> None:
        """Divide what is left to divide among so many; holds for databases that are opened from now on.

        Args:
            databases: how many the process is about to have.
            tables: how many tables each may hold open.
        """
        databases = max(1, databases)
        # So that a few buffers of each, begun and no more, are a part of the budget only.
        self._arena_bytes = min(MOST_ARENA_BYTES, max(LEAST_ARENA_BYTES, self._write_buffer_bytes // (16 * databases)))
        self._log_bytes = min(MOST_LOG_BYTES, max(LEAST_LOG_BYTES, ALL_LOGS_BYTES // databases))
        self._tables = tables

    def beside(self, close: Callable[[], None]) -> Future[None]:
        """Close a database in one of a few threads."""
        if self._closers is None:
            self._closers = ThreadPoolExecutor(CLOSING, "streamstate closing")
        return self._closers.submit(close)

    def end(self) -> None:
        """Let go of the threads; they come back when they are needed."""
        closers, self._closers = self._closers, None
        if closers is not None:
            closers.shutdown()

    def options(self) -> Options:
        """Options of a database or column family; tuned for point lookups."""
        table = BlockBasedOptions()
        table.set_block_cache(self.cache)
        table.set_bloom_filter(10, False)
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        # In parts of 4 KiB: a whole filter (of 3 million keys: 4 MiB) that is larger than a shard of the cache is never
        # kept. Each lookup would read all of it again, 460 us instead of 13.
        table.set_partition_filters(True)
        table.set_index_type(BlockBasedIndexType.two_level_index_search())
        table.set_metadata_block_size(4 << 10)
        table.set_pin_top_level_index_and_filter(True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(self.write_buffers)
        options.set_write_buffer_size(32 << 20)
        options.set_max_write_buffer_number(3)
        options.set_arena_block_size(self._arena_bytes)
        options.set_max_total_wal_size(self._log_bytes)
        options.set_level_compaction_dynamic_level_bytes(True)
        # What is written now is soon written again: it is compressed where it comes to rest. A tenth of a restore.
        options.set_compression_per_level([DBCompressionType.none()] * 2 + [DBCompressionType.snappy()] * 5)
        # One thread writes. Another tenth.
        options.set_allow_concurrent_memtable_write(False)
        options.set_max_background_jobs(2)
        options.set_max_open_files(self._tables + RESERVED_BY_ROCKSDB)
        # By default every database starts sixteen threads when it is opened.
        options.set_max_file_opening_threads(1)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 << 20)
        return options


class RocksBackend:
    """See ``streamstate.state.Backend``.

    Args:
        path: the database's directory; made when missing.
        stores: names of the task's stores.
        memory: shared with the process's other databases.
        release: called after the database is closed, to unlock its directory.
        written: called after each change that a killed process leaves; not for what is restored until that is in files.
        usable_s: how long after it was current a store may be used; one that is older, or of unknown age, is cleared.

    Attributes:
        current_s: when (seconds since 1970) a store last was what Kafka had, of the task's stores that hold anything.

    Raises:
        TaskCorrupted: it was written by a newer version.
    """

    def __init__(
        self,
        path: Path,
        stores: Sequence[str],
        memory: Memory,
        release: Callable[[], None] = lambda: None,
        written: Callable[[], None] = lambda: None,
        usable_s: float = math.inf,
    ) -> None:
        self._path = path
        self._memory = memory
        self._release = release
        self._closed = False
        self._written = written
        self._damaged = False
        self._past_log = WriteOptions()
        # An attribute, whatever its stub says.
        self._past_log.disable_wal = True  # type: ignore[assignment, method-assign]
        # Positions of what was restored and may be in memory only, and since when.
        self._restored: dict[str, int] = {}
        self._restored_since_s = 0.0
        # By store, when the restore under way began.
        self._restoring_since_s: dict[str, float] = {}
        self._closing: Future[None] | None = None
        self.current_s: dict[str, float] = {}
        self._families: dict[str, Any] = {}
        self._handles: dict[str, Any] = {}
        self._db: Any = _open(path, stores, memory)
        try:
            with self._explained():
                self._check_format()
                for store in stores:
                    self._families[store] = self._db.get_column_family(FAMILY + store)
                    self._handles[store] = self._db.get_column_family_handle(FAMILY + store)
            self._clear_stale(usable_s)
        except BaseException:
            self._handles.clear()
            self._close_files()
            raise

    def _clear_stale(self, usable_s: float) -> None:
        """A store that is older than the tombstones of its changelog may hold keys whose deletion is gone."""
        known = {store: float(seconds) for store, seconds in self._meta(CURRENT)}
        # A store that has left the topology is seen to when it is back.
        self.current_s.update((store, known[store]) for store in self._handles if store in known)
        oldest_s = time.time() - usable_s
        for store in sorted(self.positions().keys() & self._handles.keys()):
            if self.current_s.get(store, -math.inf) < oldest_s:
                log.warning(
                    "store %r in %s is %s: it is restored from the start",
                    store,
                    self._path,
                    f"older than {usable_s / 3_600:.0f} hours, within which deletions stay in its changelog"
                    if store in known
                    else "of unknown age",
                )
                self.clear(store)

    def _check_format(self) -> None:
        found = self._db.get(FORMAT_KEY)
        if found is None:
            self._db.put(FORMAT_KEY, FORMAT)
        elif found != FORMAT:
            raise TaskCorrupted(
                f"state in {self._path} has format {found.decode('utf-8', 'replace')}, this version of streamstate "
                f"reads format {FORMAT.decode()}; run the version that wrote it, or delete the directory to restore "
                f"it from the changelog"
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of RocksDB within, as what they ask for."""
        try:
            yield
        except StreamStateError:
            raise
        except Exception as error:
            raise self._explanation(error) from error

    def _explanation(self, error: Exception) -> StreamStateError:
        if _is_corruption(error):
            self._damaged = True
            return StateDamaged(f"the state in {self._path} is damaged: {error}", self)
        return failed(self._path, error)

    def reader(self, store: str) -> Callable[[bytes], bytes | None]:
        get: Callable[[bytes], bytes | None] = self._families[store].get

        def read(key: bytes) -> bytes | None:
            try:
                return get(key)
            except Exception as error:
                raise self._explanation(error) from error

        return read

    def scan(self, store: str, start: bytes | None, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        family = self._families[store]
        if start and end is not None and end.startswith(start) and not reverse:
            return self._short(family, start, end)
        with self._explained():
            # Made here, so that it shows this moment.
            entries = family.items(backwards=reverse, from_key=end if reverse else start)
        return self._scan(family, entries, start, end, reverse)

    def _short(self, family: Any, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What has a prefix is little, mostly: a cursor costs more per entry, and a third to begin and to end."""
        try:
            cursor = family.iter()
            cursor.seek(start)
        except Exception as error:
            raise self._explanation(error) from error
        return self._until(cursor, end)

    def _until(self, cursor: Any, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            while cursor.valid():
                key = cursor.key()
                if key >= end:
                    return
                yield key, cursor.value()
                cursor.next()
            # At a damaged block it ends as if there were no more.
            cursor.status()
        except Exception as error:
            raise self._explanation(error) from error

    def _scan(
        self,
        family: Any,
        entries: Iterator[tuple[bytes, bytes]],
        start: bytes | None,
        end: bytes | None,
        reverse: bool,
    ) -> Iterator[tuple[bytes, bytes]]:
        last = None
        with self._explained():
            for entry in entries:
                last = entry[0]
                if reverse:
                    if end is not None and last >= end:
                        continue
                    if start is not None and last < start:
                        return
                elif end is not None and last >= end:
                    return
                yield entry
            _check_end(family, (end if reverse else start) if last is None else last, reverse)

    def apply(
        self,
        writes: Writes,
        positions: Mapping[str, int],
        offsets: Mapping[InputPartition, int],
        expired_below: Mapping[str, bytes] = NOTHING_EXPIRED,
        *,
        current: bool = True,
        facts: Mapping[str, str] = NO_FACTS,
    ) -> None:
        if self._restored:
            # Before anything that builds on it: a log that is read again would have a hole below.
            self._keep_restored()
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for store, bound in expired_below.items():
            batch.delete_range(b"", bound, self._handles[store])
        for store, entries in writes.items():
            _fill(batch, self._handles[store], entries, expired_below.get(store, b""))
        for store, position in positions.items():
            put(POSITION + store.encode(), b"%d" % position)
        for (topic, partition), offset in offsets.items():
            put(OFFSET + f"{topic}:{partition}".encode(), b"%d" % offset)
        for name, text in facts.items():
            put(FACT + name.encode(), text.encode())
        now_s = time.time()
        for store in self._handles:
            if current or store not in self.current_s:
                self.current_s[store] = now_s
            put(CURRENT + store.encode(), b"%d" % self.current_s[store])
        self._write(batch)

    def _write(self, batch: WriteBatch) -> None:
        with self._explained():
            self._db.write(batch)
            self._written()

    def restore(
        self, store: str, records: Mapping[bytes, bytes | None], position: int, *, complete: bool = False
    ) -> None:
        now_s = time.monotonic()
        began_s = self._restoring_since_s.setdefault(store, time.time())
        self.current_s.setdefault(store, began_s)
        if not self._restored:
            self._restored_since_s = now_s
        if records:
            batch = WriteBatch(raw_mode=True)
            _fill(batch, self._handles[store], records)
            with self._explained():
                self._db.write(batch, self._past_log)
        self._restored[store] = position
        if complete:
            # Up to what there was when this replay began, tombstones included.
            self.current_s[store] = self._restoring_since_s.pop(store)
            try:
                # Into files while others are restored, and while records are processed.
                self._families[store].flush(False)
            except Exception as error:  # noqa: BLE001 - what is wrong with the disk shows when positions are kept
                # RocksDB refuses it while it holds writes back.
                log.debug("store %r is flushed later: %s", store, error)
        if now_s - self._restored_since_s >= KEEP_EVERY_S:
            self._keep_restored()

    def _keep_restored(self) -> None:
        """Entries first, then the positions that speak of them."""
        batch = WriteBatch(raw_mode=True)
        with self._explained():
            for store, position in self._restored.items():
                self._families[store].flush()
                batch.put(POSITION + store.encode(), b"%d" % position)
                batch.put(CURRENT + store.encode(), b"%d" % self.current_s[store])
        self._write(batch)
        self._restored.clear()

    def positions(self) -> dict[str, int]:
        return {name: int(value) for name, value in self._meta(POSITION)} | self._restored

    def offsets(self) -> dict[InputPartition, int]:
        found = {}
        for name, value in self._meta(OFFSET):
            topic, _, partition = name.rpartition(":")
            found[topic, int(partition)] = int(value)
        return found

    def facts(self) -> dict[str, str]:
        return {name: value.decode() for name, value in self._meta(FACT)}

    def note(self, facts: Mapping[str, str]) -> None:
        batch = WriteBatch(raw_mode=True)
        for name, value in facts.items():
            batch.put(FACT + name.encode(), value.encode())
        self._write(batch)

    def _meta(self, prefix: bytes) -> list[tuple[str, bytes]]:
        found = []
        with self._explained():
            for key, value in self._db.items(from_key=prefix):
                if not key.startswith(prefix):
                    break
                found.append((key[len(prefix) :].decode(), value))
            else:
                _check_end(self._db, prefix, False)
        return found

    def clear(self, store: str) -> None:
        batch = WriteBatch(raw_mode=True)
        # As one range: it may have been restored by half, and be large.
        last = next(self.scan(store, None, None, True), None)
        if last is not None:
            batch.delete_range(b"", last[0] + b"\x00", self._handles[store])
        batch.delete(POSITION + store.encode())
        batch.delete(CURRENT + store.encode())
        self._write(batch)
        self._restored.pop(store, None)
        self._restoring_since_s.pop(store, None)
        self.current_s.pop(store, None)

    def begin_close(self) -> None:
        if self._closing is None:
            self._closing = self._memory.beside(self._close)

    def close(self) -> None:
        if self._closing is None:
            self._close()
        else:
            self._closing.result()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._restored and not self._damaged:
                try:
                    self._keep_restored()
                except StreamStateError as error:
                    log.warning("what was restored last will be restored again: %s", error)
            self._handles.clear()
            self._close_files()
            if self._damaged:
                set_aside(self._path)
        finally:
            self._release()

    def _close_files(self) -> None:
        # A column family that is still open keeps the database's lock.
        families = list(self._families.values())
        self._families.clear()
        for part in (*families, self._db):
            try:
                part.close()
            except Exception as error:  # noqa: BLE001 - RocksDB says here again what it said of an earlier write
                log.warning("closing the state in %s: %s", self._path, error)


def _fill(batch: WriteBatch, handle: Any, entries: Mapping[bytes, bytes | None], bound: bytes = b"") -> None:
    """Put entries of a store into a batch, without deletions below ``bound``, where a range is deleted as a whole.

    Afterwards the batch goes on with the database's own column family.
    """
    # By subscript, without a handle in each call: half of what ``put`` with one takes.
    batch.set_default_column_family(handle)
    # In key order: one behind the other they go into the memtable for a third; sorting takes a sixth.
    for key in sorted([key for key in entries if key >= bound] if bound else entries):
        value = entries[key]
        if value is not None:
            batch[key] = value
        else:
            del batch[key]
    batch.set_default_column_family(None)


def _open(path: Path, stores: Sequence[str], memory: Memory) -> Rdict:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = memory.options()
    families = {FAMILY + store: memory.options() for store in stores}
    try:
        existing = Rdict.list_cf(str(path), options) if (path / "CURRENT").exists() else []
        # A store that left the topology keeps its column family: it may come back.
        families.update({name: memory.options() for name in existing if name != "default" and name not in families})
        return Rdict(str(path), options=options, column_families=families)
    except Exception as error:
        if not _is_corruption(error):
            raise failed(path, error) from error
        log.warning("the state in %s is damaged: %s", path, error)
        set_aside(path)
        return Rdict(str(path), options=options, column_families=families)


def set_aside(path: Path) -> None:
    """Keep a damaged database beside its place, where the next one starts empty."""
    aside = path.with_name(f"{path.name}.corrupt")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    log.warning("what was in %s is kept as %s, and the state is restored from the changelog", path, aside)


def failed(path: Path, error: Exception) -> StreamStateError:
    """The error for a disk that does not take or give what it should, or for a machine that opens no more files."""
    limit = limit_reached(error)
    if limit:
        return TooManyOpenFiles(
            f"the state in {path} cannot be used: {limit}. Nothing is lost: Kafka has all that was committed"
        )
    return StateDirectoryFailed(
        f"the state in {path} cannot be used: {error}. Nothing is lost: Kafka has all that was committed. Make room, "
        f"mend the disk or the rights, or name another --state-dir, and start again"
    )


def _is_corruption(error: Exception) -> bool:
    # A file that cannot be opened because too many are is whole.
    return "Corruption" in str(error) and not limit_reached(error)


def _check_end(family: Any, key: bytes | None, backwards: bool) -> None:
    """Raise what ended an iteration, if it was not the end: the client's iterators end silently at damaged blocks.

    Args:
        key: the last one seen, or the one it began at; None: the very first.
    """
    probe = family.iter()
    if key is None:
        probe.seek_to_last() if backwards else probe.seek_to_first()
    elif backwards:
        probe.seek_for_prev(key)
    else:
        probe.seek(key)
    if probe.valid():
        probe.prev() if backwards else probe.next()
    probe.status()
