"""What point lookups cost when the state is larger than the block cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamstate.rocksdb.backend import Memory, RocksBackend

KEYS, LOOKUPS = 1_500_000, 500
STORE = "counts"
PROCESS_IO = Path("/proc/self/io")


def _read_bytes() -> int:
    [line] = [line for line in PROCESS_IO.read_text().splitlines() if line.startswith("rchar:")]
    return int(line.split()[1])


@pytest.mark.skipif(not PROCESS_IO.exists(), reason="only Linux counts what a process reads")
def test_a_lookup_reads_blocks_and_never_a_whole_filter(tmp_path: Path) -> None:
    # The filter of all keys takes 1.9 MB, nearly all of the cache.
    backend = RocksBackend(tmp_path / "task", [STORE], Memory(2 << 20, 16 << 20))
    try:
        for start in range(0, KEYS, 50_000):
            entries: dict[bytes, bytes | None] = {
                b"user-%08d" % (key * 7_919 % KEYS): b"value-%08d" % key for key in range(start, start + 50_000)
            }
            backend.apply({STORE: entries}, {}, {}, {})
        # One file, as a large store has them after its compactions.
        backend._families[STORE].compact_range(None, None)
        read = backend.reader(STORE)
        before = _read_bytes()
        for key in range(0, KEYS, KEYS // LOOKUPS):
            assert read(b"user-%08d" % key) is not None
            assert read(b"user-%08d-" % key) is None
        per_lookup = (_read_bytes() - before) / (2 * LOOKUPS)
    finally:
        backend.close()
    assert per_lookup < 16 << 10, f"{per_lookup:.0f} bytes per lookup"
