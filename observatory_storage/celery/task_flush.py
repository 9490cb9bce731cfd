"""Flushing after each task, for what must be stored before the task is acknowledged."""

from __future__ import annotations

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

    A flush that fails is logged. The task does not fail, and the rows stay buffered.

    Args:
        app: the application.
        timeout_secs: the seconds that a task waits for each writer at most, while the database is
            slow or away; None waits as long as the retries take.

    Raises:
        ConfigError: an argument is not valid, or Celery is not installed.
    """
    check_application(app)
    if timeout_secs is not None and not is_positive(timeout_secs):
        raise ConfigError(f"timeout_secs: must be a number above 0 or None, not {timeout_secs!r}")
    from celery.signals import task_postrun

    def flush(sender: Task, **_: object) -> None:
        if sender.app == app:
            process_hooks.flush_all(timeout_secs)

    # Once for each application, however often this is called.
    task_postrun.connect(flush, weak=False, dispatch_uid=f"{__name__} {id(app)}")
