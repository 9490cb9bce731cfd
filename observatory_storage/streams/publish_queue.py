"""The rows of a process that wait to be published, and the thread that publishes them.

A writer only adds its rows. The thread encodes them and sends them in pipelines. While Redis does
not answer, encoded rows wait in memory, up to a bound. What comes then is lost for the stream, and
the next entry says how many rows were. The database has them all.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.util import Finalize, register_after_fork
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from observatory_storage.circuit_breaker import CircuitBreaker
from observatory_storage.config import StreamsConfig, StreamSignal
from observatory_storage.models.severities import LEVELS, SEVERITIES
from observatory_storage.operations import LOST, Hooks, StoreOperation, outcome_of
from observatory_storage.rows import Row
from observatory_storage.serialization import Result
from observatory_storage.streams.chunks import ROWS_FIELD, ChunkEncoder
from observatory_storage.streams.streamed_signals import STREAMED
from observatory_storage.suppression import suppress_instrumentations
from observatory_storage.tables import LOGS, SPANS, TRACES, Values

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["PublishQueue", "StreamStats"]

_log = logging.getLogger(__name__)

_ENTRIES_AT_ONCE: Final = 50
# How long the end of a process or of a pool waits for rows that are not published yet.
_PATIENCE_SECS: Final = 2.0
# How long a thread whose pool is gone may stay.
_IDLE_SECS: Final = 5.0
_TRACE_OF_SPAN: Final = SPANS.position["trace_id"]
_TRACE_ID: Final = TRACES.position["id"]
_NUMBER, _TEXT = LOGS.positions("severity_number", "severity_text")


@dataclass(frozen=True, slots=True)
class StreamStats(Result):
    """What this process has published.

    Attributes:
        published_rows: rows that Redis has confirmed. A trace counts as a row.
        published_entries: the entries that contain them.
        lost_rows: rows that were not published, because too many were waiting. The database has
            them.
        waiting_rows: rows that are not published yet.
        is_connected: whether Redis answered when it was last called.
    """

    published_rows: int
    published_entries: int
    lost_rows: int
    waiting_rows: int
    is_connected: bool


class _Entry(NamedTuple):
    """An entry that is not published yet."""

    key: str
    content: bytes
    rows: int


class PublishQueue:
    """The rows that wait in this process; see `Publisher` for the arguments."""

    def __init__(
        self, config: StreamsConfig, prefix: str, connect: Callable[[], Redis], hooks: Hooks
    ) -> None:
        self._config = config
        self._hooks = hooks
        self._connect = connect
        self._least = LEVELS[config.min_severity] if config.min_severity else 0
        name = secrets.token_hex(6)
        self._encoders: dict[StreamSignal, ChunkEncoder] = {
            each: ChunkEncoder(STREAMED[each], name, payloads=config.payloads)
            for each in config.signals
        }
        self._keys = {each: STREAMED[each].key(prefix) for each in config.signals}
        self._breaker = CircuitBreaker(failures=1, pause_secs=0.1, max_pause_secs=2.0)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._is_stopped = False
        self._is_abandoned = False
        self._is_ending = False
        self._changed = threading.Condition()
        # These are guarded by `_changed`.
        self._commits: deque[Sequence[Row]] = deque()
        self._waiting = 0
        self._lost = 0
        self._lost_before: Counter[StreamSignal] = Counter()
        self._published_rows = self._published_entries = 0
        # Only the thread uses these.
        self._entries: deque[_Entry] = deque()
        self._client: Redis | None = None
        _queues.add(self)

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of a commit."""
        with self._changed:
            # A commit that is larger than the bound is published if nothing else is waiting.
            waiting = self._waiting + len(rows)
            has_room = not self._waiting or waiting <= self._config.max_waiting_rows
            is_lost = self._is_stopped or not has_room or not self._has_thread()
            if is_lost:
                self._lose(rows)
            else:
                self._commits.append(rows)
                self._waiting = waiting
                self._changed.notify_all()
        if is_lost:
            self._hooks.emit(StoreOperation("publish", outcome=LOST, rows=len(rows)))
        elif self._is_ending:
            self._flush_if_connected()

    def stats(self) -> StreamStats:
        with self._changed:
            return StreamStats(
                published_rows=self._published_rows,
                published_entries=self._published_entries,
                lost_rows=self._lost,
                waiting_rows=self._waiting,
                is_connected=not self._breaker.is_open,
            )

    def flush(self, timeout_secs: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_secs)

    def end_with_process(self) -> None:
        """Publish what is waiting, and from now on wait at each commit until it is published.

        Writers flush when the process ends, perhaps after this.
        """
        if self._pid == os.getpid():
            self._is_ending = True
            self._flush_if_connected()

    def close(self) -> None:
        self._flush_if_connected()
        with self._changed:
            self._is_stopped = True
            left, self._waiting = self._waiting, 0
            self._lost += left
            self._changed.notify_all()
        if left:
            _log.warning("%d rows are not in the stream: Redis did not answer in time", left)

    def abandon(self) -> None:
        """End the thread when everything is published.

        Without a lock, since the garbage collector calls this in any thread.
        """
        self._is_abandoned = True

    def _flush_if_connected(self) -> None:
        if not self._breaker.is_open:
            self.flush(_PATIENCE_SECS)

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(
                target=self._work, name="observatory_storage streams", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending
                return False
            self._thread = thread
        return True

    def _lose(self, rows: Sequence[Row]) -> None:
        if not self._lost:
            _log.warning("rows are not in the stream: Redis does not take them in time")
        self._lost += len(rows)
        for signal, chosen in self._by_signal(rows):
            self._lost_before[signal] += len(chosen)

    def _by_signal(self, rows: Iterable[Row]) -> Iterable[tuple[StreamSignal, Sequence[Any]]]:
        """The values of the rows that each stream gets; of traces, their ids."""
        by_table: dict[str, list[Values]] = {}
        for row in rows:
            by_table.setdefault(row.table, []).append(row.values)
        for signal in self._encoders:
            chosen: Sequence[Any] = by_table.get(STREAMED[signal].table.name, ())
            if signal == "traces":
                spans = by_table.get(SPANS.name, ())
                of_spans = [values[_TRACE_OF_SPAN] for values in spans]
                chosen = _distinct([*(values[_TRACE_ID] for values in chosen), *of_spans])
            elif signal == "logs" and self._least:
                chosen = [values for values in chosen if self._is_severe(values)]
            if chosen:
                yield signal, chosen

    def _is_severe(self, values: Values) -> bool:
        number, text = values[_NUMBER], values[_TEXT]
        if number is None and text is not None:
            number = SEVERITIES.get(text.upper())
        return number is not None and number >= self._least

    def _is_over(self) -> bool:
        has_work = bool(self._commits or self._entries) and not self._breaker.is_open
        return self._is_stopped or (self._is_abandoned and not has_work)

    def _work(self) -> None:
        with suppress_instrumentations():
            self._publish()

    def _publish(self) -> None:
        while not self._is_over():
            with self._changed:
                if not self._commits:
                    if not self._entries:
                        self._changed.wait(_IDLE_SECS)
                    elif pause := self._breaker.remaining_secs:
                        self._changed.wait(pause)
                commits = list(self._commits)
                self._commits.clear()
                lost, self._lost_before = self._lost_before, Counter()
            try:
                if commits:
                    self._encode([row for rows in commits for row in rows], lost)
                elif lost:
                    self._restore(lost)
                if self._entries and self._breaker.allows_call():
                    self._send()
            except Exception:  # noqa: BLE001 - nothing would be published any more
                _log.exception("rows are not in the stream")
                self._drop()
        if self._client is not None:
            self._client.close()
        # Nobody shall find entries that are not counted any more.
        self._entries.clear()

    def _encode(self, rows: Sequence[Row], lost: Counter[StreamSignal]) -> None:
        added = 0
        for signal, chosen in self._by_signal(rows):
            before = lost.pop(signal, 0)
            encoder, key = self._encoders[signal], self._keys[signal]
            encode = encoder.traces if signal == "traces" else encoder.chunks
            for content, count in encode(chosen, before):
                self._entries.append(_Entry(key, content, count))
                added += count
        with self._changed:
            self._waiting += added - len(rows)
            self._changed.notify_all()
        self._restore(lost)

    def _restore(self, lost: Counter[StreamSignal]) -> None:
        """Tell of these losses later, when their streams get an entry."""
        if lost:
            with self._changed:
                self._lost_before.update(lost)

    def _send(self) -> None:
        if self._client is None:
            self._client = self._connect()
        batch = list(islice(self._entries, _ENTRIES_AT_ONCE))
        with self._hooks.measure("publish") as measured:
            sent, error = self._added(self._client, batch)
            done = [self._entries.popleft() for _ in range(sent)]
            rows = sum(entry.rows for entry in done)
            measured.rows, measured.bytes = rows, sum(len(entry.content) for entry in done)
            if error is not None:
                measured.outcome = outcome_of(error)
        if error is None:
            self._breaker.succeeded()
        else:
            if not self._breaker.is_open:
                _log.warning("rows wait for Redis: %s", error)
            self._breaker.failed()
        with self._changed:
            self._waiting = max(0, self._waiting - rows)
            self._published_rows += rows
            self._published_entries += sent
            self._changed.notify_all()

    def _added(self, client: Redis, batch: Sequence[_Entry]) -> tuple[int, Exception | None]:
        """Add the entries; return how many of the first ones Redis has taken, and its error."""
        from redis import RedisError

        pipeline = client.pipeline(transaction=False)
        for entry in batch:
            pipeline.xadd(
                entry.key,
                {ROWS_FIELD: entry.content},
                maxlen=self._config.max_entries,
                approximate=True,
            )
        try:
            results = pipeline.execute(raise_on_error=False)
        except RedisError as error:
            return 0, error
        for sent, result in enumerate(results):
            if isinstance(result, Exception):
                return sent, result
        return len(results), None

    def _drop(self) -> None:
        with self._changed:
            self._lost += self._waiting
            self._waiting = 0
            self._commits.clear()
            self._entries.clear()
            self._changed.notify_all()


def _distinct(ids: Sequence[UUID]) -> list[UUID]:
    # The hash of a UUID is computed in Python, that of its integer is not.
    return list({key.int: key for key in ids}.values())


# The thread of a queue keeps it alive, also after its pool.
_queues: Final[weakref.WeakSet[PublishQueue]] = weakref.WeakSet()


def _end_all() -> None:
    for queue in list(_queues):
        queue.end_with_process()


def _end_with_process(_: object = None) -> None:
    Finalize(None, _end_all, exitpriority=-1)  # after the writers' flush


atexit.register(_end_all)
# Processes of multiprocessing and concurrent.futures end without calling `atexit`.
_end_with_process()
register_after_fork(_queues, _end_with_process)
