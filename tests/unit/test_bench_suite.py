"""The benchmarks' order of runs, and what their reports say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import ours, report, suite
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.expected import MODELS
from benchmarks.inputs import Inputs
from benchmarks.job import Job
from benchmarks.loops import LOOPS
from benchmarks.peers import kafka_streams, quix_streams
from benchmarks.peers.place import Unavailable
from benchmarks.plots import missing as plots_missing
from benchmarks.plots import write_plots
from benchmarks.process import ContenderFailed
from benchmarks.publish import BEGIN, END, publish, replaced
from benchmarks.restore import Restores
from benchmarks.runs import Bench
from benchmarks.suite import Plan, Results, all_cases, run_suite
from benchmarks.verify import WrongOutput
from benchmarks.workloads import GOALS, WORKLOADS, Case, Workload
from streamstate.errors import ConfigError
from streamstate.graph.describe import describe_text

BENCH = Bench("localhost:1", 1_000, Inputs.at("localhost:1"))
COUNT = Case(WORKLOADS["count-update"], 1_000)
NAMES = ("streamstate", "kafka-streams", "quix", "loop")


def a_run(rate: float, **more: Any) -> dict[str, Any]:
    return {"records": 1_000, "rate": rate, "steady_rate": rate * 2, "peak_bytes": 100 << 20, **more}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Runs are noted and not made; everybody is there."""
    seen: list[tuple[str, str]] = []

    def run(bench: Bench, case: Case, contender: Contender, restores: Restores) -> dict[str, Any]:
        seen.append((case.name, contender.name))
        return a_run(100.0 + len(seen))

    monkeypatch.setattr(suite, "_run", run)
    monkeypatch.setattr(suite, "_missing", lambda contender, work: None)
    return seen


def nothing(results: Results) -> None:
    """Keeps nothing."""


def test_contenders_alternate_and_take_turns_to_begin(ran: list[tuple[str, str]]) -> None:
    run_suite(BENCH, Plan((COUNT,), rounds=3), nothing)
    assert [name for _, name in ran] == [*NAMES, *NAMES[1:], NAMES[0], *NAMES[2:], *NAMES[:2]]


def test_every_case_has_its_first_round_before_any_has_its_second(ran: list[tuple[str, str]]) -> None:
    cases = all_cases(["count-update", "map"], ())
    run_suite(BENCH, Plan(cases, ("loop",), rounds=2), nothing)
    order = ["count-update@1000ms", "map@1000ms", "count-update@100ms", "map@100ms"]
    assert [case for case, _ in ran] == order * 2


def test_restores_alternate_too(ran: list[tuple[str, str]]) -> None:
    names = ("streamstate", "kafka-streams", "loop")
    run_suite(BENCH, Plan(all_cases(["restore"], ()), names, rounds=2), nothing)
    assert [name for _, name in ran] == [*names, *names[1:], names[0]]


def test_when_the_time_is_over_the_first_round_is_still_completed(ran: list[tuple[str, str]]) -> None:
    plan = Plan(all_cases(["count-update", "map"], (1_000,)), ("loop", "quix"), rounds=3, minutes=1e-9)
    run_suite(BENCH, plan, nothing)
    assert len(ran) == 4


