"""``streamstate simulate``: what it prints, its exit codes, the command that shows a run again."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from streamstate_cli.main import cli

from streamstate.engine.task import error_policy as failures
from streamstate.testing.simulation import Campaign, chosen_kinds, faults_to_json, find_workload

TOPOLOGY = """
from streamstate import Topology, serde
topology = Topology("mine")
grouped = topology.stream("words", key=serde.string(), value=serde.json()).group_by_key()
grouped.count(store="counts").to_stream().to("counted")
"""
INPUT = """
def simulation_input(topic, random):
    return random.choice("abc"), {"topic": topic, "number": random.randrange(9)}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments])


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that leaves the writes of failed records in staging."""
    monkeypatch.setattr(failures, "rollback", lambda undo: undo.clear())


def test_clean_seeds() -> None:
    done = run("--seeds", "0:12")
    assert done.exit_code == 0, done.output
    assert "12 seeds in" in done.output
    assert "Nothing is lost, doubled, wrong or out of order." in done.output


def test_json() -> None:
    done = run("--seeds", "3:9", "--workload", "count", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["seeds"] == 6
    assert report["workloads"] == {"count": 6}
    assert report["failure"] is None
    assert report["faults"].keys() <= set(chosen_kinds(None))


def test_a_workload_that_only_a_name_chooses() -> None:
    done = run("--seeds", "0:2", "--workload", "recent", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["workloads"] == {"recent": 2}


def test_for_a_time() -> None:
    done = run("--seconds", "0.2", "--jobs", "1", "--json")
    assert done.exit_code == 0, done.output
    assert 0.2 <= json.loads(done.stdout)["seconds"] < 20


def test_several_processes_give_the_same_as_one() -> None:
    alone = json.loads(run("--seeds", "0:25", "--jobs", "1", "--json").stdout)
    together = json.loads(run("--seeds", "0:25", "--jobs", "2", "--json").stdout)
    assert [alone[key] for key in ("seeds", "records", "calls", "faults")] == [
        together[key] for key in ("seeds", "records", "calls", "faults")
    ]


@pytest.mark.usefixtures("weak")
def test_what_is_found_is_shrunk_and_shown_again() -> None:
    done = run("--seeds", "0:30", "--workload", "poison", "--jobs", "1")
    assert done.exit_code == 1
    assert "is wrong without any fault:" in done.output
    command = next(line for line in done.output.splitlines() if line.startswith("Step by step: "))
    words = shlex.split(command.removeprefix("Step by step: "))
    assert words[:4] == ["streamstate", "simulate", "--workload", "poison"]
    again = CliRunner().invoke(cli, words[1:])
    assert again.exit_code == 1
    assert "violation: " in again.output
    assert "w1  consumer.poll" in again.output
    report = json.loads(run("--seeds", "0:30", "--workload", "poison", "--jobs", "1", "--json").stdout)
    assert report["ok"] is False
    assert report["failure"]["replay"] == shlex.join(words)


def test_one_seed_with_some_of_its_faults() -> None:
    campaign = Campaign(None, chosen_kinds(None))
    seed = next(seed for seed in range(50) if len(campaign.run(seed).fired) > 3)
    fired = [str(fault.number) for fault, _ in campaign.run(seed).fired]
    done = run("--seed", str(seed), "--only", ",".join(fired[:2]))
    assert done.exit_code == 0, done.output
    assert "of 2 faults happened" in done.output
    traced = run("--seed", str(seed), "--only", fired[0], "--trace")
    assert f"!! #{fired[0]} " in traced.output


def test_faults_from_a_file(tmp_path: Path) -> None:
    faults = Campaign(find_workload("count"), ("crash",)).faults(3)
    (tmp_path / "faults.json").write_text(faults_to_json(faults))
    done = run("--workload", "count", "--seed", "3", "--faults-file", str(tmp_path / "faults.json"))
    assert done.exit_code == 0, done.output
    assert f"of {len(faults)} faults happened" in done.output
    missing = run("--seed", "3", "--faults-file", str(tmp_path / "none.json"))
    assert missing.exit_code == 2
    assert "cannot be read" in missing.output


def test_a_topology_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TOPOLOGY)
    done = run("--topology", str(tmp_path / "mine.py"), "--seeds", "0:5")
    assert done.exit_code == 2
    assert "define simulation_input(topic, random)" in done.output
    (tmp_path / "mine.py").write_text(TOPOLOGY + INPUT)
    done = run("--topology", str(tmp_path / "mine.py"), "--seeds", "0:5")
    assert done.exit_code == 0, done.output


def test_a_topology_that_differs_from_itself_is_found(tmp_path: Path) -> None:
    changing = TOPOLOGY.replace(".to_stream()", ".to_stream().map_values(lambda count: next(NUMBERS))")
    changing = changing.replace("topology = ", "import itertools\nNUMBERS = itertools.count()\ntopology = ")
    changing = changing.replace('.to("counted")', '.to("counted", value=serde.long())')
    (tmp_path / "changing.py").write_text(changing + INPUT)
    done = run("--topology", str(tmp_path / "changing.py"), "--seeds", "0:5")
    assert done.exit_code == 1
    assert "is wrong without any fault:" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--seeds", "many"], 2, "FIRST:END"),
        (["--trace"], 2, "give its --seed"),
        (["--only", "1"], 2, "give its --seed"),
        (["--topology", "x.py", "--workload", "count"], 2, "exclude each other"),
        (["--faults", "earthquake"], 2, "there is no fault 'earthquake'"),
        (["--seed", "1", "--only", "99"], 2, "no fault number 99"),
        (["--topology", "none.py"], 2, "none.py does not exist"),
    ],
)
def test_wrong_words(arguments: list[str], code: int, says: str) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert says in done.output


ENDLESS = """
from functools import partial
from itertools import count
from streamstate.testing.simulation import Campaign, chosen_kinds
from streamstate.testing.simulation.campaign import run_seeds

for result in run_seeds(partial(Campaign, None, chosen_kinds(None)), count(), 2):
    print(result.seed, flush=True)
"""


def test_processes_end_with_the_one_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"0\n"
        parent.kill()
        # Its processes have this pipe, too: it ends when the last of them does.
        parent.communicate(timeout=60)
