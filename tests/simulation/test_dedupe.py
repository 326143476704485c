"""``dedupe`` under faults, and that the simulation notices when it forgets or remembers wrongly."""

from __future__ import annotations

import pytest

from streamstate.operators.dedupe import spec
from tests.simulation.seeds import first_wrong, seeds_are_right


def test_seeds() -> None:
    seeds_are_right("repeated", 60)


def test_remembering_outside_of_the_store_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, where a crash loses it."""

    def first_of_each(name, by, store, context, forward):  # type: ignore[no-untyped-def]
        seen: dict[object, int] = {}

        def run(key, value, timestamp):  # type: ignore[no-untyped-def]
            identity = key if by is None else by(key, value)
            if identity in seen and context.stream_time - seen[identity] < 3_000:
                return
            seen[identity] = timestamp
            forward(key, value, timestamp)

        return run

    monkeypatch.setattr(spec, "first_of_each", first_of_each)
    assert first_wrong("repeated", 60) is not None
