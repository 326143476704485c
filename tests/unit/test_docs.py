"""The documentation, held to the code: options, settings, exit codes, links, Python and shell examples."""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner
from streamstate_cli.main import cli

import streamstate
from streamstate import (
    GroupedStream,
    ProcessorContext,
    Stream,
    Table,
    Topology,
    WindowedStream,
    aggregates,
    errors,
    serde,
    stores,
    testing,
    windows,
)
from streamstate.app import CONSUMER_DEFAULTS, Settings
from streamstate.app.config import OPTIONS, OTHER_VARIABLES, parse_file, resolve
from streamstate.app.kafka_properties import FIXED_PROPERTIES, OWNED_PROPERTIES
from streamstate.engine.assign.assignment import Assignment
from streamstate.engine.commit.coordinator import CommitCoordinator
from streamstate.engine.task import dead_letters as poison
from streamstate.engine.task.task import Task
from streamstate.engine.worker import Worker
from tests.broker_support import VARIABLE

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")) if not page.name.startswith("."))
# What shell examples may call besides our own command, and the one that examples of `make` are held to.
OTHER_COMMANDS = {".", "docker", "echo", "eval", "printf"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*kinds: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if match[1] in kinds:
                found.append(Block(page, text[: match.start()].count("\n") + 1, match[1], match[2]))
    return found


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that is not a group, by its full name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join(("streamstate", *path, name)), command


COMMANDS = dict(commands())


def options_of(command: click.Command) -> set[str]:
    found = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    return {text for option in found for text in (*option.opts, *option.secondary_opts) if text.startswith("--")}


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its level."""
    level = heading.split(" ", 1)[0]
    match = re.search(rf"^{re.escape(heading)}$(.*?)(?=^{level} |\Z)", prose(page), re.MULTILINE | re.DOTALL)
    assert match is not None, f"{page.name} has no section {heading!r}"
    return match[1]


def table(text: str) -> list[list[str]]:
    """Cells of all rows of all tables, headings left out."""
    rows = []
    for line in text.splitlines():
        if re.fullmatch(r"[|: -]+", line):
            rows.pop()  # What stands above the rule is the heading.
        elif line.startswith("|"):
            rows.append([cell.strip() for cell in line.split("|")[1:-1]])
    return rows


# -- links -------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As Markdown renderers make them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        found = linked.exists() and linked.is_relative_to(ROOT)
        if not found or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert not broken


@every_page
def test_names_of_files_in_the_architecture_exist(page: Path) -> None:
    named = re.findall(r"`((?:streamstate|cli|tests|topologies|benchmarks|docs)/[\w./-]*)`", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_modules_that_the_architecture_names_exist() -> None:
    text = prose(ROOT / "ARCHITECTURE.md")
    named = set(
        re.findall(
            r"`((?:dsl|graph|testing|windows|aggregates|app|state|engine|rocksdb|kafka|operators|broker|serde)/[\w.]*)`",
            text,
        )
    )
    assert len(named) > 15
    assert sorted(name for name in named if not (ROOT / "streamstate" / name).exists()) == []
    dotted = re.findall(r"`(Worker|Task|Assignment|CommitCoordinator)\.(\w+)`", text)
    assert len(dotted) > 5
    known = {"Worker": Worker, "Task": Task, "Assignment": Assignment, "CommitCoordinator": CommitCoordinator}
    assert [(owner, name) for owner, name in dotted if not hasattr(known[owner], name)] == []


# -- options, settings, exit codes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_every_option_of_a_command_and_no_other(name: str) -> None:
    text = section(ROOT / "docs" / "command-line.md", f"## {name}")
    written = {option for row in table(text) for option in re.findall(r"--[a-z][a-z-]*", row[0])}
    assert written == options_of(COMMANDS[name])


def test_the_page_lists_every_command() -> None:
    listed = [re.findall(r"`(streamstate [a-z ]+)`", row[0]) for row in table(prose(ROOT / "docs" / "command-line.md"))]
    assert sorted(name for names in listed for name in names) == sorted(COMMANDS)


def test_the_first_page_lists_every_command() -> None:
    listed = [row[0].strip("`") for row in table(section(ROOT / "docs" / "getting-started.md", "## Commands"))]
    assert listed == [f"streamstate {name}" for name in cli.list_commands(click.Context(cli))]


def test_the_page_has_every_setting_with_its_default() -> None:
    rows = {row[0].strip("`"): row[1] for row in table(section(ROOT / "docs" / "configuration.md", "## Settings"))}
    assert list(rows) == [option.name for option in OPTIONS]
    for option in OPTIONS:
        if option.name == "state_dir":
            continue
        default = option.default_value()
        wanted = option.unset or ("" if default is None else f"`{option.show(default)}`")
        assert rows[option.name] == wanted, option.name


def test_defaults_on_the_command_lines_page() -> None:
    rows = {
        row[0].strip("`"): row[1] for row in table(section(ROOT / "docs" / "command-line.md", "## streamstate run"))
    }
    for option in OPTIONS:
        default = option.default_value()
        if option.name != "state_dir":
            assert rows[option.flag] == (option.unset or ("" if default is None else f"`{option.show(default)}`"))


def test_the_page_names_the_properties_that_cannot_be_set() -> None:
    text = " ".join(prose(ROOT / "docs" / "configuration.md").split())
    assert [name for name in OWNED_PROPERTIES if f"`{name}`" not in text] == []
    fixed = {f"`{name}={str(value).lower()}`" for name, value in FIXED_PROPERTIES.items()}
    assert [name for name in fixed if name not in text] == []
    assert [name for name, value in CONSUMER_DEFAULTS.items() if f"`{name}={value}`" not in text] == []


def test_the_page_names_every_variable() -> None:
    rows = table(section(ROOT / "docs" / "configuration.md", "## Other variables"))
    assert {row[0].strip("`") for row in rows} == {*OTHER_VARIABLES, VARIABLE}


def test_exit_codes() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__]
    codes = {kind.exit_code for kind in kinds} | {0}
    first = table(section(ROOT / "docs" / "getting-started.md", "## Exit codes"))
    page = table(section(ROOT / "docs" / "command-line.md", "## Exit codes"))
    assert [int(row[0]) for row in first] == [int(row[0]) for row in page] == sorted(codes)
    operations = table(section(ROOT / "docs" / "operations.md", "## Exit codes"))
    assert [int(row[0]) for row in operations] == sorted(codes)
    for row in page:
        for name in re.findall(r"`(\w+)`", row[2]):
            assert getattr(errors, name).exit_code == int(row[0]), name
    help_text = CliRunner().invoke(cli, ["run", "--help"]).output
    for code in codes:
        assert re.search(rf"^    {code}  ", help_text, re.MULTILINE), code


def test_headers_of_dead_letters() -> None:
    source = Path(poison.__file__).read_text(encoding="utf-8")
    facts = re.search(r"facts = \{(.*?)\n    \}", source, re.DOTALL)
    assert facts is not None
    names = re.findall(r'^        "(\w+)":', facts[1], re.MULTILINE)
    rows = table(section(ROOT / "docs" / "error-policies.md", "## What each policy does"))
    assert [row[0].strip("`") for row in rows] == [f"streamstate.error.{name}" for name in names]


def test_names_beside_other_libraries_exist() -> None:
    owners: list[object] = [streamstate, testing, serde, stores, windows, aggregates, Topology, Stream, Table]
    owners += [GroupedStream, WindowedStream, ProcessorContext]
    names = {name: getattr(owner, name) for owner in owners for name in dir(owner) if not name.startswith("_")}
    keywords = {"timestamp", "on_error"}
    for owner in owners:
        for name in dir(owner):
            if not name.startswith("_") and callable(getattr(owner, name)):
                with contextlib.suppress(ValueError):
                    keywords |= set(inspect.signature(getattr(owner, name)).parameters)
    rows = table(section(ROOT / "docs" / "coming-from.md", "## Names"))
    assert len(rows) > 30
    variables = {"topology", "stream", "table", "context", "grouped"}
    for code in [code for row in rows for code in re.findall(r"`([^`]+)`", row[0])]:
        if code.startswith("streamstate "):
            assert any(code.startswith(command) for command in COMMANDS), code
        elif code.startswith("--"):
            assert code.split()[0] in {option.flag for option in OPTIONS}, code
        elif not re.match(r"\w+=", code):
            plain = code
            while "(" in plain:
                plain = re.sub(r"\([^()]*\)", "", plain)
            path = plain.split(".")
            assert [name for name in path if name not in names and name not in variables] == [], code
        assert set(re.findall(r"(\w+)=", code)) <= keywords, code


# -- examples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_examples_compile_and_their_topologies_build(block: Block) -> None:
    code = compile(block.text, str(block), "exec")
    if "from shop_revenue import" in block.text:
        return  # run below
    assert "topology = Topology(" in block.text, "an example that is not run: say here how it is to be checked"
    namespace: dict[str, object] = {"__name__": "example"}
    exec(code, namespace)
    topology = namespace["topology"]
    assert isinstance(topology, Topology)
    assert topology.build().subtopologies


TESTS = [block for block in blocks("python") if "def test_" in block.text and "from shop_revenue" not in block.text]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What came of each test of the examples, by example: all of them in one process, which costs a twentieth."""
    directory = tmp_path_factory.mktemp("examples")
    for number, block in enumerate(TESTS):
        (directory / f"test_example_{number}.py").write_text(block.text, encoding="utf-8")
    report = directory / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(directory)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=240)
    assert report.exists(), done.stdout + done.stderr
    results: dict[str, list[str]] = {str(block): [] for block in TESTS}
    for case in ElementTree.parse(report).iter("testcase"):
        number = int(case.get("classname", "").rpartition("_")[2])
        wrong = [f"{found.tag}: {found.get('message')}\n{found.text}" for found in case]
        results[str(TESTS[number])].append("\n".join(wrong))
    return results


