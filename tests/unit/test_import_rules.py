"""Which module may import which: the contract in pyproject.toml holds, and it can fail."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the packages below ``tree`` by the contract that is there."""
    path = os.pathsep.join((str(tree), str(tree / "cli")))
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for package in ("streamstate", "cli/streamstate_cli"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def test_the_contract_holds(copied: Path) -> None:
    done = lint_imports(copied)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "named"),
    [
        ("streamstate/engine/worker.py", "import time", "streamstate.engine.worker -> time"),
        ("streamstate/operators/context.py", "def f():\n    import random", "streamstate.operators.context -> random"),
        ("streamstate/state/backend.py", "import rocksdict", "streamstate.state.backend -> rocksdict"),
        ("streamstate/engine/task/task.py", "from os import path", "streamstate.engine.task.task -> os"),
        ("streamstate/serde/_base.py", "import threading", "streamstate.serde._base -> threading"),
        (
            "streamstate/engine/ports.py",
            "from confluent_kafka import Consumer as C",
            "streamstate.engine.ports -> confluent_kafka",
        ),
        (
            "streamstate/state/backend.py",
            "from streamstate.graph import names",
            "streamstate.state.backend -> streamstate.graph",
        ),
        (
            "streamstate/kafka/admin.py",
            "from streamstate.rocksdb import backend",
            "streamstate.kafka.admin -> streamstate.rocksdb",
        ),
        (
            "streamstate/graph/build.py",
            "import streamstate.engine.task",
            "streamstate.graph.build -> streamstate.engine.task",
        ),
        (
            "streamstate/app/reset.py",
            "import streamstate_cli.main",
            "streamstate.app.reset -> streamstate_cli.main",
        ),
        (
            "streamstate/graph/node.py",
            "import streamstate.graph.build",
            "No cycles are allowed in streamstate.graph",
        ),
        ("streamstate/unplaced.py", "", "streamstate.unplaced"),
    ],
)
def test_the_contract_can_fail(copied: Path, module: str, line: str, named: str) -> None:
    file = copied / module
    before = file.read_text(encoding="utf-8") if file.exists() else None
    try:
        file.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
        done = lint_imports(copied)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in " ".join(done.stdout.split())


@pytest.mark.parametrize("topology", sorted((ROOT / "topologies").glob("*.py")), ids=lambda path: path.stem)
def test_topologies_use_the_public_api_only(topology: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(topology.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"streamstate"}
