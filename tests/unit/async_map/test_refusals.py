"""What ``map_batches`` and ``map_async`` refuse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamstate import (
    Topology,
    TopologyError,
)
from tests.unit.async_map.support import shout

# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size= takes"),
        ({"delay": timedelta(-1)}, "delay= takes"),
    ],
)
def test_batches_that_are_none(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        Topology("t").stream("in").map_batches(list, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": "time"}, "order= takes 'key', 'input' or 'none'"),
        ({"in_flight": 0}, "in_flight= takes"),
        ({"timeout": timedelta(0)}, "timeout= takes"),
        ({"retries": -1}, "retries= takes"),
        ({"backoff": timedelta(-1)}, "backoff= takes"),
    ],
)
def test_calls_that_are_none(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        Topology("t").stream("in").map_async(shout, **options)
