"""Flushes buffered rows when a process ends, and leaves them to the parent when it forks.

A forked child finds by itself that a writer's buffer is its parent's, whether or not Python saw the
fork (see `processes`). How a process ends depends on its host: the interpreter runs `atexit`, while
multiprocessing, Celery's prefork pool and uWSGI have hooks of their own.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.util import Finalize, register_after_fork
from typing import Any, ClassVar, Final, Protocol

from observatory_storage.errors import BatchError, StorageError
from observatory_storage.writers.stats import BufferStats, FlushResult

__all__ = [
    "add_export",
    "buffered_rows",
    "flush_all",
    "follow_host",
    "forget",
    "register",
    "secs_left_at_exit",
]

_log = logging.getLogger(__name__)

_WORKER_TIMEOUT_SECS: Final = 30.0
_EXIT_SECS: Final = 30.0


class Buffering(Protocol):
    """The methods of a buffered writer that this module calls."""

    signal: ClassVar[str]

    @property
    def source(self) -> object: ...
    def flush(self, timeout: float | None = None) -> FlushResult: ...
    def close(self, timeout: float | None = ...) -> FlushResult: ...
    def buffer_stats(self) -> BufferStats: ...
    def release_parent_files(self) -> None: ...


_writers: Final[weakref.WeakSet[Buffering]] = weakref.WeakSet()
_exports: Final[list[Callable[[float | None], None]]] = []
# When the processes with these ids shall have ended, on the monotonic clock.
_exit_deadlines: Final[dict[int, float]] = {}


def register(writer: Buffering) -> None:
    """Close the writer when this process ends, or a child that it forks."""
    _writers.add(writer)
    follow_host()


def forget(writer: Buffering) -> None:
    """Do not close the writer again when this process ends."""
    _writers.discard(writer)


def add_export(export: Callable[[float | None], None]) -> None:
    """Call a function before writers are flushed or closed, which exports to them.

    Args:
        export: has others, such as processors of OpenTelemetry, export what they hold. It takes the
            seconds that it may take; None for as long as it takes.
    """
    if export not in _exports:
        _exports.append(export)


def flush_all(timeout: float | None) -> None:
    """Flush each writer of this process. Errors are logged; rows that may yet be written stay.

    Args:
        timeout: the seconds that this may take; None to wait as long as the retries take.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    _export(timeout)
    for writer, share in _shares(deadline):
        try:
            writer.flush(share)
        except BatchError as error:
            _log.error("the database refused rows: %s", error)
        except StorageError as error:
            left = writer.buffer_stats().buffered
            _log.warning("%d rows could not be written yet: %s", left, error)


def secs_left_at_exit() -> float:
    """The seconds that the hooks at the end of this process may still take together.

    They begin with the first call, and anew if the process has lived on.
    """
    now, pid = time.monotonic(), os.getpid()
    if now >= _exit_deadlines.get(pid, now):
        _exit_deadlines[pid] = now + _EXIT_SECS
    return _exit_deadlines[pid] - now


def _shares(deadline: float | None) -> Iterator[tuple[Buffering, float | None]]:
    """The writers, and the seconds that each may take.

    Those with rows come first and share the time evenly. What one does not need is for the others.
    """
    writers = sorted(_known_writers(), key=lambda writer: not writer.buffer_stats().buffered)
    with_rows = sum(1 for writer in writers if writer.buffer_stats().buffered)
    for index, writer in enumerate(writers):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        yield writer, None if left is None else left / max(1, with_rows - index)


def buffered_rows(source: object) -> dict[str, int]:
    """How many rows the writers of a pool have buffered in this process, by signal."""
    rows: dict[str, int] = {}
    for writer in _known_writers():
        if writer.source is source:
            rows[writer.signal] = rows.get(writer.signal, 0) + writer.buffer_stats().buffered
    return rows


def _known_writers() -> list[Buffering]:
    while True:
        try:
            return list(_writers)
        except RuntimeError:  # another thread has created a writer meanwhile
            continue


def follow_host() -> None:
    """Have the host of this process close the writers when it ends the process.

    A host that is not imported yet is skipped. Call it again in each child, because the host may
    have been imported after the writer was created.
    """
    if "celery" in sys.modules:
        # Celery's children end by `os._exit`: no other hook of theirs or of Python's is called.
        from celery.signals import worker_process_shutdown, worker_shutdown

        worker_process_shutdown.connect(_close_all, weak=False, dispatch_uid=__name__)
        # SIGHUP has the worker replace its own process, before the interpreter calls our `atexit`.
        worker_shutdown.connect(_flush_in_worker, weak=False, dispatch_uid=__name__)
    # uWSGI provides this module, and calls its `atexit` when it ends the worker.
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is not None and getattr(uwsgi, "atexit", None) is not _close_in_uwsgi:
        _before_ours.append(getattr(uwsgi, "atexit", None))
        uwsgi.atexit = _close_in_uwsgi


# The application's own `uwsgi.atexit`.
_before_ours: Final[list[Any]] = []


def _close_in_uwsgi() -> None:
    _close_all()
    while _before_ours:
        if callable(application_s := _before_ours.pop()):
            application_s()


def _export(timeout: float | None) -> None:
    """Have others export, in half of the time, since their exporters may hang."""
    share = None if timeout is None else timeout / 2 / max(1, len(_exports))
    for export in _exports:
        try:
            export(share)
        except Exception:  # noqa: BLE001 - code of others, which must not keep writers from closing
            _log.exception("not everything was exported to the writers")


def _flush_in_worker(**_: object) -> None:
    flush_all(_WORKER_TIMEOUT_SECS)


def _close_all(**_: object) -> None:
    left = secs_left_at_exit()
    deadline = time.monotonic() + left
    _export(left)
    for writer, share in _shares(deadline):
        _writers.discard(writer)  # several hooks may call this
        try:
            writer.close(share)
        except BatchError as error:
            _log.error("the database refused rows: %s", error)
        except StorageError as error:
            left = writer.buffer_stats().buffered
            _log.error("%d rows were still buffered at exit and are lost: %s", left, error)


def _release_parent_files() -> None:
    # At the fork, even if the child uses no writer: a file stays locked while a copy of its
    # descriptor is open.
    for writer in _known_writers():
        writer.release_parent_files()


def _close_with_process(_: object = None) -> None:
    Finalize(None, _close_all, exitpriority=0)


atexit.register(_close_all)
# Processes of multiprocessing and concurrent.futures end without calling `atexit`.
_close_with_process()
register_after_fork(_writers, _close_with_process)
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_release_parent_files)
