"""The page on exactly once: it lists every fact and failure, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.test_docs import section, table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "exactly-once.md"
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE.read_text(encoding="utf-8"))))
FACTS = 15
FAILURES = 15


@cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_the_page_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).exists()
    assert function in functions_of(ROOT / path)


def test_every_fact_and_every_failure_has_a_test() -> None:
    facts = table(section(PAGE, "## Facts and their tests"))
    assert [row[0] for row in facts] == [str(number) for number in range(1, FACTS + 1)]
    failures = table(section(PAGE, "## Failures others have shipped"))
    assert len(failures) == FAILURES
    behaviours = table(section(PAGE, "## Behaviours and their tests"))
    assert len(behaviours) >= 18
    assert all("::test_" in row[-1] for row in (*facts, *failures, *behaviours))
    assert len(TESTS) > 60
