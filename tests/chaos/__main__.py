"""``python -m tests.chaos``: the application on a real broker while processes, state and the broker die.

Ends with 0 when nothing was violated, with 1 otherwise. See docs/chaos.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from streamstate_cli.demonstration.interrupts import Interrupted

from tests.chaos.program import Order, perform
from tests.chaos.report import as_json, draw
from tests.chaos.schedule import FULL, SHORT

# At least once is a repetition: fewer faults, all kinds.
AGAIN: Mapping[str, int] = {
    "kill": 4, "kill_late": 1, "stop": 2, "broker": 1, "scale_out": 1, "scale_in": 2, "wipe": 1, "start_in_restore": 1,
}  # fmt: skip


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--records", type=int, default=1_000_000, help="fed under exactly_once, at least; a quarter under the other"
    )
    parser.add_argument("--seconds", type=float, default=380, help="over which the faults of exactly_once are spread")
    parser.add_argument("--seed", type=int, default=1, help="of the records and of the faults")
    parser.add_argument("--guarantee", choices=("exactly_once", "at_least_once", "both"), default="both")
    parser.add_argument("--short", action="store_true", help="one or two faults of each kind, as in the tests")
    parser.add_argument("--users", type=int, default=200_000, help="keys, at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found there")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave state, logs and the broker's data there")
    return parser.parse_args()


def main() -> int:
    """Run it and report."""
    given = arguments()
    users = given.users
    faults, again = (SHORT, SHORT) if given.short else (FULL, AGAIN)
    orders = [
        Order("exactly_once", given.records, given.seconds, given.seed, faults, users=users),
        Order("at_least_once", given.records // 4, given.seconds / 4, given.seed + 1, again, users=users),
    ]
    orders = [order for order in orders if given.guarantee in (order.guarantee, "both")]
    logging.getLogger("tests.chaos.client").setLevel(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        reports = perform(orders, console, given.keep)
    except Interrupted as interrupted:
        console.print(f"interrupted by {interrupted}; everything is stopped")
        return 128 + interrupted.number
    console.print()
    console.print(draw(reports))
    if given.json is not None:
        given.json.write_text(json.dumps(as_json(reports), indent=1) + "\n")
    for report in reports:
        for violation in report.violations:
            console.print(f"VIOLATION ({report.guarantee}): {violation}", style="red", markup=False, highlight=False)
    return 1 if any(report.violations for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
