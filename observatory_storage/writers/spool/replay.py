"""Spools rows while the database is away, and replays them into the database.

While rows of a writer wait in its spool, the rows that follow are spooled too. So the database gets
them in the order of writing. One thread replays them, so no caller waits for a server that does not
answer.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from observatory_storage.backoff import pause_secs
from observatory_storage.errors import StorageError, translate
from observatory_storage.rows import Row
from observatory_storage.storing import Source, StoreResult, store
from observatory_storage.suppression import Suppression
from observatory_storage.writers.config import WriterConfig, largest_batch
from observatory_storage.writers.spool.files import Chunk, Spool
from observatory_storage.writers.stats import Written

__all__ = ["PATIENCE_SECS", "Replay"]

_log = logging.getLogger(__name__)
# If at most this much is spooled, new rows wait this long for its replay before they are spooled.
_LITTLE_BYTES: Final = 8 * 1024 * 1024
PATIENCE_SECS: Final = 2.0
# How often a writer looks for spool files of dead processes.
_LOOK_SECS: Final = 60.0


class Replay:
    """A writer's spool, and the thread that empties it.

    Args:
        source: the pool.
        config: the configuration of the writer; its `spool_dir` is set.
        report: called with the result of replayed rows, before they are removed from the spool.
        suppression: a context within which the thread works.
    """

    def __init__(
        self,
        source: Source,
        config: WriterConfig,
        report: Callable[[StoreResult, Chunk], None],
        suppression: Suppression,
    ) -> None:
        assert config.spool_dir is not None
        target = f"{source.engine.url.database}/{source.schema}"
        self._spool = Spool(Path(config.spool_dir), target, config.spool_max_bytes)
        self._source = source
        self._config = config
        self._most_rows = largest_batch(config, source.config.postgres)
        self._report = report
        self._suppression = suppression
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failures = 0  # ever
        self._failures_in_a_row = 0
        self._trying = False
        self._not_before = 0.0
        self._look_at = 0.0
        self._stopped = False

    def prepare(self) -> None:
        """Create the directory, and begin to replay the files that dead processes left in it.

        Raises:
            StorageError: the directory cannot be used.
        """
        self._spool.prepare()
        self.look()

    def look(self) -> None:
        """Adopt the files of dead processes, unless this was done a short while ago."""
        with self._changed:
            now = time.monotonic()
            if self._stopped or now < self._look_at:
                return
            self._look_at = now + _LOOK_SECS
            try:
                self._spool.adopt()
            except StorageError as error:
                _log.warning("%s", error)
            self._start()

    def take(self, rows: Sequence[Row], because: StorageError | None = None) -> int:
        """Spool rows. When the method returns, they are on disk.

        Args:
            rows: the rows to spool.
            because: the database error for which they are spooled.

        Returns:
            The number of texts that were repaired; see `Spool.append`.

        Raises:
            StorageError: the size limit is reached, or the disk failed.
        """
        try:
            repairs = self._spool.append(rows)
        except StorageError as error:
            if because is None:
                raise
            raise error from because
        if because is not None:
            _log.warning("%d rows go to %r: %s", len(rows), self._spool, because)
        with self._changed:
            if because is not None:
                self._has_failed()
            self._start()
            if self._stopped:
                self._spool.release()
        return repairs

    def clear(
        self,
        seconds: float | None = PATIENCE_SECS,
        *,
        retry: bool = False,
        all_rows: bool = False,
    ) -> bool:
        """Wait until no row of the writer is in the spool; False if some are left.

        It does not wait if the database has just been away, or if there are many rows.

        Args:
            seconds: the seconds to wait; None to wait as long as the replay makes progress.
            retry: try the database now, even if it has just been away.
            all_rows: wait for any number of rows.
        """
        if not self._spool.holds_own():
            return True
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        with self._changed:
            # An attempt that is already running may fail for a reason that has passed: allow one
            # more.
            allowed = self._failures + (retry and self._trying)
            self._start()
            while self._spool.holds_own():
                now = time.monotonic()
                if retry and self._failures <= allowed and self._not_before:
                    self._not_before = 0.0
                    self._changed.notify_all()
                much = self._spool.waiting_bytes > _LITTLE_BYTES and not all_rows
                away = now < self._not_before or self._failures > allowed
                if much or away or now >= deadline or self._thread is None:
                    return False
                self._changed.wait(min(deadline - now, _LOOK_SECS))
        return True

    def stop(self) -> None:
        """Stop the thread, and leave the spooled rows to a process that adopts them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._spool.release()

    def abandon(self) -> None:
        """Forget the spool in a forked child: it belongs to the parent."""
        self._spool.abandon()

    # -- the thread ------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is not None or self._stopped or self._spool.empty:
            return
        thread = threading.Thread(target=self._work, name="observatory-replay", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending: another process will do it
            return
        self._thread = thread

    def _work(self) -> None:
        with self._suppression():
            self._empty_spool()

    def _empty_spool(self) -> None:
        chunk: Chunk | None = None
        while self._goes_on():
            self._trying = True
            try:
                chunk = chunk or self._spool.read(self._most_rows)
                if chunk is not None:
                    self._move(chunk)
                    chunk = None
            except Exception as error:  # noqa: BLE001 - whatever it was, the rows stay where they are
                with self._changed:
                    if not self._failures_in_a_row:
                        _log.warning("rows stay in %r: %s", self._spool, translate(error) or error)
                    self._trying = False
                    self._has_failed()
            else:
                with self._changed:
                    self._trying = False
                    self._failures_in_a_row = 0
                    self._changed.notify_all()

    def _goes_on(self) -> bool:
        """Wait until there is something to try; False if there is nothing left to do."""
        with self._changed:
            while not (self._stopped or self._spool.empty):
                pause = self._not_before - time.monotonic()
                if pause <= 0:
                    return True
                self._changed.wait(pause)
            self._thread = None
            self._changed.notify_all()
            return False

    def _move(self, chunk: Chunk) -> None:
        result = StoreResult()
        if chunk.rows:
            rows, method = chunk.rows, self._config.method
            hooks = self._source.hooks
            with hooks.measure("replay") as measured:
                result = store(self._source, rows, method, self._config.payloads)
                if hooks.registered:
                    Written.of(rows, result, method).tell(measured)
        self._report(result, chunk)
        self._spool.done(chunk)
        with self._changed:
            if self._spool.empty and not self._stopped:
                self._spool.adopt()  # files that others left during the same outage

    def _has_failed(self) -> None:
        self._failures += 1
        self._failures_in_a_row += 1
        pause = pause_secs(self._source.config.retry, self._failures_in_a_row)
        self._not_before = time.monotonic() + pause
        self._changed.notify_all()
