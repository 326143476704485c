"""The suite's command line: ``python -m benchmarks``. See docs/benchmarks.md.

Rule of this module: options and files; nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.contenders import CONTENDERS
from benchmarks.inputs import Inputs
from benchmarks.machine import commit, describe
from benchmarks.peers.place import PLACE
from benchmarks.process import ending_on_sigterm
from benchmarks.profile import run_profile
from benchmarks.publish import publish
from benchmarks.report import document, markdown
from benchmarks.runs import Bench
from benchmarks.suite import Plan, Results, all_cases, run_suite
from benchmarks.workloads import WORKLOADS, Case
from streamstate.broker import EmbeddedBroker
from streamstate.errors import StreamStateError

__all__ = ["main"]

_HEAP_MB = 1_024
_QUICK = ("count-update", "count-commit", "map", "repartition", "latency-10k")
_QUICK_CONTENDERS = ("streamstate", "kafka-streams", "kafka-streams-cache", "loop")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description="streamstate beside others, on one broker and the same input."
    )
    add = made.add_argument
    add("--list", action="store_true", help="show workloads and contenders, and who can do what; run nothing")
    add("--quick", action="store_true", help="a few workloads over few records, in about 3 minutes")
    add("--workloads", nargs="+", default=[], metavar="NAME", choices=[*WORKLOADS], help="only these")
    add("--contenders", nargs="+", default=[], metavar="NAME", choices=[*CONTENDERS], help="only these")
    add(
        "--records",
        type=_positive,
        help="of the throughput workloads (default 2,000,000; quick: 800,000, of which a quarter is read)",
    )
    add("--entries", type=_positive, help="of the restore workload (default: as many as --records)")
    add("--rounds", type=_positive, help="runs of each contender at most (default 3; quick: 1)")
    add("--minutes", type=float, default=0, help="begin no run of a later round after these; 0: no limit (default)")
    add("--commit-ms", type=_positive, nargs="+", default=[], help="only cases with these commit intervals")
    add("--latency-seconds", type=float, nargs=2, metavar=("WARM_UP", "MEASURED"), help="(default 30 20; quick: 15 10)")
    add("--output", type=Path, default=PLACE / "results", help="directory for results.json, results.md and plots")
    add("--json", type=Path, metavar="FILE", help="write the JSON document here, too")
    add("--publish", type=Path, metavar="PAGE", help="put the results into this page and the plots beside it")
    add("--from-json", type=Path, metavar="FILE", help="measure nothing: report on (and publish) this document")
    add("--profile", metavar="NAME", choices=[*WORKLOADS], help="draw a flame graph of our worker instead")
    add("--native", action="store_true", help="with --profile: look into C code, too")
    add("--bootstrap-servers", metavar="HOST:PORT", help="a broker that runs (default: start an embedded one)")
    return made


def _positive(text: str) -> int:
    number = int(text.replace(",", "").replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def plan_of(options: argparse.Namespace) -> tuple[Plan, int, tuple[float, float]]:
    """The plan, the number of records, and the seconds of latency workloads."""
    quick = options.quick
    names = options.workloads or (_QUICK if quick else ())
    cases = all_cases(names, options.commit_ms)
    if quick and not options.commit_ms:
        # One interval each: of the few records there are, 100 ms make enough commits to tell the steady half.
        cases = tuple(Case(WORKLOADS[name], min(WORKLOADS[name].intervals_ms)) for name in names)
    records = options.records or (800_000 if quick else 2_000_000)
    plan = Plan(
        cases,
        tuple(options.contenders or (_QUICK_CONTENDERS if quick else ())),
        rounds=options.rounds or (1 if quick else 3),
        minutes=options.minutes,
        entries=options.entries or records,
    )
    seconds = tuple(options.latency_seconds) if options.latency_seconds else (15.0, 10.0) if quick else (30.0, 20.0)
    return plan, records, (seconds[0], seconds[1])


@contextmanager
def broker(servers: str | None) -> Iterator[str]:
    """The address of a broker."""
    if servers is not None:
        yield servers
        return
    with EmbeddedBroker(heap_mb=_HEAP_MB) as embedded:
        yield embedded.bootstrap_servers


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the suite; what there is by then is written after every run."""
    plan, records, latency_s = plan_of(options)
    meta = describe(records=f"{records:,}", rounds=plan.rounds, minutes=f"{plan.minutes:g}" if plan.minutes else "any")
    found = document(Results(), plan, meta)

    def keep(results: Results) -> None:
        nonlocal found
        found = document(results, plan, meta)
        write(found, options)

    with (
        broker(options.bootstrap_servers) as servers,
        Bench(servers, records, Inputs.at(servers), latency_s=latency_s) as bench,
    ):
        run_suite(bench, plan, keep)
    return found


def write(found: Mapping[str, Any], options: argparse.Namespace) -> None:
    """The JSON document, where it is wanted."""
    options.output.mkdir(parents=True, exist_ok=True)
    for path in (options.output / "results.json", options.json):
        if path is not None:
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def report(found: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Markdown and plots."""
    options.output.mkdir(parents=True, exist_ok=True)
    reason = plots.missing()
    drawn = [] if reason else plots.write_plots(found, options.output)
    if reason:
        print(reason, file=sys.stderr)
    text = markdown(found, [path.name for path in drawn])
    (options.output / "results.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"Written to {options.output}", file=sys.stderr)
    if options.publish is not None:
        publish(found, drawn, options.publish)
        print(f"Published in {options.publish}", file=sys.stderr)


def show_list() -> None:
    """Workloads, contenders, and who cannot do what."""
    print("Workloads (commit intervals in ms): contenders")
    for workload in WORKLOADS.values():
        intervals = "/".join(str(ms) for ms in workload.intervals_ms)
        print(f"  {workload.name:15} {workload.title} ({intervals}): {' '.join(workload.contenders)}")
        for name in workload.contenders:
            reason = CONTENDERS[name].missing(workload.work) if name in CONTENDERS else None
            if reason:
                print(f"  {'':15} {name}: {reason}")
    print("Contenders")
    for contender in CONTENDERS.values():
        part = "" if contender.share == 1 else f" (reads the first {contender.share:.0%} of the records)"
        print(f"  {contender.name:22} {contender.title}{part}")


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for.

    Returns:
        0; 1 when a run failed; 130 after Ctrl-C, with what was measured by then written.
    """
    options = parser().parse_args(arguments)
    if options.list:
        show_list()
        return 0
    with ending_on_sigterm():
        try:
            if options.profile:
                return profile(options)
            found = json.loads(options.from_json.read_text("utf-8")) if options.from_json else measure(options)
        except KeyboardInterrupt:
            kept = options.output / "results.json"
            print(f"Stopped. For what was measured: python -m benchmarks --from-json {kept}", file=sys.stderr)
            return 130
        except StreamStateError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        report(found, options)
    return 1 if any(entry["failures"] for case in found["cases"] for entry in case["contenders"]) else 0


def profile(options: argparse.Namespace) -> int:
    """Draw a flame graph of our worker."""
    workload = WORKLOADS[options.profile]
    case = Case(workload, (options.commit_ms or workload.intervals_ms)[0])
    target = options.output.parent / "profiles" / f"{case.name}-{commit().split(',')[0]}.svg"
    records = options.records or 1_000_000
    with broker(options.bootstrap_servers) as servers, Bench(servers, records, Inputs.at(servers)) as bench:
        print(run_profile(bench, case, target, native=options.native))
    return 0


if __name__ == "__main__":
    sys.exit(main())
