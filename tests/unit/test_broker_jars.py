"""The jar cache: only pinned bytes get in, everything is reused, and errors say what to do."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streamstate.broker import jars
from streamstate.broker.jars import REPOSITORY_VARIABLE, Jar, Lock
from streamstate.errors import BrokerUnavailable, ConfigError

CONTENTS = {
    "org.example:first:1.0": b"first jar" * 10_000,
    "org.example:second:2.0:native": b"second jar" * 100,
    "com.example.deep:third_2.13:3.0": b"third",
}
LOCK = Lock(
    kafka_version="0.0",
    jars=tuple(Jar(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in CONTENTS.items()),
)
FIRST = LOCK.jars[0]


class Repository:
    """A Maven repository on a loopback port, which counts requests and can misbehave."""

    def __init__(self) -> None:
        self.files = {"/" + jar.repository_path: CONTENTS[jar.coordinate] for jar in LOCK.jars}
        self.requests: Counter[str] = Counter()
        self.failures_left = 0
        self.failure_status = 503
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.requests[self.path] += 1
                if repository.failures_left:
                    repository.failures_left -= 1
                    self.send_error(repository.failure_status)
                    return
                content = repository.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    repository = Repository()
    monkeypatch.setenv(REPOSITORY_VARIABLE, repository.address + "/")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(jars, "_BACKOFF_S", 0)
    yield repository
    repository.close()


def test_downloads_every_jar_in_class_path_order(repository: Repository, tmp_path: Path) -> None:
    paths = jars.ensure(LOCK, tmp_path)
    assert [path.name for path in paths] == ["first-1.0.jar", "second-2.0-native.jar", "third_2.13-3.0.jar"]
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert not list(tmp_path.glob("*.part"))


def test_a_complete_cache_needs_no_network(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars.ensure(LOCK, tmp_path)
    requests = repository.requests.copy()
    monkeypatch.delenv(REPOSITORY_VARIABLE)
    monkeypatch.setitem(sys.modules, "jgo.constants", None)
    assert len(jars.ensure(LOCK, tmp_path)) == len(LOCK.jars)
    assert repository.requests == requests


@pytest.mark.parametrize("damage", [b"x" * FIRST.size, b"short", b""])
def test_a_damaged_jar_is_downloaded_again_and_only_that(repository: Repository, tmp_path: Path, damage: bytes) -> None:
    jars.ensure(LOCK, tmp_path)
    (tmp_path / FIRST.file_name).write_bytes(damage)
    repository.requests.clear()
    jars.ensure(LOCK, tmp_path)
    assert (tmp_path / FIRST.file_name).read_bytes() == CONTENTS[FIRST.coordinate]
    assert repository.requests == {"/" + FIRST.repository_path: 1}


@pytest.mark.parametrize("served", [b"x" * FIRST.size, b"truncated", b"x" * (FIRST.size + 200_000)])
def test_other_bytes_than_pinned_are_refused_and_not_kept(
    repository: Repository, tmp_path: Path, served: bytes
) -> None:
    repository.files["/" + FIRST.repository_path] = served
    with pytest.raises(ConfigError, match=r"org\.example:first:1\.0.*" + REPOSITORY_VARIABLE):
        jars.ensure(LOCK, tmp_path)
    assert not (tmp_path / FIRST.file_name).exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_transient_failure_is_tried_again(repository: Repository, tmp_path: Path) -> None:
    repository.failures_left = 1
    jars.ensure(LOCK, tmp_path)
    assert sum(repository.requests.values()) == len(LOCK.jars) + 1


def test_a_missing_file_is_not_asked_for_again(repository: Repository, tmp_path: Path) -> None:
    del repository.files["/" + FIRST.repository_path]
    with pytest.raises(BrokerUnavailable, match="Not Found"):
        jars.ensure(LOCK, tmp_path)
    assert repository.requests["/" + FIRST.repository_path] == 1


def test_without_network_the_error_says_what_to_do(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = repository.address
    repository.server.server_close()  # From here on connections are refused.
    with pytest.raises(BrokerUnavailable) as raised:
        jars.ensure(LOCK, tmp_path)
    message = str(raised.value)
    assert address in message
    assert REPOSITORY_VARIABLE in message
    assert str(tmp_path) in message


def test_a_directory_serves_as_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for jar in LOCK.jars:
        path = tmp_path / "mirror" / jar.repository_path
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENTS[jar.coordinate])
    monkeypatch.setenv(REPOSITORY_VARIABLE, (tmp_path / "mirror").as_uri())
    assert all(path.exists() for path in jars.ensure(LOCK, tmp_path / "cache"))


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REPOSITORY_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "jgo.constants", None)
    with pytest.raises(ConfigError, match=r"pip install 'streamstate\[broker\]'"):
        jars.ensure(LOCK, tmp_path)


def test_an_address_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REPOSITORY_VARIABLE, "/just/a/path")
    with pytest.raises(ConfigError, match=REPOSITORY_VARIABLE):
        jars.ensure(LOCK, tmp_path)


def test_starters_at_the_same_time_download_once(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "first-1.0.jar.999999.part").write_bytes(b"left by a process that crashed")
    with ThreadPoolExecutor(max_workers=6) as pool:
        results = list(pool.map(lambda _: jars.ensure(LOCK, tmp_path), range(6)))
    assert len(set(results)) == 1
    assert set(repository.requests.values()) == {1}
    assert not list(tmp_path.glob("*.part"))


def test_the_shipped_lock_is_complete_and_names_no_host() -> None:
    lock = jars.load_lock()
    coordinates = [jar.coordinate for jar in lock.jars]
    assert f"org.apache.kafka:kafka_2.13:{lock.kafka_version}" in coordinates
    assert len(coordinates) == len({jar.file_name for jar in lock.jars}) == 46
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size > 0 for jar in lock.jars)
    assert "://" not in (Path(jars.__file__).with_name(jars.LOCK_NAME)).read_text(encoding="utf-8")
