"""Watches commits for traces, spans and users that pass bounds, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Final, Protocol, Self
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.commits import Commit, Commits
from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.models import Trace
from observatory_storage.processes import PerProcess
from observatory_storage.repositories import OneOf
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.streams.stream_opening import StreamStore, callback
from observatory_storage.streams.thresholds import (
    SpanDuration,
    Threshold,
    ThresholdPassed,
    TraceCost,
    UserSpend,
)
from observatory_storage.streams.told_once import ToldOnce
from observatory_storage.suppression import suppress_instrumentations
from observatory_storage.tables import SPANS, Values

__all__ = ["Watch", "WatchedStore"]

_log = logging.getLogger(__name__)
Hook = Callable[[ThresholdPassed], object]

_TRACE_ID, _SPAN_ID, _US, _NS, _COST, _USER = SPANS.positions(
    *("trace_id", "span_id", "duration_us", "duration_ns", "total_cost_usd", "user_id")
)
# Commits of this time are evaluated together, by one query for each bound.
_PAUSE_SECS: Final = 0.1
_AFTER_FAILURE_SECS: Final = 1.0
_PATIENCE_SECS: Final = 2.0
_IDLE_SECS: Final = 5.0
_SUBJECTS_AT_ONCE: Final = 1_000
_MOST_WAITING: Final = 100_000
# How long it is remembered that a trace or a span has passed a bound.
_REMEMBERED: Final = timedelta(days=1)


class WatchedStore(StreamStore, Protocol):
    """The attributes of a pool that watching needs."""

    @property
    def commits(self) -> Commits: ...


class Watch:
    """Calls a hook when what this process writes passes a bound. `StoragePool.watch` makes it."""

    def __init__(
        self, store: WatchedStore, hook: Hook, thresholds: Sequence[Threshold], name: str | None
    ) -> None:
        callback("hook", hook, required=True)
        if name is not None and not validation.required_text("name", name):
            raise ValidationError("name", name, "must not be empty")
        self._commits = store.commits
        self._name = _name_of(hook) if name is None else name
        with _lock:
            used = {watch._number for watch in _open if watch._name == self._name}
            # The smallest free number, so that the same watches of all processes have the same.
            self._number: int = next(number for number in count() if number not in used)
            _open.add(self)
        source, prefix = weakref.ref(store), f"{self._name}#{self._number}"
        self._own = PerProcess(lambda: _Worker(source, hook, thresholds, prefix))
        self._commits.add(self)

    def on_commit(self, commit: Commit) -> None:
        """Note the written spans. The pool calls this after each commit."""
        spans = [row.values for row in commit.rows if row.table == SPANS.name]
        if spans:
            self._own.get().add(spans)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until the commits so far are evaluated; False if they are not in so many seconds."""
        return self._own.get().flush(timeout)

    def close(self) -> None:
        """Evaluate what is waiting, for two seconds at most, and watch no more."""
        self._commits.remove(self)
        with _lock:
            _open.discard(self)
        worker = self._own.get()
        worker.flush(_PATIENCE_SECS)
        worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_open: weakref.WeakSet[Watch] = weakref.WeakSet()
_lock = threading.Lock()


