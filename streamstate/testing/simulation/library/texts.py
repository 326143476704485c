"""Texts as values, and their results by window: what workloads share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from streamstate import serde, windows
from streamstate.testing.simulation.expectations import Output
from streamstate.testing.simulation.workloads import EPOCH_MS, InputRecord

TEXT: Final = serde.string()
SPEED: Final = 10


def _fast(records: Iterable[InputRecord]) -> Iterator[InputRecord]:
    for record in records:
        yield record._replace(timestamp=EPOCH_MS + (record.timestamp - EPOCH_MS) * SPEED)


def _text(record: InputRecord) -> str:
    return (record.value or b"").decode()


def _result(key: bytes | None, start: int, end: int, value: str | None, timestamp: int) -> Output:
    return Output(key, f"{start - EPOCH_MS} {end - EPOCH_MS} {value}".encode(), timestamp)


def _shown(windowed: windows.Windowed[str], value: str | None) -> tuple[str, str]:
    return windowed.key, f"{windowed.start - EPOCH_MS} {windowed.end - EPOCH_MS} {value}"
