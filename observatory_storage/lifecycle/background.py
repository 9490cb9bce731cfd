"""A thread that maintains the store while the pool is in use."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from observatory_storage.errors import StorageError
from observatory_storage.processes import PerProcess

__all__ = ["BackgroundMaintenance"]

logger = logging.getLogger(__name__)

# How long `stop` waits for the step that is under way. A killed run does no harm.
_PATIENCE_SECS: Final = 5.0
_FIRST_WAIT_SECS: Final = 10.0


class BackgroundMaintenance:
    """Calls a function again and again, in a daemon thread of each process that uses the pool.

    Args:
        maintain: a bound method that maintains the store once. The thread ends when its object is
            garbage-collected.
        interval: the time from one call to the next.
    """

    def __init__(self, maintain: Callable[[], object], interval: timedelta) -> None:
        self._maintain = weakref.WeakMethod(maintain)
        self._interval = interval
        self._own = PerProcess(_Worker)

    def start_with(self, engine: sa.Engine) -> None:
        """Start the thread of each process when it first uses a connection of the engine."""
        sa.event.listen(engine, "engine_connect", lambda _: self.start())

    def start(self) -> None:
        """Start the thread of this process, unless it runs. It does not survive a fork."""
        worker = self._own.get()
        if worker.thread is not None or worker.stopped.is_set():
            return
        with worker.lock:
            if worker.thread is None:
                worker.thread = threading.Thread(
                    target=_work,
                    args=(self._maintain, self._interval, worker.stopped),
                    name="observatory_storage maintenance",
                    daemon=True,
                )
                worker.thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait for it briefly."""
        worker = self._own.get()
        worker.stopped.set()
        thread = worker.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE_SECS)


class _Worker:
    """The thread of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None


def _work(
    maintain: weakref.WeakMethod[Callable[[], object]],
    interval: timedelta,
    stopped: threading.Event,
) -> None:
    # An application that has just started may have to migrate first.
    stopped.wait(min(interval.total_seconds(), _FIRST_WAIT_SECS))
    while not stopped.is_set():
        call = maintain()
        if call is None:  # the pool was dropped without being closed
            return
        try:
            call()
        except StorageError as error:
            if not stopped.is_set():
                logger.warning("maintenance failed, next try in %s: %s", interval, error)
        except Exception:
            # The thread must not end: nobody would notice that the store is not maintained.
            logger.exception("maintenance failed, next try in %s", interval)
        del call
        stopped.wait(interval.total_seconds())
