"""What one operator costs per record: ``python -m benchmarks.operators``, or against another tree with ``--against``.

Rule of this module: no broker and no decoding, so that what is measured is the operator, its state on RocksDB and its
part of the commits. Figures are processor time, medians of runs that alternate between the trees; each run is a process
of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from streamstate import Topology, aggregates, serde, windows
from streamstate.operators.base.context import NO_LIMIT_MS, TaskContext
from streamstate.operators.compile import compile_task
from streamstate.rocksdb.backend import Memory, RocksBackend
from streamstate.state.staged_stores import staged_store

__all__ = ["CASES", "measure"]

# Of one of four partitions: a quarter of the suite's keys, and of its records per second.
KEYS = 25_000
STEP_MS = 4
START_MS = 1_356_998_400_000
CACHE_BYTES = 64 << 20
COMMIT_EVERY = 20_000

_TEXT = serde.string()
_JSON: Any = serde.json()
_GRACE = timedelta(seconds=30)
# Topic, key, value, timestamp.
Fed = tuple[str, str, dict[str, Any], int]


def _ignored(key: Any, value: Any) -> None:
    """What the results go to."""


def _grouped(topology: Topology[Any, Any]) -> Any:
    return topology.stream("events", key=_TEXT, value=_JSON).group_by_key()


def _count(topology: Topology[Any, Any]) -> None:
    _grouped(topology).count(store="s").to_stream().for_each(_ignored)


def _mean(windows_: Any, emit: str = "update") -> Callable[[Topology[Any, Any]], None]:
    def build(topology: Topology[Any, Any]) -> None:
        table = _grouped(topology).windowed_by(windows_)
        table.aggregate(mean=aggregates.mean("amount"), store="s", emit=emit).to_stream().for_each(_ignored)

    return build


def _listed(windows_: Any) -> Callable[[Topology[Any, Any]], None]:
    """A state that functions of one's own make, in JSON: it is decoded and encoded for each record."""

    def build(topology: Topology[Any, Any]) -> None:
        table = (
            _grouped(topology)
            .windowed_by(windows_)
            .aggregate(
                initializer=lambda: {"n": 0},
                aggregator=lambda key, value, state: {"n": state["n"] + value["amount"]},
                value=_JSON,
                store="s",
            )
        )
        table.to_stream().for_each(_ignored)

    return build


def _streams(topology: Topology[Any, Any]) -> tuple[Any, Any]:
    return topology.stream("events", key=_TEXT, value=_JSON), topology.stream("others", key=_TEXT, value=_JSON)


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"left": one["id"], "right": other and other["id"]}


_WITHIN = windows.join(timedelta(seconds=1), grace=_GRACE)


def _stream_join(topology: Topology[Any, Any]) -> None:
    left, right = _streams(topology)
    left.join(right, _joined, within=_WITHIN, name="j").for_each(_ignored)


def _left_join(topology: Topology[Any, Any]) -> None:
    left, right = _streams(topology)
    left.left_join(right, _joined, within=_WITHIN, name="j").for_each(_ignored)


def _self_join(topology: Topology[Any, Any]) -> None:
    stream = topology.stream("events", key=_TEXT, value=_JSON)
    stream.join(stream, _joined, within=_WITHIN, name="j").for_each(_ignored)


def _table_join(topology: Topology[Any, Any]) -> None:
    table = topology.table("table", key=_TEXT, value=_JSON)
    stream = topology.stream("events", key=_TEXT, value=_JSON)
    stream.join(table, lambda event, row: {"id": event["id"], "name": row["name"]}).for_each(_ignored)


def _map_values(topology: Topology[Any, Any]) -> None:
    stream = topology.stream("events", key=_TEXT, value=_JSON)
    for _ in range(5):
        stream = stream.map_values(lambda event: event)
    stream.for_each(_ignored)


_MINUTE, _SECONDS = timedelta(minutes=1), timedelta(seconds=5)

CASES: Mapping[str, Callable[[Topology[Any, Any]], None]] = {
    "count": _count,
    "tumbling": _mean(windows.tumbling(_MINUTE, grace=_GRACE)),
    "tumbling-json": _listed(windows.tumbling(_MINUTE, grace=_GRACE)),
    "tumbling-close": _mean(windows.tumbling(_MINUTE, grace=_GRACE), "close"),
    "hopping-x4": _mean(windows.hopping(_MINUTE, timedelta(seconds=15), grace=_GRACE)),
    "session": _mean(windows.session(_SECONDS, grace=_GRACE)),
    "session-close": _mean(windows.session(_SECONDS, grace=_GRACE), "close"),
    "sliding": _mean(windows.sliding(_SECONDS, grace=_GRACE)),
    "stream-join": _stream_join,
    "left-join": _left_join,
    "self-join": _self_join,
    "table-join": _table_join,
    "map-values-x5": _map_values,
}


