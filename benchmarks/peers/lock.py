"""Renews the pinned jars of Kafka Streams: ``python -m benchmarks.peers.lock [VERSION]``. For maintainers.

Rule of this module: as for the broker's lock file: the tree comes from Maven metadata, the hashes from the bytes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.kafka_streams import LOCK_FILE
from streamstate.broker.lock import pinned

__all__ = ["main", "resolve"]

_TIMEOUT_S = 60


def resolve(version: str) -> dict[str, Any]:
    """The lock document of this version of Kafka Streams.

    Args:
        version: a released one, such as ``"4.3.1"``.
    """
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory(prefix="streamstate-lock-") as scratch:
        context = MavenContext(repo_cache=Path(scratch), timeout=_TIMEOUT_S)

        def tree(coordinate: str) -> list[Any]:
            roots, dependencies = context.resolver.resolve([context.create_dependency(coordinate)])
            wanted = [dependency for dependency in dependencies if dependency.scope in ("compile", "runtime")]
            return [dependency.artifact for dependency in [*roots, *wanted]]

        streams = tree(f"org.apache.kafka:kafka-streams:{version}")
        # Without a binding of its logging facade Kafka Streams would not say why it fails.
        facade = next(artifact.version for artifact in streams if artifact.artifactId == "slf4j-api")
        known = {(artifact.groupId, artifact.artifactId) for artifact in streams}
        binding = [
            artifact
            for artifact in tree(f"org.slf4j:slf4j-simple:{facade}")
            if (artifact.groupId, artifact.artifactId) not in known
        ]
        return {"kafka": version, "jars": [pinned(artifact) for artifact in [*streams, *binding]]}


def main(arguments: list[str]) -> int:
    """Write the lock file and say what it holds."""
    version = arguments[0] if arguments else json.loads(LOCK_FILE.read_text(encoding="utf-8"))["kafka"]
    document = resolve(version)
    LOCK_FILE.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    total = sum(jar["size"] for jar in document["jars"])
    print(f"{LOCK_FILE.name}: Kafka Streams {version}, {len(document['jars'])} jars, {total:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
