"""Flushing after each task, for what must be stored before the task is acknowledged."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Final

from observatory_storage.celery.argument_checks import check_application, is_positive
from observatory_storage.errors import ConfigError
from observatory_storage.writers import process_hooks

if TYPE_CHECKING:
    from celery import Celery, Task

__all__ = ["flush_after_task"]

_TIMEOUT_SECS: Final = 5.0


def flush_after_task(app: Celery, *, timeout_secs: float | None = _TIMEOUT_SECS) -> None:
    """Flush the writers of a worker's process at the end of each task of the application.

    Without this, rows are flushed every few seconds and when the process ends, so SIGKILL loses
    the last ones. With it and ``task_acks_late``, what a task has written is committed, or in the
    spool, before the task is acknowledged; a task that is killed earlier is sent again. It costs a
    transaction a task, which the worker waits for.

    It flushes after all other receivers of ``task_postrun`` that were connected when the task
    began, so that the span of the task has ended, whichever is set up first.

    A flush that fails is logged. The task does not fail, and the rows stay buffered.

    Args:
        app: the application.
        timeout_secs: the seconds that a task waits at most, while the database is slow or away, or
            another exporter of OpenTelemetry hangs; None waits as long as the retries take.

    Raises:
        ConfigError: an argument is not valid, or Celery is not installed.
    """
    check_application(app)
    if timeout_secs is not None and not is_positive(timeout_secs):
        raise ConfigError(f"timeout_secs: must be a number above 0 or None, not {timeout_secs!r}")
    if app not in _applications:  # once for each, however often this is called
        _applications.add(app)
        _LastReceiver(app, timeout_secs).connect()


_applications: Final[weakref.WeakSet[Celery]] = weakref.WeakSet()


class _LastReceiver:
    """Flushes when all other receivers of ``task_postrun`` have been called.

    Celery calls them in the order of their connection, and an instrumentation ends the span of the
    task in one. So this one connects itself again when a task begins and others came after it.
    """

    def __init__(self, app: Celery, timeout_secs: float | None) -> None:
        from celery import signals

        self._begins, self._ended = signals.task_prerun, signals.task_postrun
        self._app = app
        self._timeout_secs = timeout_secs
        self._lock = threading.Lock()
        self._connections = 0

    def connect(self) -> None:
        """Connect to the signals of the beginning and the end of tasks."""
        self._begins.connect(self._stay_last, weak=False, dispatch_uid=f"{__name__} {id(self)}")
        self._ended.connect(self._flush, weak=False, dispatch_uid=self._connection)

    @property
    def _connection(self) -> str:
        return f"{__name__} {id(self)} {self._connections}"

    def _stay_last(self, **_: object) -> None:
        with self._lock:
            # Those of other applications are no others: they would take turns in being the last.
            (last, _sender), _receiver = self._ended.receivers[-1]
            if isinstance(last, str) and last.startswith(__name__):
                return
            former = self._connection
            self._connections += 1
            # In this order, so that a task that ends meanwhile in another thread is flushed too.
            self._ended.connect(self._flush, weak=False, dispatch_uid=self._connection)
            self._ended.disconnect(dispatch_uid=former)

    def _flush(self, sender: Task, **_: object) -> None:
        if sender.app == self._app:
            process_hooks.flush_all(self._timeout_secs)
