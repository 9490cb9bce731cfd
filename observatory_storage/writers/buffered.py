"""The buffer behind the three writers: rows collected by any thread, committed by workers.

A row is in exactly one place: the open batch, the queue, or a batch in flight. It leaves the
buffer only when its commit is confirmed, when the database has refused it for its data, or when it
is safe in the spool, where there is one. A batch that could not be written goes back to its place
in the queue.
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
from observatory_storage.backoff import pause_secs
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
from observatory_storage.writers.replay import PATIENCE_SECS, Replay
from observatory_storage.writers.settings import BufferStats, FlushResult, WriterConfig, WriteStats
from observatory_storage.writers.spool import Chunk

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
        if self._replay is not None:
            self._replay.prepare()
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
        self._committed = self._spooled = 0
        self._rejected: list[Rejected] = []
        self._stats = WriteStats()
        self._replay: Replay | None = None
        if self._config.spool_dir is not None:
            self._replay = Replay(self._source, self._config, self._replayed)

    def begin_in_child(self) -> None:
        """Begin anew in a forked child; not for applications to call."""
        closed = self._closed
        if self._replay is not None:
            self._replay.abandon()
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
        """Commit everything written before this call, or spool it while the database is away.

        Args:
            timeout: seconds to wait; None for as long as the retries take.

        Raises:
            BatchError: rows were refused for their data (all others are committed) and there is
                no ``on_rejected``.
            StorageError: rows could be neither written nor spooled; they stay buffered, and the
                next flush tries again.
            Timeout: the time ran out; what is left goes on being written in the background.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._replay is not None:
            patience = PATIENCE_SECS if timeout is None else min(timeout, PATIENCE_SECS)
            self._replay.clear(patience, retry=True)
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
            return self._result()

    def _result(self) -> FlushResult:
        # What a flush that raises could not tell, the next one does.
        rejected, self._rejected = self._rejected, []
        if rejected:
            raise BatchError(rejected)
        result = FlushResult(committed=self._committed, spooled=self._spooled)
        self._committed = self._spooled = 0
        return result

    def close(self, timeout: float | None = _CLOSE_TIMEOUT_SECS) -> FlushResult:
        """Flush, and take no more rows. Closing again does nothing.

        With a spool, what remains goes there, whatever kept it from being written.

        Args:
            timeout: seconds to wait for the flush; None for as long as the retries take.

        Raises:
            StorageError, BatchError, Timeout: as `flush` does; the writer is closed all the same,
                and a further `flush` tries the remaining rows again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if self._closed and not self._buffered:
                return FlushResult()
            self._closed = True
        try:
            return self.flush(timeout)
        except BatchError:
            raise
        except StorageError as error:
            return self._spool_rest(error)
        finally:
            if self._replay is not None:
                left = None if deadline is None else deadline - time.monotonic()
                self._replay.clear(left, all_rows=True)
                self._replay.stop()
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
        """All batches that hold rows now, each with the failed tries that say nothing of now.

        A try that is under way may fail for what was so before this call.
        """
        self._seal()
        self._queue.hurry()
        if self._queue:
            self._start_workers()
        self._changed.notify_all()
        waiting = sorted((*self._running, *self._queue), key=lambda batch: batch.number)
        return [(batch, batch.tries + (batch in self._running)) for batch in waiting]

    def _await(self, batch: Batch, tries: int, deadline: float | None) -> None:
        """Wait until the batch is done with, or more tries than these have failed."""
        while not batch.done and batch.tries <= tries:
            if batch not in self._running and batch.not_before:
                batch.not_before = 0.0
                self._changed.notify_all()
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
        result: StoreResult | None = None
        try:
            result = self._commit_or_spool(batch.rows)
        except Exception as error:  # noqa: BLE001 - whatever it was: the rows stay, and `flush` raises it
            failure = translate(error) or StorageError(f"{type(error).__name__}: {error}")
            failure.__cause__ = failure.__cause__ or error
        if result is not None:
            self._hand_over(result.rejected)
        with self._changed:
            self._running.discard(batch)
            stats = self._stats
            stats.flush_seconds += time.monotonic() - started
            stats.repaired += jsonb.repairs.count - repairs
            if batch.done:
                pass  # `close` has spooled it meanwhile
            elif failure is None and result is None:
                self._count_spooled(batch)
            elif result is not None:
                batch.done = True
                self._buffered -= batch.weight
                self._committed += result.committed
                stats.retries += result.retries
                stats.rows += result.committed
                stats.batches += 1
                stats.rejected += len(result.rejected)
                used = chosen(method, len(batch.rows))
                stats.rows_by_method[used] = stats.rows_by_method.get(used, 0) + result.committed
                if self._config.on_rejected is None:
                    self._rejected += result.rejected
            elif failure is not None:
                stats.failed_flushes += 1
                batch.failed(failure, pause_secs(self._source.config.retry, batch.tries + 1))
                self._queue.add(batch)
            self._changed.notify_all()
        if failure is not None:
            _log.warning("%d rows stay buffered: %s", len(batch.rows), failure)
        elif result is not None and self._replay is not None:
            self._replay.look()

    # -- spooling --------------------------------------------------------------------------------

    def _commit_or_spool(self, rows: list[Row]) -> StoreResult | None:
        """Commit the rows; None where they went into the spool instead."""
        replay = self._replay
        if replay is not None and not replay.clear():
            replay.take(rows)  # behind those that wait there already
            return None
        try:
            return store(self._source, rows, self._config.method)
        except StorageError as error:
            if replay is None or not error.retryable:
                raise
            replay.take(rows, error)
            return None

    def _count_spooled(self, batch: Batch) -> None:
        batch.done = True
        self._buffered -= batch.weight
        self._spooled += len(batch.rows)
        self._stats.spooled += len(batch.rows)

    def _spool_rest(self, error: StorageError) -> FlushResult:
        """Spool what is still buffered, also what a worker has not finished writing."""
        if self._replay is None:
            raise error
        with self._changed:
            self._seal()
            for batch in sorted((*self._running, *self._queue), key=lambda batch: batch.number):
                self._replay.take(batch.rows, error)
                self._count_spooled(batch)
                self._queue.discard(batch)
            return self._result()

    def _replayed(self, result: StoreResult, chunk: Chunk) -> None:
        self._hand_over(result.rejected)
        with self._changed:
            stats = self._stats
            stats.replayed += result.committed
            stats.retries += result.retries
            stats.rejected += len(result.rejected)
            stats.damaged += chunk.damaged
            # Rows that another process wrote are no failure of this one's flushes.
            if self._config.on_rejected is None and chunk.own:
                self._rejected += result.rejected

    def _hand_over(self, rejected: list[Rejected]) -> None:
        for one in rejected:
            _log.warning("the database refused a row: %s", one.error)
            if self._config.on_rejected is not None:
                try:
                    self._config.on_rejected(one.row, one.error)
                except Exception:  # noqa: BLE001 - the application's own code; the other rows must not suffer
                    _log.exception("on_rejected failed")
