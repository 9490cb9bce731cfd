"""The base of the buffered writers: any thread adds rows, and other threads flush them.

A row goes through `_write` or `_write_many` into the `buffer`. The threads of the `flusher` take
batches from there, and the `delivery` writes them to the database or the spool.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from observatory_storage.config import SpoolConfig
from observatory_storage.errors import BatchError, Rejected, StorageError, ValidationError
from observatory_storage.processes import process_lock
from observatory_storage.rows import Row, prepare, prepare_many, remember_id
from observatory_storage.storing import Source, payload_mode, source_of
from observatory_storage.suppression import Suppression, suppress_instrumentations
from observatory_storage.tables import TableDefinition
from observatory_storage.writers import process_hooks
from observatory_storage.writers.buffer import Bounds, Buffer
from observatory_storage.writers.config import WriterConfig, largest_batch
from observatory_storage.writers.delivery import Delivery
from observatory_storage.writers.flusher import Flusher
from observatory_storage.writers.row_changes import NOTHING_COMPUTED, RowChanges
from observatory_storage.writers.spool.replay import PATIENCE_SECS
from observatory_storage.writers.stats import BufferStats, FlushResult, Recorder, WriteStats

__all__ = ["BufferedWriter"]

_CLOSE_TIMEOUT_SECS: Final = 30.0


class BufferedWriter:
    """The base of the buffered writers: use `TraceWriter`, `MetricWriter` or `LogWriter`.

    A writer is thread-safe. As a context manager it is closed at the end of the block. After a
    fork, the child starts with an empty buffer, and the parent writes the rows that were buffered
    before. When the interpreter or a process of multiprocessing exits, buffered rows are flushed.

    Args:
        pool: the pool to write to.
        config: how rows are collected and flushed.
        suppression: what OpenTelemetry does not record of the writer's own work; not for
            applications to pass.

    Attributes:
        signal: the signal that the writer writes.
    """

    signal: ClassVar[str]

    def __init__(
        self,
        pool: Source,
        config: WriterConfig | None = None,
        *,
        suppression: Suppression = suppress_instrumentations,
    ) -> None:
        self._source = source_of("pool", pool)
        if config is not None and not isinstance(config, WriterConfig):
            raise ValidationError("config", config, "must be WriterConfig")
        self._config = _with_spool(config or WriterConfig(), self._source.config.spool)
        self._suppression = suppression
        payload_mode(self._source, self._config.payloads)
        self._begin()
        self._pid = os.getpid()
        if self._delivery.replay is not None:
            self._delivery.replay.prepare()
        process_hooks.register(self)

    @property
    def source(self) -> Source:
        """The pool that the writer writes to."""
        return self._source

    @property
    def closed(self) -> bool:
        """Whether the writer refuses further rows."""
        return self._buffer.closed

    def _begin(self) -> None:
        config = self._config
        self._recorder = Recorder()
        self._buffer = self._new_buffer()
        self._changes = RowChanges(config.redact, self._source.rules, self._recorder, self._buffer)
        self._delivery = Delivery(
            self._source, config, self._buffer, self._recorder, self._suppression
        )
        self._flusher = Flusher(self._buffer, config, self._delivery.write, owner=self)

    def _new_buffer(self) -> Buffer:
        return Buffer(self._bounds())

    def _bounds(self) -> Bounds:
        config = self._config
        largest = largest_batch(config, self._source.config.postgres)
        return Bounds(config.batch_size, largest, config.max_concurrency, config.max_buffered)

    def release_parent_files(self) -> None:
        """Close this process's copies of its parent's spool files; not for applications to call."""
        if self._delivery.replay is not None and self._pid != os.getpid():
            self._delivery.replay.abandon()

    def _leave_parent(self) -> None:
        """Begin anew if the buffer and its locks are those of a parent process."""
        if self._pid == os.getpid():
            return
        with process_lock():
            if self._pid != os.getpid():
                closed = self._buffer.closed
                self.release_parent_files()
                self._begin()
                self._buffer.closed = closed
                # Last, for threads that see it use the buffer without the lock.
                self._pid = os.getpid()
        process_hooks.follow_host()

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
        buffer = self._buffer
        return f"<{type(self).__name__} buffered={buffer.weight} closed={buffer.closed}>"

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Commit all rows written before this call, or spool them while the database is away.

        Args:
            timeout: the seconds to wait; None to wait as long as the retries take.

        Raises:
            BatchError: rows were refused for their data and there is no ``on_rejected``. All other
                rows are committed. The error lists the first 1,000 refused rows.
            StorageError: rows could be neither written nor spooled; they stay buffered, and the
                next flush tries again.
            Timeout: the timeout passed. The remaining rows are written in the background.
        """
        self._leave_parent()
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._delivery.replay is not None:
            patience = PATIENCE_SECS if timeout is None else min(timeout, PATIENCE_SECS)
            self._delivery.replay.clear(patience, retry=True)
        self._buffer.decide_all()
        with self._buffer.lock:
            self._flusher.flush(timeout, deadline)
            result = self._delivery.result()
            # After a flush that spooled, the primary is away, or was. If another thread's flush has
            # reported the rows of this one, they have been committed nevertheless.
            has_position = self._recorder.has_committed and not result.spooled
        if not has_position:
            return result
        left = None if deadline is None else deadline - time.monotonic()
        with self._suppression():
            return replace(result, lsn=self._source.lsn_after_flush(left))

    def close(self, timeout: float | None = _CLOSE_TIMEOUT_SECS) -> FlushResult:
        """Flush, and refuse further rows. Closing again does nothing.

        With a spool, rows that could not be written for any reason are spooled.

        Args:
            timeout: the seconds to wait for the flush; None to wait as long as the retries take.

        Raises:
            StorageError, BatchError, Timeout: the same as for `flush`. The writer is closed
                nevertheless; another `flush` tries the remaining rows again.
        """
        self._leave_parent()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._buffer.lock:
            if self._buffer.closed and not self._buffer.weight:
                return FlushResult()
            self._buffer.closed = True
        try:
            return self.flush(timeout)
        except BatchError:
            raise
        except StorageError as error:
            self._delivery.spool_rest(error)
            with self._buffer.lock:
                return self._delivery.result()
        finally:
            if self._delivery.replay is not None:
                left = None if deadline is None else deadline - time.monotonic()
                self._delivery.replay.clear(left, all_rows=True)
                self._delivery.replay.stop()
            with self._buffer.lock:
                self._buffer.changed.notify_all()

    def buffer_stats(self) -> BufferStats:
        """Return the current state of the buffer."""
        self._leave_parent()
        with self._buffer.lock:
            buffer = self._buffer
            counts = buffer.weight, buffer.weight_running
            return BufferStats(*counts, self._config.max_buffered, buffer.weight_undecided)

    def write_stats(self) -> WriteStats:
        """Return the statistics of the writer so far, as a copy."""
        self._leave_parent()
        with self._buffer.lock:
            return self._recorder.stats()

    # -- writing ---------------------------------------------------------------------------------

    def _write(
        self,
        table: TableDefinition,
        row: Any,
        prepare_row: Callable[[Any], Row] | None = None,
        computed: Mapping[str, Any] = NOTHING_COMPUTED,
    ) -> Row | None:
        """Prepare a row and buffer it; None if the redaction hook or a rule drops it.

        Args:
            table: its table.
            row: the row as it was given.
            prepare_row: prepares the row.
            computed: columns of the row that are to be computed again if there are rules.
        """
        self._leave_parent()
        given = row
        changes = self._changes
        if changes.are_possible and (given := changes.changed(table, row, computed)) is None:
            return None
        prepared = prepare(table, given) if prepare_row is None else prepare_row(given)
        if type(row) is not dict:
            remember_id(row, prepared)
        self._add((prepared,), prepared.repairs)
        return prepared

    @property
    def changes_rows(self) -> bool:
        """Whether redaction or rules may change rows, which then have to be mappings."""
        return self._changes.are_possible

    def write_row(self, table: TableDefinition, row: Any) -> Row | None:
        """Buffer a row of any table of the signal; not for applications to call.

        Returns:
            The row as it is written; None if the redaction hook or a rule drops it.

        Raises:
            ValidationError: the row is not valid.
        """
        return self._write(table, row)

    def write_rows(self, table: TableDefinition, rows: Iterable[Any]) -> int:
        """Buffer rows of any table of the signal; not for applications to call.

        Unless the writer `changes_rows`, rows may be prepared already.

        Returns:
            How many rows were dropped because the buffer was full.

        Raises:
            BatchError: lists the rows that are not valid. All other rows are buffered.
        """
        return self._write_many(table, rows)

    def _write_many(self, table: TableDefinition, rows: Iterable[Any]) -> int:
        """Prepare and buffer rows in parts, so that the first parts are flushed meanwhile.

        Returns:
            How many rows were dropped because the buffer was full.

        Raises:
            BatchError: lists the rows that are not valid. All other rows are buffered.
        """
        self._leave_parent()
        rejected: list[Rejected] = []
        dropped = 0
        for indexes, part, given in self._changes.parts(table, rows, rejected):
            prepared, error = prepare_many(table, given)
            if error is not None:
                refused = {one.index: one.error for one in error.rejected}
                rejected += (Rejected(indexes[i], part[i], why) for i, why in refused.items())
                part = [row for index, row in enumerate(part) if index not in refused]  # noqa: PLW2901
            if "id" in table.position:
                for row, ready in zip(part, prepared, strict=True):
                    if type(row) is not dict:
                        remember_id(row, ready)
            dropped += self._add(prepared, sum([row.repairs for row in prepared]))
            # Release the GIL: a flush needs it often but briefly, and would wait for the next
            # switch.
            time.sleep(0)
        if rejected:
            raise BatchError(sorted(rejected, key=itemgetter(0)))
        return dropped

    def _add(self, rows: Sequence[Row], repairs: int) -> int:
        """Put prepared rows into the buffer. If it is full, follow ``on_full``.

        Returns:
            How many rows were dropped.
        """
        buffer, dropped = self._buffer, 0
        with buffer.lock:
            if repairs:
                self._recorder.counts.repaired += repairs
            added = 0
            while added < len(rows):
                if buffer.closed:
                    raise StorageError(f"the {type(self).__name__} is closed")
                added = buffer.add(rows, added)
                self._flusher.start()
                if added < len(rows):
                    # Flush the open batch in any case, so that the buffer does not stay full.
                    buffer.seal()
                    match self._config.on_full:
                        case "drop":
                            self._recorder.counts.dropped += 1
                            dropped += 1
                            added += 1
                        case "raise":
                            raise StorageError(
                                f"the buffer is full: max_buffered={self._config.max_buffered} rows"
                            )
                        case _:
                            self._flusher.wait()
        return dropped


def _with_spool(config: WriterConfig, spool: SpoolConfig) -> WriterConfig:
    """The configuration with the spool of the pool's settings, unless it names its own."""
    if config.spool_dir is not None or spool.directory is None:
        return config
    return replace(config, spool_dir=spool.directory, spool_max_bytes=spool.max_bytes)
