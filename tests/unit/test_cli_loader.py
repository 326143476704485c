"""From PATH[:attribute] to a topology, and what is said when there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamstate_cli.loader import load_topology

from streamstate.errors import ConfigError, StreamStateError, TopologyError

TOPOLOGY = """
from streamstate import Topology
topology = Topology("loaded")
topology.stream("lines").to("copy")
"""
FUNCTION = TOPOLOGY + "\ndef make(size=1):\n    return topology\ndef needs(size):\n    return topology\n"


@pytest.fixture(autouse=True)
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves neither modules nor search paths behind."""
    known, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


@pytest.mark.parametrize("target", ["", ":topology", ":make", ":graph"])
def test_a_file_and_an_attribute(target: str) -> None:
    path = write("app/counts.py", FUNCTION + "graph = topology.build()\n")
    assert load_topology(path + target).name == "loaded"
    assert load_topology(os.path.abspath(path) + target).name == "loaded"


@pytest.mark.parametrize("target", ["package.counts", "package.counts:topology", "package.counts:make", "counts:make"])
def test_a_module_and_an_attribute(target: str) -> None:
    write("package/__init__.py", "")
    write("package/counts.py", FUNCTION)
    write("counts.py", FUNCTION)
    assert load_topology(target).name == "loaded"


def test_a_file_imports_what_stands_beside_it() -> None:
    write("app/helper.py", 'NAME = "loaded"')
    path = write("app/counts.py", "from helper import NAME\n" + TOPOLOGY.replace('"loaded"', "NAME"))
    assert load_topology(path).name == "loaded"


def test_a_file_may_be_called_like_a_module_that_is_in_use() -> None:
    assert load_topology(write("json.py", TOPOLOGY)).name == "loaded"
    import json

    assert json.dumps([1]) == "[1]"


def test_a_file_may_define_dataclasses_with_postponed_annotations() -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    assert load_topology(write("counts.py", text + TOPOLOGY)).name == "loaded"


def test_the_ready_topologies_load() -> None:
    ready = Path(__file__).parents[2] / "topologies"
    assert load_topology(str(ready / "word_count.py")).name == "word-count"


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("no.py", ConfigError, "no.py does not exist"),
        (
            "app/cuonts.py",
            ConfigError,
            "cuonts.py does not exist: give a Python file, PATH or PATH:attribute. Did you mean app/counts.py?",
        ),
        ("app/Counts.py:topology", ConfigError, "Did you mean app/counts.py?"),
        ("ap/counts.py", ConfigError, "give a Python file, PATH or PATH:attribute"),
        ("app", ConfigError, "is a directory"),
        ("text.txt", ConfigError, "not a Python file"),
        ("no_module", ConfigError, "no module or file 'no_module'"),
        ("no.module:topology", ConfigError, "no module or file 'no.module'"),
        ("app/counts.py:other", TopologyError, "no attribute 'other'; it has app/counts.py:topology: give one"),
        ("app/empty.py", TopologyError, "no attribute 'topology'; it defines no topology: topology = "),
        ("app/counts.py:needs", TopologyError, "a function without parameters"),
        ("app/counts.py:__name__", TopologyError, "is a str; it must be a Topology"),
        ("app/counts.py:nothing", TopologyError, "is a NoneType"),
    ],
)
def test_what_is_not_there(target: str, kind: type[StreamStateError], message: str) -> None:
    write("app/counts.py", FUNCTION + "def nothing(): pass\n")
    write("app/empty.py", "")
    write("text.txt", "text")
    with pytest.raises(kind) as raised:
        load_topology(target)
    assert message in str(raised.value)


def test_several_topologies_in_one_file() -> None:
    write("two.py", "from streamstate import Topology\nfirst = Topology('a')\nsecond = Topology('b')\n")
    with pytest.raises(TopologyError, match=r"it has two\.py:first, two\.py:second: give one of these"):
        load_topology("two.py")


@pytest.mark.parametrize("target", ["app/broken.py", "broken", "late.py:make"])
def test_an_error_in_the_users_code_shows_the_users_traceback(target: str) -> None:
    text = "def f():\n    return 1 / 0\n"
    write("app/broken.py", text + "f()\n")
    write("broken.py", text + "f()\n")
    write("late.py", text + "make = lambda: f()\n")
    with pytest.raises(TopologyError) as raised:
        load_topology(target)
    shown = str(raised.value)
    assert "ZeroDivisionError: division by zero" in shown
    assert "return 1 / 0" in shown
    assert shown.count("File ") == 2
    assert "loader.py" not in shown
    assert "importlib" not in shown


def test_a_syntax_error_is_shown() -> None:
    with pytest.raises(TopologyError, match="SyntaxError") as raised:
        load_topology(write("counts.py", "x = (\n"))
    assert "line 1" in str(raised.value)


def test_a_missing_import_of_the_users_module_is_not_a_missing_module() -> None:
    write("counts.py", "import no_such_library\n")
    for target in ("counts", "counts.py"):
        with pytest.raises(TopologyError, match="No module named 'no_such_library'"):
            load_topology(target)


def test_a_refused_topology_keeps_its_message_and_says_where() -> None:
    with pytest.raises(TopologyError, match=r"'a b' cannot be part .* \(.*counts.py, line 5\)"):
        load_topology(write("counts.py", TOPOLOGY + 'topology.stream("a b")\n'))
