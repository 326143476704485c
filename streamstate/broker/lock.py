"""Renews ``kafka.lock.json``: ``python -m streamstate.broker.lock [KAFKA_VERSION]``. For maintainers.

Rule of this module: nothing here runs at run time. The dependency tree comes from Maven metadata through jgo;
the hashes are taken from the downloaded bytes, whose repository checksums jgo has verified.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from streamstate.broker.jars import LOCK_NAME

__all__ = ["main", "resolve"]

_SCALA = "2.13"
_RUNTIME_SCOPES = ("compile", "runtime")
_TIMEOUT_S = 60


def resolve(kafka_version: str) -> dict[str, Any]:
    """The lock document of this Kafka version: its runtime dependencies with SHA-256 and size.

    Args:
        kafka_version: a released version of Apache Kafka, such as ``"4.2.2"``.
    """
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory(prefix="streamstate-lock-") as scratch:
        context = MavenContext(repo_cache=Path(scratch), timeout=_TIMEOUT_S)

        def tree(coordinate: str) -> list[Any]:
            roots, dependencies = context.resolver.resolve([context.create_dependency(coordinate)])
            wanted = [dependency for dependency in dependencies if dependency.scope in _RUNTIME_SCOPES]
            return [dependency.artifact for dependency in [*roots, *wanted]]

        kafka = tree(f"org.apache.kafka:kafka_{_SCALA}:{kafka_version}")
        # Kafka logs through SLF4J, and its published dependencies leave the choice of a binding open. Without
        # one nothing is logged at all: take the one of Kafka's own distribution, in the version of log4j.
        log4j = next(artifact.version for artifact in kafka if artifact.artifactId == "log4j-core")
        known = {(artifact.groupId, artifact.artifactId) for artifact in kafka}
        binding = [
            artifact
            for artifact in tree(f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j}")
            if (artifact.groupId, artifact.artifactId) not in known
        ]
        with ThreadPoolExecutor(max_workers=8) as pool:
            jars = list(pool.map(pinned, [*kafka, *binding]))
    return {"kafka": kafka_version, "jars": jars}


def pinned(artifact: Any) -> dict[str, Any]:
    """What a lock file says of an artifact; downloads it."""
    content = artifact.resolve().read_bytes()
    parts = [artifact.groupId, artifact.artifactId, artifact.version, artifact.classifier]
    return {
        "coordinate": ":".join(part for part in parts if part),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }


def main(arguments: list[str]) -> int:
    """Writes the lock file next to this module and says what it holds."""
    path = Path(__file__).with_name(LOCK_NAME)
    version = arguments[0] if arguments else json.loads(path.read_text(encoding="utf-8"))["kafka"]
    document = resolve(version)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    total = sum(jar["size"] for jar in document["jars"])
    print(f"{path.name}: Apache Kafka {version}, {len(document['jars'])} jars, {total:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
