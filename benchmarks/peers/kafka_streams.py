"""Kafka Streams: its jars as the broker's are had, and our program compiled with the JDK that is there.

Rule of this module: nothing is compiled or downloaded twice, and what is missing is said with what mends it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import platformdirs

from benchmarks.peers.place import PLACE, Unavailable
from streamstate.broker.jars import Jar, Lock, ensure
from streamstate.broker.java import system_java
from streamstate.errors import StreamStateError

__all__ = ["HEAP_MB", "LOCK_FILE", "SOURCES", "command", "compiler", "load_lock", "missing", "system_java"]

SOURCES = Path(__file__).with_name("kafka-streams")
LOCK_FILE = SOURCES / "streams.lock.json"

# Enough for every workload here; with the default, a quarter of the machine's memory, the collector would let memory
# grow for nothing and its peak would say nothing.
HEAP_MB = 1_024
_COMPILE_S = 180


def load_lock() -> Lock:
    """The pinned jars."""
    document = json.loads(LOCK_FILE.read_text(encoding="utf-8"))
    return Lock(
        kafka_version=document["kafka"],
        jars=tuple(Jar(entry["coordinate"], entry["sha256"], entry["size"]) for entry in document["jars"]),
    )


@functools.cache
def compiler() -> Path | None:
    """The JDK's compiler that goes with the system's Java, if there is one."""
    java = system_java()
    if java is None:
        return None
    beside = java.resolve().parent / "javac"
    if beside.exists():
        return beside
    found = shutil.which("javac")
    return Path(found) if found else None


def missing(work: str) -> str | None:
    """Why Kafka Streams cannot take part."""
    if compiler() is None:
        return "left out: no JDK of version 17 or newer with a compiler (javac) in JAVA_HOME or on PATH"
    return None


def command(work: str) -> list[str]:
    """Install what is needed, and how a process is then started.

    Raises:
        Unavailable: no compiler, no jars, or the program does not compile.
    """
    javac, java = compiler(), system_java()
    if javac is None or java is None:
        raise Unavailable(missing("") or "no Java")
    lock = load_lock()
    cache = Path(platformdirs.user_cache_dir("streamstate", appauthor=False)) / f"kafka-streams-{lock.kafka_version}"
    try:
        jars = ensure(lock, cache)
    except StreamStateError as error:
        raise Unavailable(f"left out: {error}") from error
    class_path = os.pathsep.join(map(str, jars))
    classes = _compiled(javac, class_path)
    return [
        str(java),
        f"-Xmx{HEAP_MB}m",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        os.pathsep.join([str(classes), class_path]),
        "Bench",
    ]


def _compiled(javac: Path, class_path: str) -> Path:
    sources = sorted(SOURCES.glob("*.java"))
    digest = hashlib.sha256(LOCK_FILE.read_bytes())
    for source in sources:
        digest.update(source.read_bytes())
    classes = PLACE / "kafka-streams" / digest.hexdigest()[:16]
    if not classes.exists():
        partial = classes.with_name(f"{classes.name}.{os.getpid()}.part")
        partial.mkdir(parents=True)
        done = subprocess.run(
            [str(javac), "-Xlint:all,-processing,-serial", "-Werror", "-cp", class_path, "-d", str(partial)]
            + [str(source) for source in sources],
            capture_output=True,
            text=True,
            timeout=_COMPILE_S,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(partial)
            raise Unavailable(f"benchmarks/peers/kafka-streams does not compile:\n{done.stdout}{done.stderr}")
        try:
            partial.rename(classes)
        except OSError:
            shutil.rmtree(partial)  # Somebody else was faster.
    return classes
