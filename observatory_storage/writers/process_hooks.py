"""Handles the buffered rows of a process that forks or exits."""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from multiprocessing.util import Finalize, register_after_fork
from typing import Final, Protocol

from observatory_storage.errors import BatchError, StorageError
from observatory_storage.writers.stats import BufferStats, FlushResult

__all__ = ["register"]

_log = logging.getLogger(__name__)


class Buffering(Protocol):
    """The methods of a buffered writer that this module calls."""

    def close(self) -> FlushResult: ...
    def buffer_stats(self) -> BufferStats: ...
    def begin_in_child(self) -> None: ...


_writers: Final[weakref.WeakSet[Buffering]] = weakref.WeakSet()


def register(writer: Buffering) -> None:
    """Close the writer at the interpreter's exit, and empty its buffer in a forked child."""
    _writers.add(writer)


def _close_at_exit() -> None:
    for writer in list(_writers):
        _writers.discard(writer)  # both ways below may lead here
        try:
            writer.close()
        except BatchError as error:
            _log.error("the database refused rows: %s", error)
        except StorageError as error:
            left = writer.buffer_stats().buffered
            _log.error("%d rows were still buffered at exit and are lost: %s", left, error)


def _begin_in_child() -> None:
    for writer in list(_writers):
        writer.begin_in_child()


def _close_with_process(_: object = None) -> None:
    Finalize(None, _close_at_exit, exitpriority=0)


atexit.register(_close_at_exit)
# Processes of multiprocessing and concurrent.futures end without what `atexit` was told.
_close_with_process()
register_after_fork(_writers, _close_with_process)
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_begin_in_child)
