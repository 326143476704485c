"""What may go wrong in a simulated run, and how it is drawn from a seed.

Rule of this module: a fault says by itself where it falls (a kind of port call, from a moment on), never by counting
what came before, so that each can be left out of a list without moving the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Final

from streamstate.errors import ConfigError

__all__ = ["ERRORS", "KINDS", "Fault", "Kind", "chosen_kinds", "draw_faults", "faults_from_json", "faults_to_json"]

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        number: its place in the list that the seed gives; its name in ``--only``.
        kind: one of ``KINDS``.
        at_ms: it falls on a call at this virtual time (ms since the start) or later.
        call: the port call it falls on, such as ``producer.commit``; ``*`` for any.
        phase: ``before`` the broker or the disk did it, or ``after``.
        nth: on the first such call from ``at_ms`` on, the second ...
        detail: the variant, where a kind has several.
        duration_ms: how long it lasts; for a crash, until the worker is started again.
    """

    number: int
    kind: str
    at_ms: int
    call: str
    phase: str = "before"
    nth: int = 1
    detail: str = ""
    duration_ms: int = 0

    def __str__(self) -> str:
        what = f"{self.kind} ({self.detail})" if self.detail else self.kind
        lasting = f" for {self.duration_ms} ms" if self.duration_ms else ""
        call = "call" if self.call == ANY else self.call
        turn = "first" if self.nth == 1 else f"{self.nth}."
        return f"#{self.number} {what}{lasting}, {self.phase} the {turn} {call} from {self.at_ms} ms on"


# What the ports say a call may raise, before it took effect and behind it, by the kind of fault.
ERRORS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "retriable": {
        "consumer.poll": ("before", "after"),
        "consumer.start": ("before", "after"),
        "consumer.committed": ("before", "after"),
        "consumer.group_metadata": ("before",),
        "producer.init": ("before", "after"),
        "producer.flush": ("before", "after"),
        "producer.send_offsets": ("before", "after"),
        "producer.commit": ("before", "after"),
        "producer.abort": ("before", "after"),
        "admin.config": ("before", "after"),
        "admin.topics": ("before", "after"),
        "admin.log_ends": ("before", "after"),
        "admin.log_starts": ("before", "after"),
        "admin.delete_records": ("before", "after"),
        "restore.poll": ("before", "after"),
    },
    "abortable": {
        "producer.send": ("before", "after"),
        "producer.flush": ("before", "after"),
        "producer.send_offsets": ("before", "after"),
        # It says that the commit did not take place.
        "producer.commit": ("before",),
    },
    "fenced": {
        "producer.init": ("before",),
        "producer.begin": ("before",),
        "producer.send": ("before", "after"),
        "producer.send_offsets": ("before", "after"),
        "producer.commit": ("before",),
        "producer.abort": ("before", "after"),
    },
    "fatal": {
        "producer.init": ("before", "after"),
        "producer.begin": ("before",),
        "producer.send": ("before", "after"),
        "producer.send_offsets": ("before", "after"),
        "producer.commit": ("before", "after"),
        "producer.abort": ("before", "after"),
    },
}
# Calls whose answer may be lost until their time has run out.
TIMED: Final = ("producer.init", "producer.flush", "producer.send_offsets", "producer.commit", "producer.abort",
                "consumer.committed")  # fmt: skip

