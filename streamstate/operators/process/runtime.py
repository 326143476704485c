"""A user's Processor in the chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

from streamstate.errors import StateDirectoryFailed, TaskCorrupted, TooManyOpenFiles, TopologyError
from streamstate.functions import checked_function, checked_instance
from streamstate.operators.base.context import RecordWithHeaders, TaskContext, checked_headers
from streamstate.operators.base.failures import OperatorFailed, TaskInterrupted
from streamstate.operators.base.forwarding import Forward
from streamstate.operators.base.schedules import Schedule
from streamstate.operators.process import suppliers as given
from streamstate.operators.process.api import Processor
from streamstate.operators.process.timers import TimerService
from streamstate.state.staging import StagedStore
from streamstate.state.typed_stores import AnyStore, typed_store
from streamstate.units import Duration
from streamstate.windows import LATEST_TIME_MS, as_timedelta, checked_time, whole_ms

Headers = list[tuple[str, bytes | None]]

TIMERS = ("timers", "wall_clock_timers")

# Failures that pass through a processor: of an operator further down, of what a record needs, of the store.
OF_THE_STORE = (TaskInterrupted, TaskCorrupted, StateDirectoryFailed, TooManyOpenFiles)
NOT_THE_RECORDS = (OperatorFailed, *OF_THE_STORE)


class ProcessorContext:
    """Implements ``streamstate.operators.process.api.ProcessorContext`` for one processor of one task.

    Attributes:
        failed: what went wrong further down in the call under way, whatever the processor makes of it: what it catches
            is not its own to forgive. The record has been processed in part.
    """

    __slots__ = ("_by_wall_clock", "_context", "_forward", "_name", "_staged", "_stores", "failed")

    def __init__(self, name: str, context: TaskContext, stores: Mapping[str, StagedStore], forward: Forward) -> None:
        self._name = name
        self._context = context
        self._forward = forward
        self.failed: Exception | None = None
        # A punctuation by the wall clock is under way.
        self._by_wall_clock = False
        self._staged = stores
        self._stores = {
            store: typed_store(staging, self._now if staging.spec.ttl_ms is None else self._event_time)
            for store, staging in stores.items()
            if staging.spec.kind not in TIMERS
        }

    def _now(self) -> int:
        return self._context.timestamp

    def _event_time(self) -> int:
        return self._context.stream_time if self._by_wall_clock else self._context.timestamp

    @property
    def application_id(self) -> str:
        return self._context.application_id

    @property
    def task_id(self) -> str:
        return self._context.task_id

    @property
    def timestamp(self) -> int:
        return self._context.timestamp

    @property
    def stream_time(self) -> int:
        return self._context.stream_time

    @property
    def topic(self) -> str | None:
        record = self._context.record
        return None if record is None else record.topic()

    @property
    def partition(self) -> int | None:
        record = self._context.record
        return None if record is None else record.partition()

    @property
    def offset(self) -> int | None:
        record = self._context.record
        return None if record is None else record.offset()

    @property
    def headers(self) -> Headers:
        record = self._context.record
        return [] if record is None else list(record.headers() or ())

    def now_ms(self) -> int:
        return self._context.now_ms()

    def store(self, name: str) -> AnyStore:
        try:
            return self._stores[name]
        except KeyError:
            if name in self._staged:
                raise TopologyError(
                    f"processor {self._name!r} asks for store {name!r}, which holds timers: "
                    f"context.timers({name!r}, callback)"
                ) from None
            raise TopologyError(
                f"processor {self._name!r} asks for store {name!r}, which it was not given; "
                f"pass it: process(..., stores=[stores.key_value({name!r}, ...)])"
            ) from None

    def timers(self, name: str, callback: Callable[[Any, int], object]) -> TimerService:
        checked_function(callback, f"timers() of processor {self._name!r}", "key, time in ms")
        staging = self._staged.get(name)
        if staging is None or staging.spec.kind not in TIMERS:
            raise TopologyError(
                f"processor {self._name!r} asks for timers {name!r}, which it was not given; "
                f"pass them: process(..., stores=[stores.timers({name!r}, ...)])"
            )
        schedules = self._context.schedules
        if name in schedules.timers:
            raise TopologyError(
                f"processor {self._name!r} asks for timers {name!r}, which {schedules.timers[name]!r} has already: "
                "give each its own"
            )
        schedules.timers[name] = self._name
        wall_clock = staging.spec.kind == "wall_clock_timers"

        def call(key: Any, time_ms: int) -> None:
            self._punctuate(lambda _: callback(key, time_ms), time_ms, wall_clock, "in a timer")

        service = TimerService(staging, self._context, call)
        schedules.attach(service)
        return service

    def forward(self, key: Any, value: Any, *, timestamp: int | None = None, headers: Headers | None = None) -> None:
        context = self._context
        mine = context.timestamp
        if timestamp is None:
            timestamp = mine
        elif type(timestamp) is not int or not 0 <= timestamp <= LATEST_TIME_MS:
            checked_time(timestamp, "a record that is forwarded", 0)
        record = context.record
        if headers is not None:
            context.record = RecordWithHeaders(record, checked_headers(headers))
        try:
            self._forward(key, value, timestamp)
        except NOT_THE_RECORDS as error:
            if self.failed is None:
                self.failed = error
            raise
        finally:
            context.record = record
        # A processor further down has set its own.
        context.timestamp = mine

    def schedule(
        self, interval: Duration, kind: Literal["stream_time", "wall_clock"], callback: Callable[[int], object]
    ) -> Schedule:
        checked_function(callback, f"schedule() of processor {self._name!r}", "time in ms")
        given = as_timedelta(interval)
        if given is None:
            raise ValueError(f'processor {self._name!r}: an interval is a duration, such as "5m", not {interval!r}')
        interval_ms = whole_ms(given)
        if interval_ms < 1:
            raise ValueError(f"processor {self._name!r}: an interval of {interval} is below one millisecond")
        if kind not in ("stream_time", "wall_clock"):
            raise ValueError(f"processor {self._name!r}: kind is 'stream_time' or 'wall_clock', not {kind!r}")
        context, wall_clock = self._context, kind == "wall_clock"

        def punctuate(time_ms: int) -> None:
            self._punctuate(callback, time_ms, wall_clock, "in a punctuation")

        return context.schedules.add(interval_ms, wall_clock, punctuate, context.now_ms(), context.stream_time)

    def _punctuate(self, callback: Callable[[int], object], time_ms: int, wall_clock: bool, doing: str) -> None:
        self._context.record = None
        self._context.timestamp = time_ms
        self._by_wall_clock = wall_clock
        try:
            callback(time_ms)
        except Exception as error:  # noqa: BLE001 - it is raised again
            self.raise_for(error, doing)
        finally:
            self._by_wall_clock = False
        if self.failed is not None:
            self.raise_for(self.failed)

    def raise_for(self, error: Exception, doing: str = "") -> NoReturn:
        """Raise what is to be said of a call that has raised ``error``, or has caught it."""
        failed, self.failed = self.failed, None
        try:
            if failed is not None:
                raise failed
            if isinstance(error, NOT_THE_RECORDS):
                raise error
            raise OperatorFailed(self._name, doing) from error
        finally:
            # The traceback has this frame. With the error among its variables they would keep each other alive, and
            # with them the iterators of a damaged database, which then could not be closed and opened anew.
            del failed, error


class ProcessorOperator:
    """Life of one Processor: made with the task, initialised when its state is there, closed with the task.

    Attributes:
        base: of the user's class.
        method: of it that takes (key, value).
    """

    base: type = Processor
    method = "process"

    def __init__(
        self,
        name: str,
        supplier: Callable[[], Any],
        context: TaskContext,
        stores: Mapping[str, StagedStore],
        forward: Forward,
    ) -> None:
        self._name = name
        self._supplier = supplier
        self._task = context
        self._context = ProcessorContext(name, context, stores, forward)
        self._processor: Any = None
        self._process: Callable[[Any, Any], None] | None = None

    def init(self) -> None:
        """Make the Processor and call its ``init``."""
        try:
            processor = self._made()
            processor.init(self._context)
        except (TopologyError, *OF_THE_STORE):
            raise
        except Exception as error:
            raise OperatorFailed(self._name, "in init") from error
        if self._context.failed is not None:
            self._context.raise_for(self._context.failed)
        self._processor = processor
        self._process = processor.process

    def _made(self) -> Any:
        """A new instance, from the supplier."""
        instance = self._supplier()
        checked_instance(instance, f"operator {self._name!r}", self.base, self.method)
        given.once(instance, self._name, self._task.task_id)
        return instance

    def close(self) -> None:
        """Call its ``close``, once."""
        processor, self._processor = self._processor, None
        if processor is not None:
            try:
                processor.close()
            except Exception as error:
                raise OperatorFailed(self._name, "in close") from error

    def run(self, key: Any, value: Any, timestamp: int) -> None:
        """Give it one record."""
        self._task.timestamp = timestamp
        context = self._context
        try:
            self._process(key, value)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - it is raised again
            context.raise_for(error)
        if context.failed is not None:
            context.raise_for(context.failed)
