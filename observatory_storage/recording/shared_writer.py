"""The writer that all observed calls of a pool share in a process."""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Final, TypeAlias

from observatory_storage.errors import PoolError, ValidationError
from observatory_storage.pool import StoragePool
from observatory_storage.processes import process_lock
from observatory_storage.recording.loss_report import LossReport
from observatory_storage.shared_pool import shared_pool
from observatory_storage.writers import TraceWriter, WriterConfig

__all__ = [
    "Destination",
    "losses",
    "name_service",
    "repairs",
    "run_unnested",
    "service_of",
    "target_of",
    "writer_of",
]

Target: TypeAlias = StoragePool | TraceWriter
Destination: TypeAlias = Target | Callable[[], Target] | None

# Not "drop": only an error tells that a span was lost.
_CONFIG: Final = WriterConfig(flush_interval_secs=2.0, on_full="raise")
# By the id of the pool, which keeps its writer alive.
_writers: Final[weakref.WeakValueDictionary[int, TraceWriter]] = weakref.WeakValueDictionary()
_services: Final[weakref.WeakKeyDictionary[TraceWriter, str]] = weakref.WeakKeyDictionary()
_log: Final = logging.getLogger("observatory_storage.recording")
losses: Final = LossReport("span", _log.warning)
repairs: Final = LossReport("span value", _log.warning)
_thread: Final = threading.local()


def run_unnested(action: Callable[[], object]) -> None:
    """Run an action that must not be nested: now, or after the one that this thread runs already.

    The garbage collector may end a stream, and so write its span, while this thread adds another
    span to a buffer.
    """
    waiting: list[Callable[[], object]] | None = getattr(_thread, "waiting", None)
    if waiting is not None:
        waiting.append(action)
        return
    _thread.waiting = [action]
    try:
        while _thread.waiting:
            _thread.waiting.pop(0)()
    finally:
        _thread.waiting = None


def target_of(pool: object, decorator: str) -> Callable[[], Target]:
    """A function that returns the pool or writer to record into.

    Args:
        pool: what the decorator was given.
        decorator: its name, for the error.

    Raises:
        ValidationError: the argument is none of those that `observe_llm` takes.
    """
    if pool is None:
        return shared_pool
    if isinstance(pool, (StoragePool, TraceWriter)):
        return lambda: pool
    if callable(pool):
        if _needs_arguments(pool):
            rule = "must be called without arguments; decorate with parentheses, "
            raise ValidationError("pool", pool, f"{rule}@{decorator}()")
        return pool
    # The value is not shown: it may be a URL with a password.
    rule = "must be a StoragePool, a TraceWriter, a function that returns one, or None"
    raise ValidationError("pool", type(pool), rule)


def _needs_arguments(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # some functions in C tell nothing of theirs
        pass
    return False


def writer_of(target: object) -> TraceWriter:
    """The writer itself, or the writer that a pool shares.

    Raises:
        ValidationError: it is neither a pool nor a writer.
        PoolError: the pool is closed.
    """
    if isinstance(target, TraceWriter):
        return target
    if not isinstance(target, StoragePool):
        raise ValidationError("pool", type(target), "must be a StoragePool or a TraceWriter")
    writer = _known_writer(target)
    if writer is None:
        if target.closed:
            raise PoolError("the pool is closed", retryable=False)
        made = TraceWriter(target, _CONFIG)
        with process_lock():
            writer = _known_writer(target)  # another thread may have been first
            if writer is None:
                writer = _writers[id(target)] = made
                target.before_close(made.close)
    return writer


def name_service(writer: TraceWriter, service_name: str) -> None:
    """Have calls and steps that are written by an application's writer belong to its service."""
    _services[writer] = service_name


def service_of(writer: TraceWriter) -> str | None:
    """The service of calls and steps that name none themselves."""
    return _services.get(writer)


def _known_writer(pool: StoragePool) -> TraceWriter | None:
    writer = _writers.get(id(pool))
    # Another pool may have got the id of one that is gone.
    return writer if writer is not None and writer.source is pool else None
