"""Run one process of an application until a signal ends it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from streamstate.app.application import Application
from streamstate.app.settings import Settings
from streamstate.dsl.topology import Topology
from streamstate.engine.metrics import WorkerStatus
from streamstate.graph.node import Graph

__all__ = ["run"]

log = logging.getLogger("streamstate.app")


def run(
    topology: Topology[Any, Any] | Graph, settings: Settings, on_status: Callable[[WorkerStatus], None] | None = None
) -> None:
    """Run one process of an application until SIGTERM or SIGINT, then finish in order.

    Python handles signals in the main thread only. Called in another thread, this runs the application without
    handlers; to end it there, make an ``Application``, let the thread call its ``run``, and call its ``stop``:

    .. code-block:: python

        application = Application(topology, settings)
        thread = threading.Thread(target=application.run)
        thread.start()
        ...
        application.stop()
        thread.join()

    Args:
        topology: what it computes.
        settings: how it runs.
        on_status: called about once a second with the worker's numbers.

    Raises:
        StreamStateError: see its classes.
    """
    application = Application(topology, settings, on_status)
    if threading.current_thread() is not threading.main_thread():
        log.info("not in the main thread, so that no signal ends this application; Application.stop() does")
        application.run()
        return

    def finish(signal_number: int, frame: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(signal_number).name)
        application.stop()

    before = {number: signal.signal(number, finish) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        application.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
