"""``streamstate simulate``. Thin: the logic is ``streamstate.testing.simulation``."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import click

from streamstate.errors import ConfigError
from streamstate.testing.simulation import (
    KINDS,
    Campaign,
    Failure,
    Fault,
    Result,
    chosen_kinds,
    custom_workload,
    faults_from_json,
    find_workload,
    run_seeds,
    workload_names,
)
from streamstate_cli.loader import load_with_module
from streamstate_cli.options import json_option

__all__ = ["make_campaign", "simulate"]

# Fewer seeds than this are not worth other processes.
ALONE = 40


def _range(context: click.Context, parameter: click.Parameter, value: str) -> range:
    first, _, end = value.partition(":")
    try:
        return range(int(first or 0), int(end))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not of the form FIRST:END, such as 0:1000.") from None


def _words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(word.strip() for word in value.split(",") if word.strip())


@click.command()
@click.option("--seeds", metavar="FIRST:END", default="0:1000", show_default=True, callback=_range,
              help="The seeds to run, END left out.")  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Only this seed.")
@click.option("--seconds", type=float, metavar="S", help="Run seeds from FIRST on for so long, in place of --seeds.")
@click.option("--topology", "target", metavar="PATH[:ATTRIBUTE]", type=click.Path(),
              help="A topology of your own, in place of the built-in ones.")  # fmt: skip
@click.option("--workload", type=click.Choice(workload_names()), help="Only this one of the built-in ones; by default "
              "the seed chooses.")  # fmt: skip
@click.option("--faults", "kinds", metavar="LIST", callback=_words, help="Kinds of faults to draw from, with commas "
              "between them; all by default, none with an empty LIST.")  # fmt: skip
@click.option("--only", metavar="LIST", callback=_words, help="Of the seed's faults only these, by number.")
@click.option("--faults-file", type=click.Path(dir_okay=False), metavar="FILE.json", help="The faults to let happen, "
              "in place of the seed's.")  # fmt: skip
@click.option("--trace", is_flag=True, help="Print every port call and every fault of --seed.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes; by default one per core.")
@json_option("Print one JSON object at the end; progress goes to stderr.")
def simulate(
    seeds: range,
    seed: int | None,
    seconds: float | None,
    target: str | None,
    workload: str | None,
    kinds: tuple[str, ...] | None,
    only: tuple[str, ...] | None,
    faults_file: str | None,
    trace: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Run workers on a broker in memory while faults happen, and check that nothing is lost, doubled or reordered.

    Each seed is a run of its own: some workers, an input, and a list of faults at their calls to Kafka and to the disk.
    Afterwards every committed output, every store and every committed offset is checked. The same seed gives the same
    run. For a run that is found wrong, as few of its faults as suffice are looked for, and the command is printed that
    shows the run step by step.

    Ends with status 0 when nothing was found, 1 when something was.

    \b
    Examples:
      streamstate simulate --seeds 0:300
      streamstate simulate --topology topologies/word_count.py --seconds 60
      streamstate simulate --workload count --faults crash,pause,timeout
      streamstate simulate --seed 17 --trace
    """
    if target is not None and workload is not None:
        raise click.UsageError("--topology and --workload exclude each other.")
    single = seed is not None
    if not single and (trace or only is not None or faults_file is not None):
        raise click.UsageError("--trace, --only and --faults-file belong to one run: give its --seed.")
    maker = partial(make_campaign, target, workload, chosen_kinds(kinds))
    again = _again(target, workload, kinds)
    # Here too, so that what is wrong with a topology is said before any process is started.
    campaign = maker()
    if seed is not None:
        sys.exit(_one(campaign, seed, _chosen(campaign, seed, only, faults_file), trace=trace, again=again))
    sys.exit(_many(maker, campaign, seeds, seconds, jobs, again=again, as_json=as_json))


def make_campaign(target: str | None, workload: str | None, kinds: tuple[str, ...]) -> Campaign:
    """What is run; called in each process.

    Args:
        target: of a user's topology.
        workload: name of a built-in one.
        kinds: of faults.
    """
    if target is None:
        return Campaign(find_workload(workload) if workload is not None else None, kinds)
    graph, module = load_with_module(target)
    make_input = getattr(module, "simulation_input", None)
    return Campaign(custom_workload(graph, make_input, getattr(module, "simulation_topics", ())), kinds)


def _chosen(campaign: Campaign, seed: int, only: tuple[str, ...] | None, file: str | None) -> tuple[Fault, ...]:
    if file is not None:
        try:
            faults = faults_from_json(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"the file of faults {file} cannot be read: {error.strerror}") from None
    else:
        faults = campaign.faults(seed)
    if only is None:
        return faults
    unknown = set(only) - {str(fault.number) for fault in faults}
    if unknown:
        raise ConfigError(f"seed {seed} has no fault number {min(unknown)}; it has 0 to {len(faults) - 1}")
    return tuple(fault for fault in faults if str(fault.number) in only)


