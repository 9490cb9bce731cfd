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
import weakref
from collections.abc import Callable
from multiprocessing.util import Finalize, register_after_fork
from typing import Any, ClassVar, Final, Protocol

from observatory_storage.errors import BatchError, StorageError
from observatory_storage.writers.stats import BufferStats, FlushResult

__all__ = ["before_closing", "buffered_rows", "follow_host", "forget", "register"]

_log = logging.getLogger(__name__)


class Buffering(Protocol):
    """The methods of a buffered writer that this module calls."""

    signal: ClassVar[str]

    @property
    def source(self) -> object: ...
    def close(self) -> FlushResult: ...
    def buffer_stats(self) -> BufferStats: ...
    def release_parent_files(self) -> None: ...


_writers: Final[weakref.WeakSet[Buffering]] = weakref.WeakSet()
_before_closing: Final[list[Callable[[], None]]] = []


def register(writer: Buffering) -> None:
    """Close the writer when this process ends, or a child that it forks."""
    _writers.add(writer)
    follow_host()


def forget(writer: Buffering) -> None:
    """Do not close the writer again when this process ends."""
    _writers.discard(writer)


def before_closing(call: Callable[[], None]) -> None:
    """Call a function before the writers are closed, to give them what others still hold."""
    if call not in _before_closing:
        _before_closing.append(call)


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
        from celery.signals import worker_process_shutdown

        worker_process_shutdown.connect(_close_all, weak=False, dispatch_uid=__name__)
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


def _close_all(**_: object) -> None:
    for call in _before_closing:
        try:
            call()
        except Exception:  # noqa: BLE001 - code of others, which must not keep writers from closing
            _log.exception("not everything was given to the writers")
    for writer in list(_writers):
        _writers.discard(writer)  # several hooks may call this
        try:
            writer.close()
        except BatchError as error:
            _log.error("the database refused rows: %s", error)
        except StorageError as error:
            left = writer.buffer_stats().buffered
            _log.error("%d rows were still buffered at exit and are lost: %s", left, error)


def _release_parent_files() -> None:
    # At the fork, even if the child uses no writer: a file stays locked while a copy of its
    # descriptor is open.
    for writer in list(_writers):
        writer.release_parent_files()


def _close_with_process(_: object = None) -> None:
    Finalize(None, _close_all, exitpriority=0)


atexit.register(_close_all)
# Processes of multiprocessing and concurrent.futures end without calling `atexit`.
_close_with_process()
register_after_fork(_writers, _close_with_process)
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_release_parent_files)
