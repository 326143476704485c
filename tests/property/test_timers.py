"""Timers against a dict of times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import serde, stores
from streamstate.state import timer_store as timers
from streamstate.state.timer_store import SetTimers, Timers
from tests.property.kept import INTERRUPTIONS, Kept

KEY = st.sampled_from(["", "a", "ab", "b", "c"])
TIME = st.integers(0, 30)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["set", "set", "set", "fail"]), KEY, TIME),
        st.tuples(st.just("cancel"), KEY),
        # While they fire, each sets some that are given here.
        st.tuples(st.just("fire"), TIME, st.lists(st.tuples(KEY, TIME), max_size=4), st.integers(1, 4)),
        INTERRUPTIONS,
    ),
    max_size=40,
)
SPEC = stores.timers("s", key=serde.string())


def fired(model: dict[str, int], now_ms: int, again: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """What fires, in order, when each that fires sets the next of ``again``."""
    again, done, later = list(again), [], {}
    while len(done) < most:
        due = sorted((time, key) for key, time in model.items() if time <= now_ms and key not in later)
        if not due:
            break
        time, key = due[0]
        del model[key]
        done.append((key, time))
        if again:
            other, at = again.pop(0)
            model[other] = at
            later.pop(other, None)
            if at <= time:
                later[other] = at
    return done


@pytest.mark.parametrize("hints", [1, 2, 1_000])
@pytest.mark.parametrize("undo", [False, True])
@settings(max_examples=150)
@given(STEPS)
def test_timers_fire_in_order_once(hints: int, undo: bool, steps: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timers, "HINTS", hints)
        kept: Kept[Timers, dict[str, int]] = Kept(SPEC, lambda staging, _: Timers(staging), {}, undo)
        for step in steps:
            match step:
                case (what,):
                    kept.interrupt(what)
                case ("set", key, time):
                    kept.store.set(key, time)
                    kept.model[key] = time
                case ("fail", key, time):
                    kept.fail(lambda store, key=key, time=time: (store.cancel("a"), store.set(key, time)))  # type: ignore[misc]
                case ("cancel", key):
                    assert kept.store.cancel(key) == (kept.model.pop(key, None) is not None)
                case ("fire", now_ms, again, most):
                    wanted = fired(kept.model, now_ms, again, most)
                    found, rest = [], list(again)
                    for key, time in kept.store.due(now_ms, most):
                        found.append((key, time))
                        if rest:
                            kept.store.set(*rest.pop(0))
                    assert found == wanted
            assert list(kept.store.all()) == sorted(kept.model.items(), key=lambda item: (item[1], item[0]))
            assert list(SetTimers(kept.staging).all()) == list(kept.store.all())
            assert kept.store.next_ms() == min(kept.model.values(), default=None)
            assert all(kept.store.get(key) == kept.model.get(key) for key in ("", "a", "ab", "b", "c"))
        assert kept.is_restored_alike()


def test_what_is_kept_in_memory_is_bounded() -> None:
    kept: Kept[Timers, None] = Kept(SPEC, lambda staging, _: Timers(staging), None, False)
    for number in range(10_000):
        kept.store.set(str(number), 10_000 - number)
        if number % 1_000 == 0:
            kept.interrupt("commit")
    assert len(kept.store._hints) <= 2 * timers.HINTS
    assert [time for _, time in kept.store.due(20_000, 1 << 62)] == list(range(1, 10_001))


def test_a_timer_without_a_key() -> None:
    kept: Kept[Timers, None] = Kept(SPEC, lambda staging, _: Timers(staging), None, False)
    with pytest.raises(ValueError, match="store 's' has no null keys"):
        kept.store.set(None, 5)