@pytest.mark.parametrize("block", TESTS, ids=str)
def test_examples_that_are_tests_pass(block: Block, ran: dict[str, list[str]]) -> None:
    assert not any(ran[str(block)]), "\n".join(ran[str(block)])
    assert len(ran[str(block)]) == block.text.count("def test_")


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=lambda words: words[0])
def test_python_examples_are_in_our_own_style(arguments: list[str], tmp_path: Path) -> None:
    """Saved in a clone, they must not fail its checks."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "streamstate").symlink_to(ROOT / "streamstate")
    files = []
    for number, block in enumerate(blocks("python")):
        files.append("shop_revenue.py" if 'Topology("shop-revenue", key=str' in block.text else f"example_{number}.py")
        (tmp_path / files[-1]).write_text(block.text, encoding="utf-8")
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The README's topology as the module that its test imports."""
    block = next(block for block in blocks("python") if 'Topology("shop-revenue", key=str' in block.text)
    module = ModuleType("shop_revenue")
    monkeypatch.setitem(sys.modules, "shop_revenue", module)
    exec(compile(block.text, str(block), "exec"), vars(module))
    return module


def test_the_test_in_the_readme_passes(example: ModuleType) -> None:
    block = next(block for block in blocks("python") if "def test_revenue_per_shop" in block.text)
    namespace: dict[str, object] = {}
    exec(compile(block.text, str(block), "exec"), namespace)
    test = namespace["test_revenue_per_shop"]
    assert callable(test)
    test()


