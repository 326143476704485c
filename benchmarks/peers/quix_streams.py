"""Quix Streams, in a virtual environment of its own: it pins an older client than ours.

Rule of this module: the environment is made anew when the requirements change, and is there completely or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.place import PLACE, Unavailable

__all__ = ["PROGRAM", "REQUIREMENTS", "command", "missing"]

_DIRECTORY = Path(__file__).with_name("quix-streams")
PROGRAM = _DIRECTORY / "bench.py"
REQUIREMENTS = _DIRECTORY / "requirements.txt"
_INSTALL_S = 600
_WORKS = {"map", "count-update", "count-commit", "tumbling-mean", "table-join", "stream-join", "repartition"}


def missing(work: str) -> str | None:
    """Why Quix Streams cannot take part in this work."""
    return None if work in _WORKS else f"left out: no program for {work}"


def command(work: str) -> list[str]:
    """Install it if need be, and how a process is then started.

    Raises:
        Unavailable: it cannot be installed.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    place = PLACE / f"quix-streams-{digest}"
    python = place / "bin" / "python"
    ready = place / "installed"
    if not ready.exists():
        shutil.rmtree(place, ignore_errors=True)
        print(f"Installing {REQUIREMENTS.read_text().strip()} into an environment of its own ...", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(place)])
        _run([str(python), "-m", "pip", "install", "--quiet", "-r", os.fspath(REQUIREMENTS)])
        ready.touch()
    return [str(python), str(PROGRAM)]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"left out: {' '.join(command)} took over {_INSTALL_S} s") from None
    if done.returncode:
        raise Unavailable(f"left out: {' '.join(command)} failed: {done.stderr.strip()[-500:]}")
