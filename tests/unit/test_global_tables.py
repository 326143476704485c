"""Global tables: whole in every process before the first record, kept fresh, and right behind every crash."""

from __future__ import annotations

from typing import Any

import pytest

from streamstate import Processor, SerdeError, Topology, TopologyError, serde
from streamstate.engine.assign.global_tables import GLOBAL_TASK
from streamstate.engine.ports import TopicPartition
from streamstate.graph.describe import describe_json
from streamstate.testing.driver.driver import TopologyTestDriver
from streamstate.testing.memory_broker.producer import MemoryProducer
from tests.unit.application_support import Run

TEXT, LONG = serde.string(), serde.long()
TOPICS = {"in": 2, "names": 3}


def topology(**options: Any) -> Topology:
    made = Topology("t")
    names = made.global_table("names", key=TEXT, value=TEXT, **options)
    stream = made.stream("in", key=TEXT, value=TEXT)
    stream.left_join(names, lambda left, name: f"{left}+{name}", on=lambda key, value: value).to("out", value=TEXT)
    return made


def put(run: Run, key: str | None, value: str | None) -> None:
    run.broker.append("names", key=key and key.encode(), value=None if value is None else value.encode())


def ask(run: Run, value: str) -> None:
    run.broker.append("in", key=b"k", value=value.encode())


def answers(run: Run) -> list[str]:
    return [(value or b"").decode() for _, value in run.out()]


def test_rows_are_there_before_the_first_record_and_follow_the_topic() -> None:
    run = Run(topology(), TOPICS, restore_batch=1)
    for number in range(30):
        put(run, f"n{number}", f"v{number}")
    put(run, None, "nobody")
    ask(run, "n29")
    run.until(lambda: bool(run.out()), limit=400)
    assert answers(run) == ["n29+v29"]
    put(run, "n29", "new")
    put(run, "n0", None)
    run.ticks(6)
    ask(run, "n29")
    ask(run, "n0")
    run.ticks(4)
    assert answers(run) == ["n29+v29", "n29+new", "n0+None"]


def test_every_process_has_all_rows() -> None:
    run = Run(topology(), TOPICS)
    for number in range(9):
        put(run, f"n{number}", f"v{number}")
    for name in ("one", "two"):
        run.start(name)
    run.ticks(40, 500)
    tasks = {name: len(worker.assignment.tasks) for name, worker in run.workers.items()}
    assert tasks == {"one": 1, "two": 1}
    for worker in run.workers.values():
        assert len(list(worker.global_state.stores["names"].scan(None, None))) == 9


def test_a_restarted_process_goes_on_from_what_it_has() -> None:
    run = Run(topology(), TOPICS)
    put(run, "a", "1")
    run.ticks(8)
    run.workers.pop("w").close()
    put(run, "a", "2")
    put(run, "b", "3")
    backend = run.app.disks["w"].backends[GLOBAL_TASK]
    assert sum(backend.offsets().values()) == 1
    cleared: list[str] = []
    clear = backend.clear
    backend.clear = lambda store: (cleared.append(store), clear(store))  # type: ignore[method-assign,assignment,func-returns-value]
    run.start()
    run.ticks(8)
    ask(run, "a")
    ask(run, "b")
    run.ticks(6)
    assert answers(run) == ["a+2", "b+3"]
    assert cleared == []
    assert sum(backend.offsets().values()) == 3


def test_rows_that_were_cleared_for_their_age_are_read_anew() -> None:
    run = Run(topology(), TOPICS)
    put(run, "a", "1")
    run.ticks(8)
    run.workers.pop("w").close()
    backend = run.app.disks["w"].backends[GLOBAL_TASK]
    backend.clear("names")
    assert sum(backend.offsets().values()) == 1
    run.start()
    ask(run, "a")
    run.ticks(14)
    assert answers(run) == ["a+1"]
    assert "names" in backend.positions()


def test_rows_are_current_when_all_are_read() -> None:
    run = Run(topology(), TOPICS)
    put(run, "a", "1")
    put(run, "b", "2")
    run.ticks(2)
    backend = run.app.disks["w"].backends[GLOBAL_TASK]
    told: list[tuple[bool, bool]] = []
    apply = backend.apply

    def noted(*arguments: Any, current: bool = True) -> None:
        told.append((run.workers["w"].global_state.complete, current))
        apply(*arguments, current=current)

    backend.apply = noted  # type: ignore[method-assign]
    run.workers.pop("w").close()
    backend.clear("names")
    run.start()
    run.ticks(8)
    put(run, "a", "3")
    run.ticks(8)
    assert [current for _, current in told] == [complete for complete, _ in told]
    assert {current for _, current in told} == {True, False}


def test_a_topic_that_was_created_again_is_read_anew() -> None:
    run = Run(topology(), TOPICS)
    put(run, "a", "1")
    run.ticks(8)
    run.workers.pop("w").close()
    run.broker.delete_topic("names")
    run.broker.create_topic("names", 3)
    put(run, "b", "2")
    ask(run, "a")
    ask(run, "b")
    run.start()
    run.ticks(12)
    assert sorted(answers(run)) == ["a+None", "b+2"]


def test_rows_that_retention_overtook_are_read_anew() -> None:
    run = Run(topology(), {"in": 1, "names": 1})
    put(run, "a", "1")
    run.ticks(8)
    run.workers.pop("w").close()
    put(run, "b", "2")
    put(run, "c", "3")
    run.broker.delete_records({TopicPartition("names", 0): 2})
    run.start()
    for name in "abc":
        ask(run, name)
    run.ticks(12)
    assert answers(run) == ["a+None", "b+None", "c+3"]