def _fed(case: str, records: int, keys: int) -> list[Fed]:
    random = Random(7)
    fed: list[Fed] = []
    if case == "table-join":
        fed += [("table", f"key-{number}", {"name": f"customer {number}"}, 0) for number in range(keys)]
    two = case in ("stream-join", "left-join")
    for number in range(records):
        value = {"id": number, "group": "g", "amount": random.randrange(1_000), "note": "abcdefgh"}
        topic = "others" if two and number % 2 else "events"
        fed.append((topic, f"key-{int(keys * random.random() ** 3)}", value, START_MS + number * STEP_MS))
    return fed


def measure(case: str, records: int, keys: int = KEYS) -> tuple[float, float]:
    """Microseconds per record that processing takes, and the commits' part of what they take besides.

    Args:
        case: one of ``CASES``.
        records: how many.
        keys: how many different ones; most records have one of the first.
    """
    topology = Topology("t")
    CASES[case](topology)
    graph = topology.build()
    [part] = graph.subtopologies
    context = TaskContext("app", "t_0", lambda: START_MS, lambda topic: [NO_LIMIT_MS, NO_LIMIT_MS, 0])
    fed = _fed(case, records, keys)
    with tempfile.TemporaryDirectory() as directory:
        backend = RocksBackend(Path(directory) / "db", list(part.stores), Memory())
        stores = {
            name: staged_store(graph.stores[name], backend, CACHE_BYTES // len(part.stores)) for name in part.stores
        }
        compiled = compile_task(graph, part, context, stores, None)
        compiled.init()
        forwards = {topic: source.forward for topic, source in compiled.sources.items()}
        gc.collect()
        # As the application does.
        gc.freeze()
        gc.set_threshold(30_000, 70, 100)
        processing = committing = 0.0
        try:
            for batch in _batches(fed):
                began = time.process_time()
                for topic, key, value, timestamp in batch:
                    forwards[topic](key, value, timestamp)
                done = time.process_time()
                _commit(stores, backend)
                processing += done - began
                committing += time.process_time() - done
                if batch[0][0] == "table":
                    processing = committing = 0.0
        finally:
            backend.close()
    return processing / records * 1e6, committing / records * 1e6


def _batches(fed: list[Fed]) -> Iterator[list[Fed]]:
    at = next(number for number, record in enumerate(fed) if record[0] != "table")
    if at:
        yield fed[:at]
    for first in range(at, len(fed), COMMIT_EVERY):
        yield fed[first : first + COMMIT_EVERY]


def _commit(stores: Mapping[str, Any], backend: RocksBackend) -> None:
    writes: dict[str, dict[bytes, bytes | None]] = {}
    for name, store in stores.items():
        if store.changed:
            store.expire()
            writes[name] = store.seal()
    bounds = {name: store.segments.bound for name, store in stores.items() if store.segments and store.segments.bound}
    backend.apply(writes, {}, {}, bounds)
    for store in stores.values():
        store.committed()


def _run(tree: Path, case: str, records: int, keys: int) -> tuple[float, float]:
    command = [
        sys.executable,
        "-P",
        # That of the tree: it imports what is measured by the names that the tree has for it.
        str(tree / "benchmarks" / "operators.py"),
        "--once",
        case,
        "--records",
        str(records),
        "--keys",
        str(keys),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(tree)}
    )
    processing, committing = json.loads(done.stdout)
    return processing, committing


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operators", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another checkout, measured in alternation")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--once", choices=[*CASES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure(options.once, options.records, options.keys)))
        return
    trees = [Path(__file__).resolve().parents[1], *([options.against.resolve()] if options.against else [])]
    print(f"microseconds per record: {', then '.join(str(tree) for tree in trees)}")
    for case in options.cases or CASES:
        figures: list[list[tuple[float, float]]] = [[] for _ in trees]
        for _ in range(options.rounds):
            for tree, found in zip(trees, figures, strict=True):
                found.append(_run(tree, case, options.records, options.keys))
        shown = [
            f"{median(run[0] for run in found):7.2f} and commit {median(run[1] for run in found):6.2f}"
            for found in figures
        ]
        print(f"{case:16}", "   |   ".join(shown), flush=True)


if __name__ == "__main__":
    main()
