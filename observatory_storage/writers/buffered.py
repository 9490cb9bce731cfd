"""The buffer behind the three writers: rows collected by any thread, committed by workers.

A row is in exactly one place: the open batch, the queue, or a batch in flight. It leaves the
buffer only when its commit is confirmed, or when the database has refused it for its data. A batch
that could not be written goes back to its place in the queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from observatory_storage import jsonb
from observatory_storage.errors import (
    BatchError,
    Rejected,
    StorageError,
    Timeout,
    ValidationError,
    translate,
)
from observatory_storage.rows import Row, as_mapping, remember_id
from observatory_storage.writers import processes
from observatory_storage.writers.batch import Source, StoreResult, source_of, store
from observatory_storage.writers.load import chosen
from observatory_storage.writers.pending import Batch, Queue
from observatory_storage.writers.settings import BufferStats, FlushResult, WriterConfig, WriteStats

__all__ = ["BufferedWriter"]

_log = logging.getLogger(__name__)
_CLOSE_TIMEOUT_SECS: Final = 30.0
_IDLE_SECS: Final = 5.0  # a worker without work ends, and with it the last hold on its writer


class BufferedWriter:
    """What the three writers share: use `TraceWriter`, `MetricWriter` or `LogWriter`.

    Thread-safe, and a context manager that closes at its end. After a fork the child begins with
    an empty buffer: what the parent had buffered, the parent writes. At the interpreter's exit
    what is buffered is flushed.
    """

    def __init__(self, pool: Source, config: WriterConfig | None = None) -> None:
        self._source = source_of("pool", pool)
        if config is not None and not isinstance(config, WriterConfig):
            raise ValidationError("config", config, "must be WriterConfig")
        self._config = config or WriterConfig()
        self._begin()
        processes.register(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._open = Batch(0)
        self._opened_at = 0.0
        self._queue = Queue()
        self._running: set[Batch] = set()
        self._workers: list[threading.Thread] = []
        self._buffered = 0
        self._closed = False
        self._committed = 0
        self._rejected: list[Rejected] = []
        self._stats = WriteStats()

    def begin_in_child(self) -> None:
        """Begin anew in a forked child; not for applications to call."""
        closed = self._closed
        self._begin()
        self._closed = closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} buffered={self._buffered} closed={self._closed}>"

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Commit everything written before this call.

        Args:
            timeout: seconds to wait; None for as long as the retries take.

        Raises:
            BatchError: rows were refused for their data (all others are committed) and there is
                no ``on_rejected``.
            StorageError: rows could not be written; they stay buffered, and the next flush tries
                again.
            Timeout: the time ran out; what is left goes on being written in the background.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            awaited = self._seal_all()
            failure: StorageError | None = None
            for batch, tries in awaited:
                self._await(batch, tries, deadline)
                if not batch.done and batch.tries > tries:
                    failure = failure or batch.error
                    if batch.error is not None and batch.error.retryable:
                        break  # the database is away: the others would only wait for it too
            if failure is not None:
                raise failure
            if left := sum(len(batch.rows) for batch, _ in awaited if not batch.done):
                raise Timeout(
                    f"{left} rows were not committed within {timeout} s; they stay buffered"
                )
            # What a flush that raises could not tell, the next one does.
            rejected, self._rejected = self._rejected, []
            if rejected:
                raise BatchError(rejected)
            committed, self._committed = self._committed, 0
            return FlushResult(committed=committed)

    def close(self, timeout: float | None = _CLOSE_TIMEOUT_SECS) -> FlushResult:
        """Flush, and take no more rows. Closing again does nothing.

        Args:
            timeout: seconds to wait for the flush; None for as long as the retries take.

        Raises:
            StorageError, BatchError, Timeout: as `flush` does; the writer is closed all the same,
                and a further `flush` tries the remaining rows again.
        """
        with self._changed:
            if self._closed and not self._buffered:
                return FlushResult()
            self._closed = True
        try:
            return self.flush(timeout)
        finally:
            with self._changed:
                self._changed.notify_all()

    def buffer_stats(self) -> BufferStats:
        """The buffer at this moment."""
        with self._changed:
            flying = sum(batch.weight for batch in self._running)
            return BufferStats(self._buffered, flying, self._config.max_buffered)

    def write_stats(self) -> WriteStats:
        """What the writer has done so far: a copy, which does not change any more."""
        with self._changed:
            return replace(self._stats, rows_by_method=dict(self._stats.rows_by_method))

    # -- writing ---------------------------------------------------------------------------------

    def _write(self, model: Any, prepare: Callable[[Any], Row], row: Any) -> Row:
        """Prepare a row and buffer it, unless the redaction hook keeps it back."""
        before = jsonb.repairs.count
        if self._config.redact is not None:
            kept = self._config.redact(as_mapping(row, model))
            if kept is None:
                with self._changed:
                    self._stats.redacted += 1
                return prepare(row)
            prepared = prepare(kept)
        else:
            prepared = prepare(row)
        remember_id(row, prepared)
        self._put(prepared, jsonb.repairs.count - before)
        return prepared

    def _write_many(self, write: Callable[[Any], object], rows: Iterable[Any]) -> None:
        rejected = []
        for index, row in enumerate(rows):
            try:
                write(row)
            except ValidationError as error:
                rejected.append(Rejected(index, row, error))
        if rejected:
            raise BatchError(rejected)

    def _put(self, row: Row, repairs: int) -> None:
        weight = 1 + len(row.events or ())
        with self._changed:
            self._stats.repaired += repairs
            if not self._make_room(weight):
                self._stats.dropped += 1
                return
            if self._closed:
                raise StorageError(f"the {type(self).__name__} is closed")
            if self._open.weight + weight > self._config.batch_size:
                self._seal()
            if not self._open.rows:
                self._opened_at = time.monotonic()
                self._start_workers()
                self._changed.notify_all()
            self._open.rows.append(row)
            self._open.weight += weight
            self._buffered += weight
            if self._open.weight >= self._config.batch_size:
                self._seal()

    def _make_room(self, weight: int) -> bool:
        capacity = self._config.max_buffered
        # A row heavier than the whole buffer goes into an empty one.
        while self._buffered and self._buffered + weight > capacity and not self._closed:
            match self._config.on_full:
                case "drop":
                    return False
                case "raise":
                    raise StorageError(f"the buffer is full: max_buffered={capacity} rows")
            self._seal()
            self._wait(None)
        return True

    def _seal(self) -> None:
        if self._open.rows:
            self._queue.add(self._open)
            self._open = Batch(self._open.number + 1)
            self._changed.notify_all()

    # -- flushing --------------------------------------------------------------------------------

    def _seal_all(self) -> list[tuple[Batch, int]]:
        """All batches that hold rows now, each with the tries that have failed so far."""
        self._seal()
        self._queue.hurry()
        if self._queue:
            self._start_workers()
        self._changed.notify_all()
        waiting = sorted((*self._running, *self._queue), key=lambda batch: batch.number)
        return [(batch, batch.tries) for batch in waiting]

    def _await(self, batch: Batch, tries: int, deadline: float | None) -> None:
        """Wait until the batch is done with, or one more try has failed."""
        while not batch.done and batch.tries <= tries:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            self._wait(left)

    def _wait(self, timeout: float | None) -> None:
        """Wait for a change; where no thread can be had to bring one about, do its work here."""
        waits = [] if timeout is None else [timeout]
        if self._start_workers() or (batch := self._next(waits)) is None:
            self._changed.wait(min(waits, default=None))
        else:
            self._run(batch)

    def _start_workers(self) -> bool:
        """Have as many threads as there may be; False where there is none."""
        self._workers = [worker for worker in self._workers if worker.is_alive()]
        while len(self._workers) < self._config.max_concurrency:
            worker = threading.Thread(target=self._work, name="observatory-flush", daemon=True)
            try:
                worker.start()
            except RuntimeError:  # the interpreter is ending, or the system has no more threads
                break
            self._workers.append(worker)
        return bool(self._workers)

    def _work(self) -> None:
        """Write batches until there has been nothing to do for a while."""
        while (batch := self._take()) is not None:
            self._run(batch)

    def _take(self) -> Batch | None:
        idle_since = time.monotonic()
        interval = self._config.flush_interval_secs
        with self._changed:
            while True:
                now = time.monotonic()
                waits = []
                if self._open.rows and interval is not None:
                    if (due := self._opened_at + interval) <= now:
                        self._seal()
                    else:
                        waits.append(due - now)
                if (batch := self._next(waits)) is not None:
                    return batch
                if not self._open.rows and not self._queue:
                    if (rest := idle_since + _IDLE_SECS - now) <= 0 or self._closed:
                        self._workers.remove(threading.current_thread())
                        return None
                    waits.append(rest)
                self._changed.wait(min(waits, default=None))

    def _next(self, waits: list[float]) -> Batch | None:
        batch = self._queue.take(waits)
        if batch is not None:
            self._running.add(batch)
        return batch

    def _run(self, batch: Batch) -> None:
        method = self._config.method
        started, repairs = time.monotonic(), jsonb.repairs.count
        failure: StorageError | None = None
        result = StoreResult()
        try:
            result = store(self._source, batch.rows, method)
        except Exception as error:  # noqa: BLE001 - whatever it was: the rows stay, and `flush` raises it
            failure = translate(error) or StorageError(f"{type(error).__name__}: {error}")
            failure.__cause__ = failure.__cause__ or error
        self._hand_over(result.rejected)
        with self._changed:
            self._running.discard(batch)
            stats = self._stats
            stats.flush_seconds += time.monotonic() - started
            stats.repaired += jsonb.repairs.count - repairs
            stats.retries += result.retries
            if failure is None:
                batch.done = True
                self._buffered -= batch.weight
                self._committed += result.committed
                stats.rows += result.committed
                stats.batches += 1
                stats.rejected += len(result.rejected)
                used = chosen(method, len(batch.rows))
                stats.rows_by_method[used] = stats.rows_by_method.get(used, 0) + result.committed
                if self._config.on_rejected is None:
                    self._rejected += result.rejected
            else:
                stats.failed_flushes += 1
                batch.failed(failure, self._backoff(batch.tries + 1))
                self._queue.add(batch)
            self._changed.notify_all()
        if failure is not None:
            _log.warning("%d rows stay buffered: %s", len(batch.rows), failure)

    def _backoff(self, tries: int) -> float:
        retry = self._source.config.retry
        delay = retry.initial_delay_ms * retry.backoff_multiplier ** min(tries, 32)
        return float(min(delay, retry.max_delay_ms)) / 1000

    def _hand_over(self, rejected: list[Rejected]) -> None:
        for one in rejected:
            _log.warning("the database refused a row: %s", one.error)
            if self._config.on_rejected is not None:
                try:
                    self._config.on_rejected(one.row, one.error)
                except Exception:  # noqa: BLE001 - the application's own code; the other rows must not suffer
                    _log.exception("on_rejected failed")