def _again(target: str | None, workload: str | None, kinds: tuple[str, ...] | None) -> list[str]:
    """The command so far."""
    words = ["streamstate", "simulate"]
    for option, value in (("--topology", target), ("--workload", workload)):
        words += [option, value] if value is not None else []
    return [*words, "--faults", ",".join(kinds)] if kinds is not None else words


def _replay(again: list[str], seed: int, faults: tuple[Fault, ...]) -> str:
    only = ",".join(str(fault.number) for fault in faults)
    return shlex.join([*again, "--seed", str(seed), "--only", only, "--trace"])


def _one(campaign: Campaign, seed: int, faults: tuple[Fault, ...], *, trace: bool, again: list[str]) -> int:
    result = campaign.run(seed, faults, click.echo if trace else None)
    click.echo(f"seed {seed}, {result.workload}: {len(result.fired)} of {len(faults)} faults happened")
    for fault, where in result.fired:
        click.echo(f"  {fault}: {where}")
    for problem in result.problems:
        click.echo(f"violation: {problem}")
    if not result.ok and not trace:
        click.echo(f"See it: {_replay(again, seed, faults)}")
    if result.ok:
        click.echo(f"nothing wrong: {result.records:,} output records, {result.calls:,} calls")
    return 0 if result.ok else 1


class _Tally:
    """What the runs so far amount to."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ended: float | None = None
        self.seeds = 0
        self.records = 0
        self.calls = 0
        self.faults: Counter[str] = Counter()
        self.workloads: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.records += result.records
        self.calls += result.calls
        self.workloads[result.workload] += 1
        self.faults.update(fault.kind for fault, _ in result.fired)

    def stop(self) -> None:
        self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._began

    @property
    def rate(self) -> float:
        return self.seeds / self.seconds if self.seconds else 0.0


def _many(
    maker: Callable[[], Campaign],
    campaign: Campaign,
    seeds: range,
    seconds: float | None,
    jobs: int | None,
    *,
    again: list[str],
    as_json: bool,
) -> int:
    from rich.console import Console

    console = Console(stderr=as_json)
    tally = _Tally()
    failed: Result | None = None
    chosen: Iterator[int] = iter(seeds) if seconds is None else count(seeds.start)
    if jobs is None:
        jobs = 1 if seconds is None and len(seeds) < ALONE else os.cpu_count() or 1

    def stop() -> bool:
        return failed is not None or (seconds is not None and tally.seconds >= seconds)

    with _progress(console) as progress:
        bar = progress.add_task("simulating", total=len(seeds) if seconds is None else seconds, rate="")
        for result in run_seeds(maker, chosen, jobs, stop):
            tally.add(result)
            done = tally.seeds if seconds is None else min(tally.seconds, seconds)
            progress.update(bar, completed=done, rate=f"{tally.seeds:,} seeds, {tally.rate:.0f}/s")
            if not result.ok and failed is None:
                failed = result
                break
    tally.stop()
    failure = None
    if failed is not None:
        with console.status(f"seed {failed.seed} is wrong; looking for the faults that suffice ..."):
            failure = campaign.explain(failed)
    if as_json:
        click.echo(json.dumps(_as_json(tally, failure, again)))
    else:
        _report(console, tally, failure, again)
    return 0 if failure is None else 1


def _progress(console: Any) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip


def _report(console: Any, tally: _Tally, failure: Failure | None, again: list[str]) -> None:
    from rich.table import Table

    table = Table("fault", "happened", "what")
    for kind in KINDS:
        if tally.faults[kind]:
            table.add_row(kind, f"{tally.faults[kind]:,}", KINDS[kind].says)
    if tally.faults:
        console.print(table)
    click.echo(
        f"{tally.seeds:,} seeds in {tally.seconds:.1f} s ({tally.rate:.0f} a second): {tally.faults.total():,} faults, "
        f"{tally.records:,} output records checked, {tally.calls:,} calls"
    )
    if failure is None:
        click.echo("Nothing is lost, doubled, wrong or out of order.")
        return
    result = failure.shrunk
    click.echo(f"Seed {result.seed} ({result.workload}) is wrong with these faults:" if failure.faults else
               f"Seed {result.seed} ({result.workload}) is wrong without any fault:")  # fmt: skip
    for fault, where in result.fired:
        click.echo(f"  {fault}: {where}")
    for problem in result.problems:
        click.echo(f"  violation: {problem}")
    click.echo(f"Step by step: {_replay(again, result.seed, failure.faults)}")


def _as_json(tally: _Tally, failure: Failure | None, again: list[str]) -> dict[str, Any]:
    found: dict[str, Any] | None = None
    if failure is not None:
        found = {
            "seed": failure.result.seed,
            "workload": failure.result.workload,
            "problems": list(failure.shrunk.problems),
            "faults": [str(fault) for fault in failure.faults],
            "replay": _replay(again, failure.result.seed, failure.faults),
        }
    return {
        "ok": failure is None,
        "seeds": tally.seeds,
        "seconds": round(tally.seconds, 3),
        "seeds_per_second": round(tally.rate, 1),
        "records": tally.records,
        "calls": tally.calls,
        "faults": dict(tally.faults),
        "workloads": dict(tally.workloads),
        "failure": found,
    }
