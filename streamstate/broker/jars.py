"""The broker's jars: which ones, and how they get into the cache.

Rule of this module: a jar is used only when its SHA-256 is the one in ``kafka.lock.json``. All jars are hashed
at every start (45 MB, about 50 ms): a marker file would save that much and be blind to a damaged disk. Files
appear under their final name complete or not at all, so any number of processes may start at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import importlib.resources
import json
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import platformdirs
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from streamstate.errors import BrokerUnavailable, ConfigError

__all__ = ["LOCK_NAME", "REPOSITORY_VARIABLE", "Jar", "Lock", "cache_directory", "ensure", "load_lock"]

LOCK_NAME = "kafka.lock.json"
REPOSITORY_VARIABLE = "STREAMSTATE_MAVEN_REPOSITORY"

_PARALLEL_DOWNLOADS = 8
_ATTEMPTS = 3
_BACKOFF_S = 0.5
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16
_HTTP_TOO_MANY_REQUESTS = 429
_HTTP_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned artifact: ``group:artifact:version[:classifier]``, its SHA-256 and its size in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """The file's name, the same in a Maven repository and in the cache."""
        _, artifact, version, *classifier = self.coordinate.split(":")
        return "-".join([artifact, version, *classifier]) + ".jar"

    @property
    def repository_path(self) -> str:
        """Where a Maven repository keeps the file, relative to the repository's address."""
        group, artifact, version, *_ = self.coordinate.split(":")
        return f"{group.replace('.', '/')}/{artifact}/{version}/{self.file_name}"


@dataclass(frozen=True, slots=True)
class Lock:
    """The content of ``kafka.lock.json``: the Kafka version and every jar it needs, in class path order."""

    kafka_version: str
    jars: tuple[Jar, ...]


def load_lock() -> Lock:
    """The lock file this package ships."""
    text = importlib.resources.files("streamstate.broker").joinpath(LOCK_NAME).read_text(encoding="utf-8")
    document = json.loads(text)
    return Lock(
        kafka_version=document["kafka"],
        jars=tuple(Jar(entry["coordinate"], entry["sha256"], entry["size"]) for entry in document["jars"]),
    )


def cache_directory(lock: Lock) -> Path:
    """Where the jars of this lock live, e.g. ``~/.cache/streamstate/kafka-4.2.2`` on Linux."""
    return Path(platformdirs.user_cache_dir("streamstate", appauthor=False)) / f"kafka-{lock.kafka_version}"


def ensure(lock: Lock | None = None, directory: Path | None = None) -> tuple[Path, ...]:
    """Every jar of the lock, verified, downloading what is missing or damaged.

    Args:
        lock: what to provide; the package's own lock by default.
        directory: the cache; `cache_directory` by default.

    Returns:
        The jars' paths in class path order.

    Raises:
        ConfigError: jars are missing and no repository is configured, or the repository serves other bytes
            than the lock pins.
        BrokerUnavailable: jars are missing and the repository cannot be reached.
    """
    lock = lock or load_lock()
    directory = directory or cache_directory(lock)
    directory.mkdir(parents=True, exist_ok=True)
    if _missing(lock.jars, directory):
        with _exclusive(directory):
            # Another process may have completed the cache while this one waited for the lock.
            missing = _missing(lock.jars, directory)
            if missing:
                for abandoned in directory.glob("*.part"):
                    abandoned.unlink(missing_ok=True)
                _download_all(missing, directory, _repository(), lock.kafka_version)
    return tuple(directory / jar.file_name for jar in lock.jars)


