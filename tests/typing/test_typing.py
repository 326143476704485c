"""The public API's types: what mypy infers, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_ERROR = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[a-z-]+)\]$")


def check(name: str) -> subprocess.CompletedProcess[str]:
    path = HERE.relative_to(ROOT) / name
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty", "--show-error-codes", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_types_infer_through_lambdas() -> None:
    result = check("infers.py")
    assert result.returncode == 0, result.stdout + result.stderr


def test_mistakes_are_refused() -> None:
    result = check("rejects.py")
    found: dict[int, set[str]] = defaultdict(set)
    for line in result.stdout.splitlines():
        if match := _ERROR.match(line):
            assert match["path"].endswith("rejects.py"), line
            found[int(match["line"])].add(match["code"])
    expected = {
        number: line.partition("# E: ")[2]
        for number, line in enumerate((HERE / "rejects.py").read_text().splitlines(), start=1)
        if "# E: " in line
    }
    assert sorted(found) == sorted(expected), result.stdout + result.stderr
    # mypy may say more about a line, depending on its version.
    assert {number: code for number, code in expected.items() if code not in found[number]} == {}, result.stdout