class _Worker:
    """The thread of one process, and what waits for it."""

    def __init__(
        self,
        store: weakref.ref[WatchedStore],
        hook: Hook,
        thresholds: Sequence[Threshold],
        prefix: str,
    ) -> None:
        self._store = store
        self._hook = hook
        self._thresholds = thresholds
        self._prefix = prefix
        pool = store()
        assert pool is not None
        self._told = ToldOnce(pool)
        self._changed = threading.Condition()
        self._spans: list[Values] = []
        self._traces: set[UUID] = set()
        self._users: set[str] = set()
        self._is_evaluating = False
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def add(self, spans: Sequence[Values]) -> None:
        with self._changed:
            # A commit that is larger than the bound is compared if nothing else is waiting.
            has_room = not self._spans or len(self._spans) + len(spans) <= _MOST_WAITING
            if self._is_stopped or not has_room:
                _log.warning("%d spans are not compared with thresholds", len(spans))
                return
            self._spans += spans
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="observatory_storage thresholds", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return not (self._spans or self._traces or self._users or self._is_evaluating)

    def _work(self) -> None:
        while not self._is_stopped:
            with self._changed:
                if self._is_idle():
                    self._changed.wait(_IDLE_SECS)
                spans, self._spans = self._spans, []
                self._is_evaluating = bool(spans or self._traces or self._users)
            store = self._store()
            if store is None:
                return
            pause = _PAUSE_SECS
            try:
                if self._is_evaluating:
                    self._evaluate(store, spans)
            except StorageError as error:
                _log.warning("thresholds wait for the database: %s", error)
                pause = _AFTER_FAILURE_SECS
            except Exception:  # noqa: BLE001 - nothing would be watched any more
                _log.exception("thresholds were not compared")
                self._traces.clear()
                self._users.clear()
            del store
            with self._changed:
                self._is_evaluating = False
                self._changed.notify_all()
                if not self._is_idle():
                    self._changed.wait(pause)

    def _evaluate(self, store: WatchedStore, spans: Sequence[Values]) -> None:
        for threshold in self._thresholds:
            if isinstance(threshold, SpanDuration):
                self._compare_durations(threshold, spans)
        costly = [span for span in spans if span[_COST]]
        self._traces.update(span[_TRACE_ID] for span in costly)
        self._users.update(span[_USER] for span in costly if span[_USER] is not None)
        # They stay until they were compared, whatever happens to the database.
        traces, users = list(self._traces), list(self._users)
        for threshold in self._thresholds:
            if isinstance(threshold, TraceCost):
                self._compare_traces(store, threshold, traces)
            elif isinstance(threshold, UserSpend):
                self._compare_users(store, threshold, users)
        self._traces.clear()
        self._users.clear()

    def _compare_durations(self, threshold: SpanDuration, spans: Sequence[Values]) -> None:
        assert isinstance(threshold.maximum, timedelta)
        whole = threshold.maximum // timedelta(microseconds=1)
        for span in spans:
            if span[_US] is not None and (span[_US], span[_NS]) > (whole, 0):
                key = f"{span[_TRACE_ID].hex}:{span[_SPAN_ID]}"
                took = timedelta(microseconds=span[_US])
                passed = ThresholdPassed(threshold, span[_SPAN_ID], took, span[_TRACE_ID])
                self._tell(passed, key, _REMEMBERED)

    def _compare_traces(
        self, store: WatchedStore, threshold: TraceCost, ids: Sequence[UUID]
    ) -> None:
        for part in _parts(ids):
            statement = sa.select(Trace.id, Trace.trace_id, Trace.total_cost_usd).where(
                Trace.id.in_(part), Trace.total_cost_usd > threshold.max_usd
            )
            with suppress_instrumentations(), store.unit_of_work() as work:
                rows = Reader(work.session).rows(statement)
            for key, text, cost in rows:
                passed = ThresholdPassed(threshold, text, cost, key)
                self._tell(passed, key.hex, _REMEMBERED)

    def _compare_users(
        self, store: WatchedStore, threshold: UserSpend, users: Sequence[str]
    ) -> None:
        assert isinstance(threshold.window, timedelta)
        assert isinstance(threshold.max_usd, Decimal)
        start = datetime.now(UTC) - threshold.window
        for part in _parts(users):
            with suppress_instrumentations(), store.unit_of_work() as work:
                usage = work.metrics.get_user_usage(OneOf(*part), start_time=start)
            for of_user in usage:
                spent = of_user.total_cost_usd
                if spent is not None and spent > threshold.max_usd:
                    passed = ThresholdPassed(threshold, of_user.user_id, spent)
                    self._tell(passed, of_user.user_id, threshold.window)

    def _tell(self, passed: ThresholdPassed, key: str, lasting: timedelta) -> None:
        with suppress_instrumentations():
            if not self._told.is_first(f"{self._prefix}:{passed.threshold!r}:{key}", lasting):
                return
        try:
            self._hook(passed)
        except Exception:  # noqa: BLE001 - the application's own
            _log.exception("the hook of a threshold failed")


def _name_of(hook: Any) -> str:
    """What a hook is called in all processes."""
    while isinstance(hook, partial):
        hook = hook.func
    named = hook if hasattr(hook, "__qualname__") else type(hook)
    return f"{named.__module__}.{named.__qualname__}"


def _parts(subjects: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(subjects), _SUBJECTS_AT_ONCE):
        yield subjects[start : start + _SUBJECTS_AT_ONCE]
