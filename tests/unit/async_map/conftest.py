"""Fixtures of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamstate.rocksdb import RocksDisk
from streamstate.testing.memory_broker.application import Disk


@pytest.fixture(params=["memory", "rocksdb"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk | RocksDisk:
    return Disk() if request.param == "memory" else RocksDisk(tmp_path / "state")