def test_the_topology_in_the_readme_has_twenty_lines() -> None:
    block = next(block for block in blocks("python") if 'Topology("shop-revenue", key=str' in block.text)
    assert block.text.count("\n") <= 20


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_what_console_examples_print(block: Block, tmp_path: Path) -> None:
    example = next(block for block in blocks("python") if 'Topology("shop-revenue", key=str' in block.text)
    (tmp_path / "shop_revenue.py").write_text(example.text, encoding="utf-8")
    command, _, expected = block.text.removeprefix("$ ").partition("\n")
    words = shlex.split(command)
    variables = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    assert words.pop(0) == "streamstate"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMSTATE_")}
    done = subprocess.run(
        [sys.executable, "-m", "streamstate_cli", *words],
        cwd=tmp_path,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if expected.startswith("Error: "):
        assert done.returncode not in (0, 1)
        assert done.stderr == expected
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_files_of_settings_are_accepted(block: Block) -> None:
    found = resolve({}, {}, {}, parse_file(block.text, Path("example.toml")))
    assert isinstance(found.settings, Settings)
    assert found.settings.kafka


@pytest.mark.parametrize("block", blocks("shell"), ids=str)
def test_shell_examples_name_commands_that_exist(block: Block) -> None:
    for line in block.text.splitlines():
        for stage in _stages(line):
            _check(stage)


def _stages(line: str) -> Iterator[list[str]]:
    """The commands of a pipeline, without what they set in the environment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|")
    lexer.whitespace_split = True
    stage: list[str] = []
    for word in lexer:
        if word == "|":
            yield stage
            stage = []
        elif stage or not re.match(r"[A-Z_]+=", word):
            stage.append(word)
    yield stage


def _check(words: list[str]) -> None:
    program, arguments = words[0], words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert arguments[0] in targets, words
    elif program == "python":
        script = arguments[0]
        if script == "-m":
            path = ROOT / arguments[1].replace(".", "/")
            assert arguments[1] == "pytest" or path.with_suffix(".py").exists() or (path / "__main__.py").exists(), (
                words
            )
            if arguments[1] == "benchmarks":
                flags = {word for word in arguments if word.startswith("--")}
                assert flags <= {"--help", *_strings(path / "__main__.py")}, words
        else:
            assert (ROOT / script).exists(), words
            flags = {word for word in arguments if word.startswith("--")}
            assert flags <= set(_strings(ROOT / script)), words
    elif program == "streamstate":
        name = next((n for n in COMMANDS if words[: len(n.split())] == n.split()), None)
        assert name is not None, words
        given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert given <= options_of(COMMANDS[name]), words
    else:
        assert program in OTHER_COMMANDS, words
        inner = re.search(r"\$\((.*)\)", " ".join(arguments))
        if inner is not None:
            _check(shlex.split(inner[1]))


def _strings(script: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
