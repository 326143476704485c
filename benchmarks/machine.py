"""Where and with what the figures were made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confluent_kafka

from benchmarks.contenders import ROOT
from benchmarks.peers import kafka_streams, quix_streams
from streamstate.broker.jars import load_lock

__all__ = ["describe"]


def describe(**settings: Any) -> dict[str, str]:
    """Time, commit, machine and versions, and the suite's settings."""
    library = confluent_kafka.libversion()[0]
    streams = kafka_streams.load_lock().kafka_version
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory()}, {platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "streamstate": f"{importlib.metadata.version('streamstate')} on {_python()}, "
        f"confluent-kafka {confluent_kafka.__version__}, librdkafka {library}, "
        f"rocksdict {importlib.metadata.version('rocksdict')}",
        "broker": f"Apache Kafka {load_lock().kafka_version}, one node on the same machine",
        "Kafka Streams": f"{streams} on {_java()}, largest heap {kafka_streams.HEAP_MB} MiB",
        "Quix Streams": quix_streams.REQUIREMENTS.read_text(encoding="utf-8").strip(),
        **{name.replace("_", " "): str(value) for name, value in settings.items()},
    }


def commit() -> str:
    """The commit that was measured, and whether there was more than it."""
    head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{head}, with changes that are not committed" if changed else head


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB"


def _python() -> str:
    # A tenth of the processor time is in it. Distributions optimise theirs by a way of their own.
    optimized = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    origin = "the system's" if sys.base_prefix == "/usr" else f"a build with{'' if optimized else 'out'} optimizations"
    return f"Python {platform.python_version()} ({origin})"


def _java() -> str:
    java = kafka_streams.system_java()
    if java is None:
        return "no Java"
    lines = _output(str(java), "-version").splitlines()
    return lines[1] if len(lines) > 1 else "an unknown Java"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""
