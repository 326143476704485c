"""List stores against lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstate import serde, stores
from streamstate.state.typed_stores import typed_store
from tests.property.kept import INTERRUPTIONS, Kept

KEYS = ("", "a", "ab", "b")
KEY = st.sampled_from(KEYS)
VALUES = st.lists(st.integers(0, 9), max_size=5)
CHANGES = st.one_of(
    st.tuples(st.sampled_from(["extend", "extend", "fail"]), KEY, VALUES),
    st.tuples(st.sampled_from(["pop_left", "pop", "clear"]), KEY),
)
STEPS = st.lists(CHANGES | INTERRUPTIONS, max_size=30)
BOUNDS = st.none() | st.integers(-4, 4)

Lists = dict[str, list[int]]


def changed(lists: Lists, step: tuple[Any, ...], maxlen: int | None) -> Any:
    """What a list does; what it returns."""
    mine = lists[step[1]]
    match step:
        case ("extend", _, values):
            mine += values
            if maxlen is not None:
                del mine[:-maxlen]
        case ("pop_left", _):
            return mine.pop(0) if mine else None
        case ("pop", _):
            return mine.pop() if mine else None
        case ("clear", _):
            mine.clear()
    return None


@pytest.mark.parametrize("maxlen", [None, 1, 3])
@pytest.mark.parametrize("undo", [False, True])
@settings(max_examples=80)
@given(STEPS, BOUNDS, BOUNDS)
def test_a_list_store_is_lists(
    maxlen: int | None, undo: bool, steps: list[tuple[Any, ...]], start: int | None, stop: int | None
) -> None:
    spec = stores.list_("s", key=serde.string(), value=serde.long(), maxlen=maxlen)
    empty: Lists = {key: [] for key in KEYS}
    kept: Kept[Any, Lists] = Kept(spec, typed_store, empty, undo)
    for step in steps:
        if len(step) == 1:
            kept.interrupt(step[0])
        elif step[0] == "fail":
            kept.fail(lambda store, step=step: (store.extend(*step[1:]), store.pop_left(step[1])))  # type: ignore[misc]
        else:
            assert getattr(kept.store, step[0])(*step[1:]) == changed(kept.model, step, maxlen)
        for key, elements in kept.model.items():
            assert kept.store.get(key) == elements
            assert kept.store.get(key, start, stop) == elements[start:stop]
            assert kept.store.length(key) == len(elements)
            assert list(kept.store.iterate(key)) == elements
            assert list(kept.store.iterate(key, reverse=True)) == elements[::-1]
        assert list(kept.store.keys()) == sorted(key for key, elements in kept.model.items() if elements)
    assert kept.is_restored_alike()
    # A list that has ended leaves nothing.
    for key in KEYS:
        kept.store.clear(key)
    assert kept.is_restored_alike()
    assert list(kept.backend.scan("s", None, None, False)) == []


def test_adding_writes_the_element_and_the_bounds_only() -> None:
    kept: Kept[Any, None] = Kept(stores.list_("s", key=serde.string(), value=serde.long()), typed_store, None, False)
    kept.store.extend("k", range(1_000))
    kept.interrupt("commit")
    kept.store.append("k", 5)
    assert len(kept.staging.staged) == 2
    kept.interrupt("commit")
    assert kept.store.pop_left("k") == 0
    assert len(kept.staging.staged) == 2


def test_what_cannot_be_in_a_list_leaves_nothing() -> None:
    kept: Kept[Any, None] = Kept(stores.list_("s", key=serde.string(), value=serde.long()), typed_store, None, False)
    with pytest.raises(ValueError, match="lists of store 's' have no null elements"):
        kept.store.extend("k", [1, None])
    with pytest.raises(ValueError, match="store 's' has no null keys"):
        kept.store.append(None, 1)
    with pytest.raises(Exception, match="too large"):
        kept.store.extend("k", [1, 1 << 63])
    assert kept.store.get("k") == []
    assert kept.staging.staged == {}


def test_iterating_leaves_out_what_came_and_went_meanwhile() -> None:
    kept: Kept[Any, None] = Kept(stores.list_("s", key=serde.string(), value=serde.long()), typed_store, None, False)
    kept.store.extend("k", [1, 2, 3])
    seen = []
    for element in kept.store.iterate("k"):
        seen.append(element)
        if element == 1:
            kept.store.pop("k")
            kept.store.append("j", 9)
    assert seen == [1, 2]