# How often a fault that may fall anywhere falls on which call: most on those that change something.
CALLS: Final[Mapping[str, int]] = {
    "consumer.poll": 6, "consumer.start": 2, "consumer.committed": 3, "consumer.group_metadata": 1,
    "consumer.subscribe": 1, "consumer.pause": 1, "consumer.close": 1,
    "producer.init": 3, "producer.begin": 2, "producer.send": 5, "producer.flush": 3, "producer.send_offsets": 5,
    "producer.commit": 9, "producer.abort": 2, "producer.close": 1,
    "admin.log_ends": 3, "admin.log_starts": 2, "admin.topics": 1, "admin.config": 1, "admin.delete_records": 1,
    "restore.assign": 2, "restore.poll": 6, "restore.positions": 2,
    "disk.open": 1, "disk.apply": 5, "disk.restore": 3,
}  # fmt: skip
_EVERY = tuple(CALLS)
_EVERY_WEIGHT = tuple(CALLS.values())


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        weight: how often it is drawn, relative to the others.
        says: what it is, for people.
        draw: where it falls: (call, phase, detail, duration in ms).
        early: it falls near the start, so that others fall while it lasts.
    """

    weight: int
    says: str
    draw: Callable[[Random], tuple[str, str, str, int]]
    early: bool = False


def _anywhere(random: Random) -> tuple[str, str]:
    return random.choices(_EVERY, _EVERY_WEIGHT)[0], random.choice(("before", "after"))


def _crash(random: Random) -> tuple[str, str, str, int]:
    call, phase = _anywhere(random)
    disk = random.choices(("kept", "lost", "older", "torn"), (5, 2, 3, 3))[0]
    return call, phase, disk, random.choice((0, 100, 1_000, 9_000))


def _lasting(*durations_ms: int) -> Callable[[Random], tuple[str, str, str, int]]:
    def draw(random: Random) -> tuple[str, str, str, int]:
        return *_anywhere(random), "", random.choice(durations_ms)

    return draw


def _pause(random: Random) -> tuple[str, str, str, int]:
    # Between two turns more often than its calls are: what was processed and not committed is then in hand.
    call, phase = random.choice((("consumer.poll", "before"), _anywhere(random)))
    return call, phase, "", random.choice((7_000, 15_000))


def _error(kind: str) -> Callable[[Random], tuple[str, str, str, int]]:
    calls = ERRORS[kind]
    names = tuple(calls)
    weights = tuple(CALLS[name] for name in names)

    def draw(random: Random) -> tuple[str, str, str, int]:
        call = random.choices(names, weights)[0]
        return call, random.choice(calls[call]), "", 0

    return draw


def _timeout(random: Random) -> tuple[str, str, str, int]:
    # Repeated often enough, the outcome stays unknown for good.
    times = random.choice((1, 1, 2, 100))
    call = random.choices(TIMED, (1, 2, 3, 8, 2, 1))[0]
    return call, random.choice(("before", "after")), f"{times} times", random.choice((100, 1_000, 5_000))


def _empty(random: Random) -> tuple[str, str, str, int]:
    times = random.choice((1, 1, 3))
    return random.choice(("restore.poll", "restore.poll", "consumer.poll")), "before", f"{times} times", 0


def _membership(random: Random) -> tuple[str, str, str, int]:
    # In the middle of a restore, and between two turns, more often than those calls are.
    call = random.choice(("restore.poll", "consumer.poll", random.choices(_EVERY, _EVERY_WEIGHT)[0]))
    return call, random.choice(("before", "after")), "", random.choice((0, 2_000))


def _callback(random: Random) -> tuple[str, str, str, int]:
    return "consumer.poll", "before", random.choice(("assigned", "revoked", "lost")), 0


def _coordinator(random: Random) -> tuple[str, str, str, int]:
    return *_anywhere(random), random.choice(("group", "transactions")), random.choice((300, 2_000, 12_000))


def _clock(random: Random) -> tuple[str, str, str, int]:
    hours = random.choice((-30, -1, 1, 30))
    return *_anywhere(random), f"{hours:+} h", 0


def _disk_error(random: Random) -> tuple[str, str, str, int]:
    return random.choice(("disk.apply", "disk.apply", "disk.restore", "disk.open")), "before", "", 0


def _late_markers(random: Random) -> tuple[str, str, str, int]:
    which = random.choice(("all", "all but the group's", "all but the group's"))
    delay_ms = random.choice((300, 1_000, 5_000))
    return "consumer.poll", "before", f"{which}, {delay_ms} ms", random.choice((4_000, 20_000))


def _compaction(random: Random) -> tuple[str, str, str, int]:
    detail = random.choice(("", "markers too", "markers too, the last one included", "then cut off"))
    return *_anywhere(random), detail, 0


# A session ends after SESSION_TIMEOUT_MS (6 s) without a poll.
KINDS: Final[Mapping[str, Kind]] = {
    "crash": Kind(16, "a worker dies; its state directory is kept, lost, put back to an older copy, or loses the "
                  "newest writes", _crash),
    "pause": Kind(6, "a worker stands still for longer than its session, then goes on", _pause),
    "slow": Kind(4, "a call takes long", _lasting(200, 2_000)),
    "timeout": Kind(6, "the answer of a call is lost, before or after the broker did it", _timeout),
    "empty": Kind(4, "a poll returns nothing although there is something", _empty),
    "retriable": Kind(5, "a call fails for once", _error("retriable")),
    "abortable": Kind(4, "the transaction has to be aborted", _error("abortable")),
    "fenced": Kind(3, "another producer took the id, or the group moved on", _error("fenced")),
    "fatal": Kind(3, "the producer is of no more use", _error("fatal")),
    "callback": Kind(3, "a callback of the group comes twice", _callback),
    "expel": Kind(4, "the group drops a member, which hears of it later", _membership),
    "lost-as-revoked": Kind(2, "the same, and the client says revoked in place of lost", _membership),
    "rebalance": Kind(4, "the group rebalances", _membership),
    "join": Kind(3, "another worker joins for some time", _membership),
    "broker": Kind(3, "the broker is down for some time", _lasting(200, 2_000, 20_000)),
    "coordinator": Kind(3, "the group's or the transactions' coordinator moves", _coordinator),
    "metadata": Kind(2, "questions about topics are not answered for some time", _lasting(300, 3_000)),
    "clock": Kind(2, "the wall clock jumps", _clock),
    "disk-error": Kind(3, "writing or opening state fails", _disk_error),
    "disk-full": Kind(1, "writing state fails for some time", _lasting(500, 5_000)),
    "late-markers": Kind(6, "transaction markers are written some time after the decision", _late_markers, early=True),
    "compaction": Kind(3, "changelogs are compacted", _compaction),
    "purge": Kind(2, "input and repartition records that are committed as processed are deleted",
                  lambda random: (*_anywhere(random), "", 0)),
}  # fmt: skip


def chosen_kinds(names: Iterable[str] | None) -> tuple[str, ...]:
    """The kinds to draw from, in the order of ``KINDS``; None: all.

    Raises:
        ConfigError: there is no such kind.

    >>> chosen_kinds(["pause", "crash"])
    ('crash', 'pause')
    """
    if names is None:
        return tuple(KINDS)
    wanted = set(names)
    unknown = sorted(wanted - KINDS.keys())
    if unknown:
        raise ConfigError(f"there is no fault {unknown[0]!r}; there are {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in wanted)


def draw_faults(seed: int, horizon_ms: int, kinds: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of a seed, the same ones every time.

    Args:
        seed: of the run.
        horizon_ms: no fault falls on a call after this virtual time.
        kinds: to draw from; none: no faults.
    """
    if not kinds:
        return ()
    random = Random(f"faults of {seed}")
    weights = [KINDS[kind].weight for kind in kinds]
    count = random.choice((1, 2, 4, 6, 8, 12, 16))
    faults = []
    for number in range(count):
        kind = random.choices(kinds, weights)[0]
        at_ms = random.randrange(horizon_ms // 4 if KINDS[kind].early else horizon_ms * 7 // 8)
        nth = random.choices((1, 2, 3, 6), (12, 4, 2, 1))[0]
        call, phase, detail, duration_ms = KINDS[kind].draw(random)
        faults.append(Fault(number, kind, at_ms, call, phase, nth, detail, duration_ms))
    return tuple(faults)


def faults_to_json(faults: Iterable[Fault]) -> str:
    """A list of faults as text, one per line.

    >>> faults_from_json(faults_to_json([Fault(3, "pause", 120, "producer.commit")]))
    (Fault(number=3, kind='pause', at_ms=120, call='producer.commit', phase='before', nth=1, detail='', duration_ms=0),)
    """
    return "[\n" + ",\n".join(json.dumps(asdict(fault)) for fault in faults) + "\n]\n"


def faults_from_json(text: str) -> tuple[Fault, ...]:
    """What ``faults_to_json`` wrote.

    Raises:
        ConfigError: it is not that.
    """
    try:
        items = json.loads(text)
        if not isinstance(items, list):
            raise TypeError("it is no list")
        faults = tuple(Fault(**item) for item in items)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this is no list of faults as streamstate simulate writes it: {error}") from error
    chosen_kinds(fault.kind for fault in faults)
    return faults
