"""The threads that empty a buffer."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from observatory_storage.errors import Timeout, is_outage
from observatory_storage.writers.batch_queue import Batch
from observatory_storage.writers.buffer import Buffer
from observatory_storage.writers.config import WriterConfig

__all__ = ["Flusher"]

_IDLE_SECS: Final = 5.0  # a thread without work ends, so that its writer can be garbage-collected


class Flusher:
    """Writes the batches of a buffer, with as many threads as there is work for.

    Callers must hold the buffer's lock for every public method.

    Args:
        buffer: the buffer to empty.
        config: the configuration of the writer: the maximum number of threads, and the flush
            interval.
        write: writes a batch and then settles it or puts it back. It is called without the lock.
        owner: the writer. A running thread keeps it alive, so that the hook at the interpreter's
            exit still finds it.
    """

    def __init__(
        self, buffer: Buffer, config: WriterConfig, write: Callable[[Batch], None], owner: object
    ) -> None:
        self._buffer = buffer
        self._most_threads = config.max_concurrency
        self._interval_secs = config.flush_interval_secs
        self._write = write
        self._owner = weakref.ref(owner)
        self._threads: set[threading.Thread] = set()

    def start(self) -> bool:
        """Start a thread for each batch, within the limit; False if no thread can be started."""
        threads, most = self._threads, self._most_threads
        while len(threads) < most and len(threads) < self._buffer.batches:
            thread = threading.Thread(
                target=self._work, args=(self._owner(),), name="observatory-flush", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending, or the system has no more threads
                break
            threads.add(thread)
        return bool(threads)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for a change. If no thread can be started, write a batch in this thread."""
        waits = [] if timeout is None else [timeout]
        if self.start() or (batch := self._buffer.take(waits)) is None:
            self._buffer.changed.wait(min(waits, default=None))
        else:
            self._write(batch)

    def flush(self, timeout: float | None, deadline: float | None) -> None:
        """Wait until all rows that the buffer holds now have left it.

        Raises:
            StorageError: some rows could not be written. They stay in the buffer.
            Timeout: the deadline, on the monotonic clock, has passed.
        """
        awaited = self._buffer.seal_all()
        failed: list[Batch] = []
        for batch, tries in awaited:
            # A batch waits for a failed batch that it shares a row with.
            if not (failed and batch.shares_rows_with(failed)):
                self._await(batch, tries, deadline)
                if batch.done or batch.tries <= tries:
                    continue
            failed.append(batch)
            if batch.error is not None and is_outage(batch.error):
                break  # the database is away: the others would only wait for it too
        if failed:
            assert failed[0].error is not None
            raise failed[0].error
        if left := sum(len(batch.rows) for batch, _ in awaited if not batch.done):
            raise Timeout(f"{left} rows were not committed within {timeout} s; they stay buffered")

    def _await(self, batch: Batch, tries: int, deadline: float | None) -> None:
        """Wait until the batch is done, or until more attempts than these have failed."""
        while not batch.done and batch.tries <= tries:
            self._buffer.hurry(batch)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            self.wait(left)

    def _work(self, owner: object) -> None:
        """Write batches until there has been nothing to do for a while.

        Args:
            owner: the writer, which this reference keeps alive.
        """
        thread = threading.current_thread()
        try:
            while (batch := self._take(thread)) is not None:
                self._write(batch)
        finally:
            with self._buffer.lock:
                self._threads.discard(thread)

    def _take(self, thread: threading.Thread) -> Batch | None:
        buffer = self._buffer
        idle_since = time.monotonic()
        with buffer.lock:
            while True:
                waits: list[float] = []
                if self._interval_secs is not None:
                    buffer.seal_when_due(self._interval_secs, waits)
                if (batch := buffer.take(waits)) is not None:
                    return batch
                if not buffer.waiting:
                    rest = idle_since + _IDLE_SECS - time.monotonic()
                    if rest <= 0 or buffer.closed:
                        # Under the same lock: a call that adds a row now starts another thread.
                        self._threads.discard(thread)
                        return None
                    waits.append(rest)
                buffer.changed.wait(min(waits, default=None))
