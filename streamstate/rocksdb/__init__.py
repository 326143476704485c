"""State on RocksDB, and the directory it lives in."""

from streamstate.rocksdb.backend import Memory, RocksBackend
from streamstate.rocksdb.directory import StateDirectory
from streamstate.rocksdb.files import OpenFiles
from streamstate.rocksdb.scratch import RocksDisk

__all__ = ["Memory", "OpenFiles", "RocksBackend", "RocksDisk", "StateDirectory"]
