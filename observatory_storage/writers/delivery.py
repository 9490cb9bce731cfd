"""Delivers a batch: its rows are committed, refused for their data, spooled, or put back."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from observatory_storage.backoff import pause_secs
from observatory_storage.errors import BatchError, Rejected, StorageError, is_outage, translate
from observatory_storage.operations import SPOOLED, Measurement, outcome_of
from observatory_storage.rows import Row
from observatory_storage.storing import Source, StoreResult, store_into
from observatory_storage.suppression import Suppression
from observatory_storage.writers.batch_queue import Batch
from observatory_storage.writers.buffer import Buffer
from observatory_storage.writers.config import WriterConfig
from observatory_storage.writers.spool.files import Chunk
from observatory_storage.writers.spool.replay import Replay
from observatory_storage.writers.stats import FlushResult, Recorder, Written

__all__ = ["Delivery"]

_log = logging.getLogger(__name__)
# The next flush lists at most this many refused rows; all are logged and counted.
_MOST_LISTED: Final = 1000


class Delivery:
    """Writes a writer's batches to the database, or to its spool.

    Args:
        source: the pool.
        config: the configuration of the writer.
        buffer: the source of the batches.
        recorder: counts the results, under the buffer's lock.
        suppression: a context within which the database is written to.

    Attributes:
        replay: the spool and its replay; None without a spool.
    """

    def __init__(
        self,
        source: Source,
        config: WriterConfig,
        buffer: Buffer,
        recorder: Recorder,
        suppression: Suppression,
    ) -> None:
        self._source = source
        self._config = config
        self._buffer = buffer
        self._recorder = recorder
        self._suppression = suppression
        # The rows since the last flush that returned.
        self._committed = self._spooled = 0
        self._rejected: list[Rejected] = []
        self.replay: Replay | None = None
        if config.spool_dir is not None:
            self.replay = Replay(source, config, self._replayed, suppression)

    def write(self, batch: Batch) -> None:
        """Write a batch that was taken from the buffer, and settle it or put it back."""
        with self._suppression():
            self._write_measured(batch)

    def _write_measured(self, batch: Batch) -> None:
        hooks = self._source.hooks
        if not hooks.registered:
            self._write(batch, StoreResult())
            return
        with hooks.measure("flush") as measured:
            result = StoreResult()
            outcome = self._write(batch, result)
            if isinstance(outcome, Written):
                outcome.tell(measured)
                return
            self._tell_not_committed(measured, batch, result, outcome)

    def _tell_not_committed(
        self,
        measured: Measurement,
        batch: Batch,
        result: StoreResult,
        error: StorageError | None,
    ) -> None:
        """Set what became of a batch that was spooled, or failed."""
        if not self._source.hooks.registered:
            return
        # The table and the method that the rows were for.
        Written.of(batch.rows, result, self._config.method).tell(measured)
        measured.rows_by_table = None
        if error is None:
            measured.outcome, measured.rows = SPOOLED, len(batch.rows)
        else:
            measured.outcome = outcome_of(error)

    def _write(self, batch: Batch, result: StoreResult) -> Written | StorageError | None:
        """The same, with what became of the batch; None if it was spooled."""
        started = time.monotonic()
        # The outcome if this thread is interrupted.
        outcome: Written | StorageError | None = StorageError("interrupted", retryable=True)
        try:
            outcome = self._commit_or_spool(batch.rows, result)
            if isinstance(outcome, Written):
                self._hand_over(outcome.result.rejected)
        except Exception as error:  # noqa: BLE001 - the rows stay whatever it was, and `flush` raises it
            outcome = translate(error) or StorageError(f"{type(error).__name__}: {error}")
            outcome.__cause__ = outcome.__cause__ or error
        finally:
            with self._buffer.lock:
                seconds = time.monotonic() - started
                self._recorder.counts.flush_seconds += seconds
                self._recorder.counts.repaired += result.repaired
                self._recorder.counts.bytes += result.sent.count
                self._conclude(batch, outcome, seconds)
        if isinstance(outcome, StorageError):
            _log.warning("%d rows stay buffered: %s", len(batch.rows), outcome)
        elif outcome is not None and self.replay is not None:
            self.replay.look()
        return outcome

    def _conclude(
        self, batch: Batch, outcome: Written | StorageError | None, seconds: float
    ) -> None:
        if batch.done:  # `spool_rest` has spooled it meanwhile
            self._buffer.settle(batch)
        elif outcome is None:
            self._count_spooled(batch)
        elif isinstance(outcome, Written):
            self._recorder.committed(outcome, seconds)
            self._committed += outcome.result.committed
            self._remember(outcome.result.rejected)
            self._buffer.settle(batch)
        else:
            self._recorder.counts.failed_flushes += 1
            pause = pause_secs(self._source.config.retry, batch.tries + 1)
            self._buffer.put_back(batch, outcome, pause)

    def result(self) -> FlushResult:
        """The results since the previous call returned. Callers must hold the buffer's lock.

        Raises:
            BatchError: rows were refused. The next call reports the committed rows.
        """
        rejected, self._rejected = self._rejected, []
        if rejected:
            raise BatchError(rejected)
        result = FlushResult(committed=self._committed, spooled=self._spooled)
        self._committed = self._spooled = 0
        return result

    # -- the spool -------------------------------------------------------------------------------

    def _commit_or_spool(self, rows: Sequence[Row], result: StoreResult) -> Written | None:
        """Commit the rows; None if they were spooled instead."""
        replay = self.replay
        if replay is not None and not replay.clear():
            result.repaired += replay.take(rows)  # they must follow the rows in the spool
            return None
        try:
            store_into(result, self._source, rows, self._config.method, self._config.payloads)
        except StorageError as error:
            if replay is None or not is_outage(error):
                raise
            result.repaired += replay.take(rows, error)
            return None
        return Written.of(rows, result, self._config.method)

    def spool_rest(self, because: StorageError) -> None:
        """Spool all buffered rows, including those that a thread has not finished writing.

        Raises:
            StorageError: there is no spool, or it cannot store the rows.
        """
        if self.replay is None:
            raise because
        spooled: list[Batch] = []
        try:
            with self._buffer.lock:
                for batch, _ in self._buffer.seal_all():
                    self._recorder.counts.repaired += self.replay.take(batch.rows, because)
                    self._count_spooled(batch)
                    spooled.append(batch)
        finally:
            for batch in spooled:  # hooks are not called under the lock
                with self._source.hooks.measure("flush") as measured:
                    self._tell_not_committed(measured, batch, StoreResult(), None)

    def _count_spooled(self, batch: Batch) -> None:
        self._buffer.settle(batch)
        self._spooled += len(batch.rows)
        self._recorder.counts.spooled += len(batch.rows)

    def _replayed(self, result: StoreResult, chunk: Chunk) -> None:
        self._hand_over(result.rejected)
        with self._buffer.lock:
            counts = self._recorder.counts
            counts.replayed += result.committed
            counts.retries += result.retries
            counts.repaired += result.repaired
            counts.rejected += len(result.rejected)
            counts.damaged += chunk.damaged
            # Refused rows of another process do not make this writer's flushes fail.
            if chunk.own:
                self._remember(result.rejected)

    # -- rows that were refused ------------------------------------------------------------------

    def _hand_over(self, rejected: Sequence[Rejected]) -> None:
        for one in rejected:
            _log.warning("the database refused a row: %s", one.error)
            if self._config.on_rejected is not None:
                try:
                    self._config.on_rejected(one.row, one.error)
                except Exception:  # noqa: BLE001 - the application's own code; the other rows must not suffer
                    _log.exception("on_rejected failed")

    def _remember(self, rejected: Sequence[Rejected]) -> None:
        """Let the next flush list the refused rows, if there is no handler."""
        if self._config.on_rejected is None:
            self._rejected += rejected[: _MOST_LISTED - len(self._rejected)]