def _missing(jars: Sequence[Jar], directory: Path) -> list[Jar]:
    def is_good(jar: Jar) -> bool:
        path = directory / jar.file_name
        try:
            if path.stat().st_size != jar.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
        except FileNotFoundError:
            return False

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return [jar for jar, good in zip(jars, pool.map(is_good, jars), strict=True) if not good]


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """One downloading process per cache; the kernel drops the lock when its holder dies."""
    with (directory / "download.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _repository() -> str:
    configured = os.environ.get(REPOSITORY_VARIABLE)
    if configured:
        if urllib.parse.urlsplit(configured).scheme not in ("http", "https", "file"):
            raise ConfigError(
                f"{REPOSITORY_VARIABLE} is {configured!r}, which is not an http, https or file address. "
                "Set it to the address of a Maven repository or unset it."
            )
        return configured.rstrip("/")
    try:
        from jgo.constants import MAVEN_CENTRAL_URL
    except ImportError:
        raise ConfigError(
            "The embedded broker's jars are not in the cache, and the package that knows where to download "
            f"them is not installed. Run: pip install 'streamstate[broker]', or set {REPOSITORY_VARIABLE} to the "
            "address of a Maven repository."
        ) from None
    return str(MAVEN_CENTRAL_URL).rstrip("/")


def _download_all(jars: Sequence[Jar], directory: Path, repository: str, kafka_version: str) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    cancelled = threading.Event()
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(max_workers=_PARALLEL_DOWNLOADS) as pool,
    ):
        task = progress.add_task(f"Apache Kafka {kafka_version}", total=sum(jar.size for jar in jars))
        fetch = partial(
            _download,
            directory=directory,
            repository=repository,
            progress=progress,
            task=task,
            cancelled=cancelled,
        )
        futures = [pool.submit(fetch, jar) for jar in jars]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            cancelled.set()
            pool.shutdown(cancel_futures=True)


def _download(
    jar: Jar,
    *,
    directory: Path,
    repository: str,
    progress: Progress,
    task: TaskID,
    cancelled: threading.Event,
) -> None:
    url = f"{repository}/{jar.repository_path}"
    for attempt in range(1, _ATTEMPTS + 1):
        part = directory / f"{jar.file_name}.{os.getpid()}.part"
        received = 0
        try:
            digest = hashlib.sha256()
            request = urllib.request.Request(url, headers={"User-Agent": "streamstate"})
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response, part.open("wb") as file:
                # One byte over the pinned size is enough to know that this is not the pinned file.
                while received <= jar.size and (chunk := response.read(_CHUNK_BYTES)):
                    if cancelled.is_set():
                        return
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    progress.advance(task, len(chunk))
            if digest.hexdigest() == jar.sha256:
                part.replace(directory / jar.file_name)
                return
            problem: Exception = _mismatch(jar, url, digest.hexdigest(), received)
        except (OSError, http.client.HTTPException) as error:
            problem = _unreachable(url, error, directory)
            if _is_permanent(error):
                raise problem from error
        finally:
            part.unlink(missing_ok=True)
        progress.advance(task, -received)
        if attempt == _ATTEMPTS or cancelled.wait(_BACKOFF_S * attempt):
            raise problem


def _is_permanent(error: Exception) -> bool:
    if not isinstance(error, urllib.error.HTTPError):
        return False
    return error.code < _HTTP_SERVER_ERROR and error.code != _HTTP_TOO_MANY_REQUESTS


def _mismatch(jar: Jar, url: str, sha256: str, received: int) -> ConfigError:
    return ConfigError(
        f"{url} is not the file that {LOCK_NAME} pins for {jar.coordinate}: {received} bytes "
        f"with SHA-256 {sha256}, expected {jar.size} bytes with {jar.sha256}. Nothing of it was kept. Check the "
        f"network for a proxy that rewrites downloads, or set {REPOSITORY_VARIABLE} to another Maven repository."
    )


def _unreachable(url: str, error: Any, directory: Path) -> BrokerUnavailable:
    reason = getattr(error, "reason", None) or error
    return BrokerUnavailable(
        f"Cannot download {url}: {reason}. The embedded broker needs its jars once, then works offline. "
        f"Connect to the network and try again, set {REPOSITORY_VARIABLE} to a Maven repository that this "
        f"machine reaches, or copy the jars from another machine into {directory}."
    )
