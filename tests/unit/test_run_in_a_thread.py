"""Applications run in any thread; signals are handled where Python can handle them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from streamstate import Topology
from streamstate.app import Application, Settings, run
from streamstate.app import application as app
from streamstate.errors import BrokerUnavailable

LONG_S = 30


@pytest.fixture
def topology() -> Topology:
    topology = Topology("threaded")
    topology.stream("in").to("out")
    return topology


def settings(tmp_path: Path, patience: timedelta = timedelta(milliseconds=1)) -> Settings:
    return Settings(bootstrap_servers="localhost:1", state_dir=tmp_path, broker_timeout=patience)


def in_a_thread(call: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def caught() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            raised.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    return thread, raised


def test_run_in_a_thread_ends_like_in_the_main_one(topology: Topology, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    thread, raised = in_a_thread(lambda: run(topology, settings(tmp_path)))
    thread.join(LONG_S)
    assert [type(error) for error in raised] == [BrokerUnavailable]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_stop_ends_what_a_thread_runs(topology: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    topics = app.prepare_topics

    def noticed(*arguments: object) -> object:
        asked.set()
        return topics(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(app, "prepare_topics", noticed)
    application = Application(topology, settings(tmp_path, timedelta(minutes=10)))
    thread, raised = in_a_thread(application.run)
    assert asked.wait(LONG_S)
    application.stop()
    thread.join(LONG_S)
    assert not thread.is_alive()
    assert raised == []


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_main_thread_a_signal_ends_it(
    topology: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(app, "prepare_topics", lambda *_: signal.raise_signal(number) or _unavailable())
    run(topology, settings(tmp_path, timedelta(minutes=10)))
    assert signal.getsignal(number) == before


def _unavailable() -> None:
    raise app.Unavailable("nobody")
