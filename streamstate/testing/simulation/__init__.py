"""Deterministic simulation: several workers, many faults, one seed.

Rule of this package: a run is a seed and a list of faults, and the same two give the same run, call by call. There is
no thread, no real time and no sleep; the workers are the ones of production, on a broker in memory.

>>> campaign = Campaign(None, chosen_kinds(None))
>>> result = campaign.run(7)
>>> result.ok, result == campaign.run(7)
(True, True)
"""

from __future__ import annotations

from streamstate.testing.simulation.campaign import Campaign, Failure, quiet, run_seeds
from streamstate.testing.simulation.custom_workload import custom_workload
from streamstate.testing.simulation.expectations import (
    Exactly,
    Expectation,
    Interleaved,
    NewestOf,
    Output,
    PerKey,
    PerKeyRule,
)
from streamstate.testing.simulation.faults import KINDS, Fault, chosen_kinds, faults_from_json, faults_to_json
from streamstate.testing.simulation.library.catalogue import WORKLOADS, find_workload, workload_names
from streamstate.testing.simulation.run import Result
from streamstate.testing.simulation.workloads import InputRecord, Inputs, Workload, keyed_input

__all__ = [
    "KINDS",
    "WORKLOADS",
    "Campaign",
    "Exactly",
    "Expectation",
    "Failure",
    "Fault",
    "InputRecord",
    "Inputs",
    "Interleaved",
    "NewestOf",
    "Output",
    "PerKey",
    "PerKeyRule",
    "Result",
    "Workload",
    "chosen_kinds",
    "custom_workload",
    "faults_from_json",
    "faults_to_json",
    "find_workload",
    "keyed_input",
    "quiet",
    "run_seeds",
    "workload_names",
]
