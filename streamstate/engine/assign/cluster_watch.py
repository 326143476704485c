"""Notice what others do to the topics and to the group while the worker runs.

Requests run in the background; a tick only takes their answers. A request that fails is made again: it only delays a
warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streamstate.engine.assign.metadata_topic import topology_mark
from streamstate.engine.assign.topics import internal_topics, recounted, refused_settings, source_topics
from streamstate.engine.ports import (
    Admin,
    Background,
    Clock,
    GroupMember,
    Job,
    LoginFailed,
    NotAuthorized,
    PortError,
    TopicInfo,
)
from streamstate.engine.settings import WorkerSettings
from streamstate.errors import ConfigError, TopologyError
from streamstate.graph.node import Graph
from streamstate.graph.plan import plan_topics

log = logging.getLogger("streamstate.watch")

# A broker that has just come back may give a wrong answer: check it again after this time.
AGAIN_MS = 1_000
# Between two equal log lines.
REPEAT_MS = 60_000
SETTINGS_MS = 60_000
# Most partitions of a foreign member in a log line.
NAMED = 5


@dataclass(slots=True)
class _Observation:
    """The answers of one check; None where there was no request or no answer."""

    members: list[GroupMember] | None = None
    topics: Mapping[str, TopicInfo] | None = None
    refused: list[str] | None = None
    mismatch: TopologyError | None = None
    failures: list[PortError] = field(default_factory=list)


class ClusterWatch:
    """Checks topics and members of the group at an interval.

    Args:
        graph: the topology.
        settings: of the worker.
        admin: answers requests.
        background: runs the requests.
        clock: measures the interval.
        partitions_added: called with the topics that the topology reads, as they exist now.
    """

    def __init__(
        self,
        graph: Graph,
        settings: WorkerSettings,
        admin: Admin,
        background: Background,
        clock: Clock,
        partitions_added: Callable[[Mapping[str, TopicInfo]], None],
    ) -> None:
        self._graph = graph
        self._settings = settings
        self._group = settings.application_id
        self._admin = admin
        self._background = background
        self._clock = clock
        self._partitions_added = partitions_added
        self._sources = source_topics(graph)
        self._ending = f".{topology_mark(graph)}"
        self._job: Job | None = None
        self._seen = _Observation()
        now = clock.monotonic_ms()
        self._next_ms = now + settings.watch_interval_ms
        self._settings_ms = now + SETTINGS_MS
        self._mismatch = ""
        self._may_see_members = bool(settings.member_prefix)
        self._logged_ms: dict[str, int] = {}
        self._out_since_ms: int | None = None

    # -- the loop's side -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Take the answers of the last requests, and make new ones when the interval is over. Called once per tick.

        Raises:
            TopologyError: topics have changed so that the topology does not fit them any more.
            ConfigError: the group has not let this process in for ``broker_timeout_ms``.
            LoginFailed: a broker does not let this process log in any more.
        """
        now = self._clock.monotonic_ms()
        if self._job is not None:
            if self._job.done(0):
                job, self._job = self._job, None
                job.result()
                self._next_ms = now + self._settings.watch_interval_ms
                self._take(self._seen, now)
        elif now >= self._next_ms:
            self._next_ms = now + self._settings.watch_interval_ms
            ask_settings = now >= self._settings_ms
            if ask_settings:
                self._settings_ms = now + SETTINGS_MS
            self._job = self._background.start(lambda: self._ask(ask_settings))

    def join_refused(self, reason: str) -> None:
        """Warn that the group does not admit this process.

        Raises:
            ConfigError: it has not for ``broker_timeout_ms``.
        """
        now = self._clock.monotonic_ms()
        if self._out_since_ms is None:
            self._out_since_ms = now
            # The next check names the members.
            self._next_ms = min(self._next_ms, now)
        text = (
            f"consumer group {self._group!r} has members of another kind, and does not let this process in while they "
            f"are there: {reason}. They are plain consumers, or processes of a topology that is assigned by another "
            f"strategy. End them, or give one of the two another --application-id; an update that changes the strategy "
            f"needs all processes to be stopped first. Who they are: kafka-consumer-groups.sh --describe --members "
            f"--group {self._group}"
        )
        if now - self._out_since_ms >= self._settings.broker_timeout_ms:
            raise ConfigError(f"{text}. It has been so for {(now - self._out_since_ms) // 1000} s (--broker-timeout)")
        self._warn("kept out", text, now)

    def joined(self) -> None:
        """End the warnings of ``join_refused``: the group has assigned partitions."""
        self._out_since_ms = None

    def close(self) -> None:
        """Make no more requests."""
        self._background.close()

    # -- in the background ---------------------------------------------------------------------------------

    def _ask(self, ask_settings: bool) -> None:
        self._seen = seen = _Observation()
        for question in (self._ask_members, self._ask_topics, self._ask_settings if ask_settings else None):
            if question is not None:
                try:
                    question(seen)
                except TopologyError as error:
                    seen.mismatch = error
                except LoginFailed:
                    raise
                except PortError as error:
                    seen.failures.append(error)

    def _ask_members(self, seen: _Observation) -> None:
        if self._may_see_members:
            try:
                seen.members = self._admin.members(self._group)
            except NotAuthorized as error:
                self._may_see_members = False
                log.warning(
                    "who else is in consumer group %r cannot be seen: %s. Allow this principal DESCRIBE on the group",
                    self._group,
                    error,
                )

    def _ask_topics(self, seen: _Observation) -> None:
        topics = self._admin.topics(self._sources)
        if len(topics) < len(self._sources):
            return  # Deleted, or not known to all brokers yet: the consumer notices.
        seen.topics = topics
        recounted(self._graph, self._group, self._admin)

    def _ask_settings(self, seen: _Observation) -> None:
        counts = {name: info.partitions for name, info in self._admin.topics(self._sources).items()}
        if len(counts) == len(self._sources):
            internal = internal_topics(self._graph, plan_topics(self._graph, self._group, counts))
            found = self._admin.topics([topic.name for topic in internal])
            existing = [topic for topic in internal if topic.name in found]
            seen.refused = refused_settings(existing, self._admin, at_start=False)

    # -- what it means -------------------------------------------------------------------------------------

    def _take(self, seen: _Observation, now: int) -> None:
        for failure in seen.failures:
            log.debug("a look at topics and group has failed: %s", failure)
        if seen.topics is not None:
            self._partitions_added(seen.topics)
        if seen.mismatch is not None:
            if str(seen.mismatch) == self._mismatch:
                raise seen.mismatch
            self._next_ms = now + AGAIN_MS
        self._mismatch = "" if seen.mismatch is None else str(seen.mismatch)
        for text in seen.refused or ():
            # Ending the worker would not keep the broker from deleting, and what is processed is safe.
            self._warn(text, f"changed while it runs: {text}. It is refused at the next start", now)
        if seen.members is not None:
            self._check_members(seen.members, now)

    def _check_members(self, members: list[GroupMember], now: int) -> None:
        kin = [member for member in members if member.client_id.startswith(self._settings.member_prefix)]
        strangers = [member for member in members if member not in kin]
        others = [member for member in kin if not member.client_id.endswith(self._ending)]
        if strangers:
            self._warn(
                f"strangers {sorted(member.member_id for member in strangers)}",
                f"consumer group {self._group!r} has members that are no processes of this application: "
                f"{_named(strangers)}. What they read does not pass through this application, and what they commit as "
                f"read is left out for good. End them or give them a group of their own, then check the group's "
                f"offsets: kafka-consumer-groups.sh --describe --group {self._group}",
                now,
            )
        if others:
            self._warn(
                f"others {sorted(member.member_id for member in others)}",
                f"consumer group {self._group!r} has processes of another topology: {_named(others)}. While an update "
                f"is rolled out that passes; two applications need two names: give one another --application-id, or "
                f"each leaves out what the other reads",
                now,
            )

    def _warn(self, key: str, text: str, now: int) -> None:
        logged_ms = self._logged_ms.get(key)
        if logged_ms is None or now - logged_ms >= REPEAT_MS:
            self._logged_ms[key] = now
            log.warning("%s", text)


def _named(members: list[GroupMember]) -> str:
    return "; ".join(_described(member) for member in members)


def _described(member: GroupMember) -> str:
    held = sorted(member.partitions)
    named = ", ".join(f"{topic}-{number}" for topic, number in held[:NAMED])
    more = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
    what = f"holds {named}{more}" if held else "holds no partitions"
    return f"client {member.client_id!r} at {member.host or 'an unknown host'} {what}"