@pytest.mark.parametrize("error", [ContenderFailed("hangs"), WrongOutput("key b'a'"), ValueError("odd")], ids=repr)
def test_who_fails_is_reported_and_the_rest_goes_on(
    ran: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = suite._run

    def failing(bench: Bench, case: Case, contender: Contender, restores: Restores) -> dict[str, Any]:
        if contender.name == "quix":
            raise error
        return run(bench, case, contender, restores)

    monkeypatch.setattr(suite, "_run", failing)
    plan = Plan((COUNT,), rounds=2)
    results = run_suite(BENCH, plan, nothing)
    entries = results.entries[COUNT.name]
    assert len(entries["quix"].failures) == 2
    assert [len(entries[name].runs) for name in NAMES] == [2, 2, 0, 2]
    text = report.markdown(report.document(results, plan, {}))
    assert f"Quix Streams: a run failed: {'wrong output: ' if isinstance(error, WrongOutput) else ''}" in text
    assert str(error) in text


def test_who_is_not_there_is_asked_once_and_reported(
    ran: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unavailable(bench: Bench, case: Case, contender: Contender, restores: Restores) -> dict[str, Any]:
        asked.append(contender.name)
        raise Unavailable("left out: no network")

    monkeypatch.setattr(suite, "_run", unavailable)
    plan = Plan((COUNT,), ("loop",), rounds=3)
    results = run_suite(BENCH, plan, nothing)
    assert asked == ["loop"]
    assert "- hand-written loop: left out: no network" in report.markdown(report.document(results, plan, {}))


def test_what_a_contender_cannot_do_stands_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_missing", lambda contender, work: f"no operators for {work} yet")
    plan = Plan((COUNT,), ("streamstate",), rounds=1)
    text = report.markdown(report.document(run_suite(BENCH, plan, nothing), plan, {}))
    assert "- streamstate: no operators for count-update yet" in text


def test_what_is_there_is_kept_after_every_run(ran: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    run = suite._run

    def interrupted(bench: Bench, case: Case, contender: Contender, restores: Restores) -> dict[str, Any]:
        if contender.name == "quix":
            raise KeyboardInterrupt
        return run(bench, case, contender, restores)

    monkeypatch.setattr(suite, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_suite(BENCH, Plan((COUNT,)), lambda results: kept.append(len(results.entries[COUNT.name])))
    assert kept == [1, 2]


class TestReport:
    """Ratios of medians, goals, Markdown."""

    plan = Plan((COUNT,), rounds=3)

    def document(self, **rates: list[float]) -> dict[str, Any]:
        results = Results()
        for name, values in rates.items():
            entry = results.of(COUNT, CONTENDERS[name.replace("_", "-")])
            entry.runs.extend(a_run(value) for value in values)
        return report.document(results, self.plan, {"commit": "abc"})

    def goal(self, document: dict[str, Any], against: str, metric: str = "rate") -> dict[str, Any]:
        (found,) = (g for g in document["goals"]
                    if (g["workload"], g["against"], g["metric"]) == ("count-update", against, metric))  # fmt: skip
        goal: dict[str, Any] = found
        return goal

    def test_a_goal_is_a_ratio_of_medians(self) -> None:
        found = self.document(streamstate=[100, 300, 200], kafka_streams=[90, 100, 5_000], loop=[300])
        assert self.goal(found, "kafka-streams")["value"] == 2.0
        assert self.goal(found, "kafka-streams")["met"] is True
        assert self.goal(found, "loop")["value"] == pytest.approx(200 / 300)
        assert self.goal(found, "loop")["met"] is False

    def test_what_was_not_measured_is_not_reached(self) -> None:
        found = self.document(streamstate=[100])
        assert self.goal(found, "quix")["value"] is None
        assert self.goal(found, "quix")["met"] is None
        assert "| count-update | quix | records/s | at least 6 | – | – | not measured |" in report.markdown(found)

    def test_of_memory_less_is_better(self) -> None:
        found = self.document(streamstate=[100], kafka_streams=[100])
        assert self.goal(found, "kafka-streams", "memory")["met"] is False
        found["cases"][0]["contenders"][0]["median"]["peak_bytes"] = 50 << 20
        again = report._goal(next(goal for goal in GOALS if goal.metric == "memory"), found["cases"])
        assert (again["value"], again["met"]) == (0.5, True)

    def test_without_a_steady_half_the_whole_run_counts(self) -> None:
        results = Results()
        for name, rate in (("streamstate", 300.0), ("loop", 100.0)):
            results.of(COUNT, CONTENDERS[name]).runs.append(a_run(rate, steady_rate=None))
        found = report.document(results, self.plan, {})
        assert self.goal(found, "loop")["value"] == 3.0

    def test_the_table_has_absolute_figures_and_ratios(self) -> None:
        text = report.markdown(self.document(streamstate=[300], kafka_streams=[100]))
        assert "| streamstate (1,000 records) | 600 | 300 |" in text
        assert "| Kafka Streams, no cache (1,000 records) | 200 | 100 | 3.00 | 3.00 |" in text
        assert "- commit: abc" in text
        assert "- Quix Streams: not run" in text

    def test_the_document_is_json(self) -> None:
        found = self.document(streamstate=[300])
        assert json.loads(json.dumps(found)) == found

    def test_plots(self, tmp_path: Path) -> None:
        if plots_missing():
            pytest.skip("needs matplotlib")
        files = write_plots(self.document(streamstate=[300], kafka_streams=[100]), tmp_path)
        assert [path.name for path in files] == ["throughput.png", "memory.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)


class TestPublishing:
    """Only what stands between the marks is replaced."""

    def test_between_the_marks(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(f"# Page\n\n{BEGIN}\nold\n{END}\n\nrest\n", encoding="utf-8")
        plot = tmp_path / "plot.png"
        plot.write_bytes(b"png")
        plan = Plan((COUNT,))
        publish(report.document(Results(), plan, {"commit": "abc"}), [plot], page)
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# Page\n\n{BEGIN}\n\n- commit: abc")
        assert text.endswith(f"{END}\n\nrest\n")
        assert "old" not in text
        assert "### Goals" in text
        assert "![plot](page/plot.png)" in text
        assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["plot.png", "results.json"]

    @pytest.mark.parametrize("text", ["", BEGIN, END, f"{END} {BEGIN}"])
    def test_a_page_without_marks_is_left_alone(self, text: str) -> None:
        with pytest.raises(ConfigError, match="no place for results"):
            replaced(text, "new", Path("page.md"))


def test_workloads_fit_together() -> None:
    for workload in WORKLOADS.values():
        assert set(workload.contenders) <= {*CONTENDERS, "client"}
        assert workload.kind in ("restore", "limit") or workload.work in MODELS
    for goal in GOALS:
        contenders = WORKLOADS[goal.workload].contenders
        assert goal.against in contenders[1:]
        assert contenders[0].startswith("streamstate")


@pytest.mark.parametrize("workload", [w for w in WORKLOADS.values() if w.kind != "limit"], ids=lambda w: w.name)
def test_every_work_has_a_topology_and_a_loop(workload: Workload) -> None:
    inputs = {role: f"in-{role}" for role in workload.inputs}
    job = Job(workload.work, "localhost:1", "app", inputs, "out", 1_000, "/nowhere")
    assert ours.missing(workload.work) is None
    described = describe_text(ours.topology(job).build(), "app")
    assert all(topic in described for topic in (*inputs.values(), "out"))
    assert workload.work in (*LOOPS, "restore")


def test_what_ours_cannot_do_yet_is_said() -> None:
    assert ours.missing("telepathy") == "streamstate has no operators for telepathy yet"


def test_cases_of_an_interval() -> None:
    assert {case.commit_ms for case in all_cases(["map"], (100,))} == {100}
    assert all_cases(["two-processes"], (100,)) == ()
    assert [case.name for case in all_cases(["limit-consume"], (1_000,))] == ["limit-consume"]


def test_a_quarter_of_the_records_at_other_intervals() -> None:
    assert [case.records(1_000) for case in all_cases(["map"], ())] == [1_000, 250]


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in (*WORKLOADS, *CONTENDERS))


def test_the_quick_plan() -> None:
    plan, records, _ = command.plan_of(command.parser().parse_args(["--quick"]))
    assert plan.rounds == 1
    assert {case.commit_ms for case in plan.cases} == {100}
    assert {case.records(records) for case in plan.cases if case.workload.kind == "throughput"} == {200_000}


def test_reporting_again_from_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "old.json"
    found = TestReport().document(streamstate=[300], loop=[300])
    source.write_text(json.dumps(found), encoding="utf-8")
    assert command.main(["--from-json", str(source), "--output", str(tmp_path / "out")]) == 0
    assert "| count-update | loop | records/s | at least 0.85 | 1.00 | 1.00 | yes |" in capsys.readouterr().out
    assert (tmp_path / "out" / "results.md").exists()


def test_kafka_streams_is_left_out_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_streams, "compiler", lambda: None)
    assert "no JDK" in str(kafka_streams.missing("map"))
    with pytest.raises(Unavailable, match="no JDK"):
        kafka_streams.command("map")


def test_peers_are_pinned() -> None:
    lock = kafka_streams.load_lock()
    names = [jar.coordinate.split(":")[1] for jar in lock.jars]
    assert {"kafka-streams", "kafka-clients", "rocksdbjni", "jackson-databind"} <= set(names)
    assert all(len(jar.sha256) == 64 and jar.size > 1_000 for jar in lock.jars)
    for line in quix_streams.REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        assert "==" in line