def test_an_open_transaction_in_the_topic_is_waited_for() -> None:
    run = Run(topology(), {"in": 1, "names": 1})
    producer = MemoryProducer(run.broker, "someone")
    producer.init(1_000)
    producer.begin()
    producer.send([("names", b"1", b"a", 0, None, None, None)])
    producer.flush(1_000)
    ask(run, "a")
    run.ticks(10)
    assert answers(run) == []
    producer.commit(1_000)
    run.ticks(10)
    assert answers(run) == ["a+1"]


def test_a_record_that_cannot_be_decoded() -> None:
    for policy in ("fail", "continue"):
        made = Topology("t")
        table = made.global_table("names", key=TEXT, value=LONG, on_error=policy)  # type: ignore[arg-type]
        stream = made.stream("in", key=TEXT, value=TEXT)
        stream.join(table, lambda left, right: f"{left}{right}", on=lambda key, value: value).to("out", value=TEXT)
        run = Run(made, {"in": 1, "names": 1})
        run.broker.append("names", key=b"a", value=b"not a long")
        run.broker.append("names", key=b"b", value=LONG.serialize(7))
        ask(run, "b")
        if policy == "fail":
            with pytest.raises(SerdeError, match=r"global table 'names': topic 'names', partition 0, offset 0"):
                run.ticks(8)
        else:
            run.ticks(8)
            assert answers(run) == ["b7"]
            assert run.worker.global_state.skipped == 1


class Reader(Processor[str, str, str, str]):
    def process(self, key: str, value: str) -> None:
        if value == "write":
            self.context.store("names").put(key, value)
        self.context.forward(key, str(self.context.store("names").get(value)))


def test_processors_read_them_and_cannot_write() -> None:
    made = Topology("t")
    made.global_table("names", key=TEXT, value=TEXT)
    made.stream("in", key=TEXT, value=TEXT).process(Reader).to("out", key=TEXT, value=TEXT)
    with TopologyTestDriver(made) as driver:
        results = driver.output("out")
        driver.input("names").pipe("a", "1")
        driver.input("in").pipe("k", "a")
        assert [record.value for record in results.read_all()] == ["1"]
        assert driver.store("names").get("a") == "1"
        driver.crash(disk="lost")
        driver.input("in").pipe("k", "a")
        assert [record.value for record in results.read_all()] == ["1"]
        with pytest.raises(Exception, match="cannot be written: it is the table of topic 'names'"):
            driver.input("in").pipe("k", "write")


def test_what_cannot_be() -> None:
    made = Topology("t")
    names = made.global_table("names", key=TEXT, value=TEXT)
    stream = made.stream("in", key=TEXT, value=TEXT)
    with pytest.raises(TopologyError, match="takes on="):
        stream.join(names, lambda left, right: left)  # type: ignore[call-overload]
    with pytest.raises(TopologyError, match="read twice with different settings: store= is None"):
        made.global_table("names", key=TEXT, value=TEXT, store="other")
    with pytest.raises(TopologyError, match="two stores are named 'names'"):
        made.global_table("others", key=TEXT, value=TEXT, store="names")
    with pytest.raises(TopologyError, match="read as a global table and as a stream"):
        made.stream("names", name="again")


def test_a_topic_that_does_not_exist_is_named() -> None:
    with pytest.raises(TopologyError, match="streamstate topics create names"):
        Run(topology(), {"in": 1})


def test_descriptions_name_them() -> None:
    described = describe_json(topology().build(), "app")
    assert described["global_tables"] == [{"store": "names", "topic": "names", "key": "string", "value": "string"}]


# -- crashes: every call of the global consumer, and the step behind it ------------------------------------------


class Crash(BaseException):
    """The process is gone."""


def script(crash_at: int | None) -> tuple[Run, int]:
    """Rows, records, a restart; the worker dies at the given call of its restore consumer and comes back."""
    run = Run(topology(), TOPICS, restore_batch=2)
    calls = 0

    def on_call(actor: str, call: str, phase: str) -> None:
        nonlocal calls
        if not call.startswith("restore.") and call not in ("admin.log_ends", "admin.log_starts", "admin.topics"):
            return
        calls += 1
        if calls == crash_at:
            raise Crash

    run.start()
    run.broker.on_call = on_call
    for turn in range(60):
        if turn % 5 == 0 and turn < 40:
            put(run, f"n{turn % 3}", f"v{turn}")
            ask(run, f"n{turn % 3}")
        try:
            run.ticks(1)
        except Crash:
            run.workers.pop("w")
            run.broker.expel("w")
            run.start()
    run.broker.on_call = None
    for number in range(3):
        ask(run, f"n{number}")
    run.ticks(6)
    return run, calls


def test_a_crash_at_any_call_leaves_the_rows_right() -> None:
    run, calls = script(None)
    truth = sorted(answers(run)[-3:])
    assert len(answers(run)) == 11
    for number in range(1, calls + 1, 3):
        run, _ = script(number)
        found = answers(run)
        assert sorted(found[-3:]) == truth, number
        assert len(found) == 11, number
        store = run.worker.global_state.stores["names"]
        assert {key: entry[0] for key, entry in store.scan(None, None)} == {
            record.key(): (record.value() or b"").decode() for record in run.broker.read("names")
        }
