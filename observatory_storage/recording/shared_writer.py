"""The writer that all observed calls of a pool share in a process."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Final, TypeAlias

from observatory_storage.errors import PoolError, ValidationError
from observatory_storage.pool import StoragePool
from observatory_storage.processes import process_lock
from observatory_storage.recording.loss_report import LossReport
from observatory_storage.shared_pool import shared_pool
from observatory_storage.writers import TraceWriter, WriterConfig

__all__ = ["Destination", "losses", "repairs", "target_of", "writer_of"]

Target: TypeAlias = StoragePool | TraceWriter
Destination: TypeAlias = Target | Callable[[], Target] | None

# Not "drop": only an error tells that a span was lost.
_CONFIG: Final = WriterConfig(flush_interval_secs=2.0, on_full="raise")
# By the id of the pool, which keeps its writer alive.
_writers: Final[weakref.WeakValueDictionary[int, TraceWriter]] = weakref.WeakValueDictionary()
_log: Final = logging.getLogger("observatory_storage.recording")
losses: Final = LossReport("span", _log.warning)
repairs: Final = LossReport("value of a span", _log.warning)


def target_of(pool: object) -> Callable[[], Target]:
    """A function that returns the pool or writer to record into.

    Raises:
        ValidationError: the argument is none of those that `observe_llm` takes.
    """
    if pool is None:
        return shared_pool
    if isinstance(pool, (StoragePool, TraceWriter)):
        return lambda: pool
    if callable(pool):
        return pool
    # The value is not shown: it may be a URL with a password.
    rule = "must be a StoragePool, a TraceWriter, a function that returns one, or None"
    raise ValidationError("pool", type(pool), rule)


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
    writer = _writers.get(id(target))
    if writer is None or writer.source is not target:
        with process_lock():
            writer = _writers.get(id(target))
            if writer is None or writer.source is not target:
                if target.closed:
                    raise PoolError("the pool is closed", retryable=False)
                writer = _writers[id(target)] = TraceWriter(target, _CONFIG)
                target.before_close(writer.close)
    return writer
