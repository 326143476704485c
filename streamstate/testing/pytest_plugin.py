"""A pytest fixture that makes drivers and closes them.

Opt-in, so that nothing is imported into test runs that do not want it. In ``conftest.py``:

    pytest_plugins = ["streamstate.testing.pytest_plugin"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from streamstate.testing.driver.driver import TopologyTestDriver

__all__ = ["topology_driver"]


@pytest.fixture
def topology_driver() -> Iterator[Callable[..., TopologyTestDriver]]:
    """Makes a ``TopologyTestDriver`` of a topology, with the same arguments; all are closed after the test."""
    made: list[TopologyTestDriver] = []

    def make(*arguments: object, **options: object) -> TopologyTestDriver:
        driver = TopologyTestDriver(*arguments, **options)  # type: ignore[arg-type]
        made.append(driver)
        return driver

    yield make
    for driver in made:
        driver.close()
