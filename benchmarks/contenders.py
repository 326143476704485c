"""Who takes part, and how each of them is started.

Rule of this module: a contender is a name, a command and the settings in which it differs from its like.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours
from benchmarks.peers import kafka_streams, quix_streams

__all__ = ["CLIENT", "CONTENDERS", "LOOP", "OURS", "Contender", "environment"]

OURS, STREAMS, QUIX, LOOP = "streamstate", "kafka-streams", "quix", "loop"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Contender:
    """One system in one configuration.

    Attributes:
        name: in options, tables and files.
        title: for people.
        command: what starts one of its processes for a work, installing what it needs first.
        missing: why it cannot take part in a work, or None.
        processes, threads: how many of them.
        cache_bytes: of a contender that holds results back in a cache; -1 for its default.
        share: it reads this part of the records, because it would take too long with all.
    """

    name: str
    title: str
    command: Callable[[str], list[str]]
    missing: Callable[[str], str | None] = lambda work: None
    processes: int = 1
    threads: int = 1
    cache_bytes: int = 0
    share: float = 1.0

    def records(self, records: int) -> int:
        """How many of the records it reads."""
        return max(int(records * self.share), 1)


def _python(module: str) -> Callable[[str], list[str]]:
    return lambda work: [sys.executable, "-m", module]


def _loop(work: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.loop_restore" if work == "restore" else "benchmarks.loops"]


def environment() -> Mapping[str, str]:
    """What every contender's environment has besides ours."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {"PYTHONPATH": path}


_MEBI = 1 << 20


def _all() -> list[Contender]:
    engine = _python("benchmarks.ours")
    streams, quix = kafka_streams.command, quix_streams.command
    missing = kafka_streams.missing
    return [
        Contender(OURS, "streamstate", engine, ours.missing),
        Contender(f"{OURS}-2p", "streamstate, two processes", engine, ours.missing, processes=2),
        Contender(STREAMS, "Kafka Streams, no cache", streams, missing),
        Contender(f"{STREAMS}-cache", "Kafka Streams, its default cache", streams, missing, cache_bytes=-1),
        Contender(f"{STREAMS}-bigcache", "Kafka Streams, 512 MiB cache", streams, missing, cache_bytes=512 * _MEBI),
        Contender(f"{STREAMS}-2t", "Kafka Streams, no cache, two threads", streams, missing, threads=2),
        Contender(f"{STREAMS}-2p", "Kafka Streams, no cache, two processes", streams, missing, processes=2),
        Contender(QUIX, "Quix Streams", quix, quix_streams.missing, share=0.1),
        Contender(LOOP, "hand-written loop", _loop),
    ]


# What the parts alone can do, see ``benchmarks.limits``.
CLIENT = Contender("client", "the client alone", _python("benchmarks.limits"))
CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in _all()}
