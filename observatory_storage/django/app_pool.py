"""The pool and the writers of the project. They connect when they are first used.

There is one of each in a process. When tests replace the database or override a setting, the next
use makes new ones.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from observatory_storage.config import StorageConfig
from observatory_storage.django.app_settings import (
    app_settings,
    fingerprint,
    is_testing,
    storage_config,
)
from observatory_storage.errors import StorageError
from observatory_storage.pool import StoragePool
from observatory_storage.processes import PerProcess
from observatory_storage.recording.shared_writer import name_service
from observatory_storage.unit_of_work import UnitOfWork
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)

__all__ = [
    "close_pool",
    "flush_writers",
    "get_log_writer",
    "get_metric_writer",
    "get_pool",
    "get_trace_writer",
    "unit_of_work",
]

logger = logging.getLogger(__name__)

_Writer = TypeVar("_Writer", TraceWriter, MetricWriter, LogWriter)
_CLOSE_SECS: Final = 5.0


@dataclass(slots=True)
class _Opened:
    """The pool and the writers of one configuration."""

    fingerprint: tuple[object, ...]
    config: StorageConfig
    writer_config: WriterConfig
    for_tests: bool
    pool: StoragePool = field(init=False)
    writers: dict[type, TraceWriter | MetricWriter | LogWriter] = field(default_factory=dict)

    def is_as(self, other: _Opened) -> bool:
        """Whether a setting that changed is none of these."""
        mine, theirs = ((each.config, each.writer_config, each.for_tests) for each in (self, other))
        return mine == theirs

    def open(self) -> None:
        self.pool = (_pool_for_tests if self.for_tests else _pool)(self.config)

    def close(self) -> None:
        for writer in self.writers.values():
            try:
                writer.close(_CLOSE_SECS)
            except StorageError as error:
                logger.warning("rows were not written: %s", error)
        self.pool.close()


_opened: Final[list[_Opened]] = []
_lock: Final = PerProcess(threading.Lock)


def get_pool() -> StoragePool:
    """The pool of the project, with the settings ``OBSERVATORY_*`` and the database they name.

    Raises:
        ConfigError: a setting is invalid, or the database is not PostgreSQL.
    """
    return _current().pool


def get_trace_writer() -> TraceWriter:
    """The project's writer of traces. It drops spans rather than let a request wait for room.

    Raises:
        ConfigError: a setting is invalid, or the database is not PostgreSQL.
    """
    return _writer(TraceWriter)


def get_metric_writer() -> MetricWriter:
    """The project's writer of metrics; see `get_trace_writer`."""
    return _writer(MetricWriter)


def get_log_writer() -> LogWriter:
    """The project's writer of log records; see `get_trace_writer`."""
    return _writer(LogWriter)


def unit_of_work(*, read_only: bool = False, after: FlushResult | str | None = None) -> UnitOfWork:
    """A unit of work of the project's pool, to use as a context manager.

    Example::

        with unit_of_work() as uow:
            newest = uow.traces.list(limit=20)

    Args:
        read_only: whether it only reads, from the server of ``OBSERVATORY_DATABASE_READ_URL`` if
            that is set.
        after: what that server must have replayed, see `StoragePool.unit_of_work`.

    Raises:
        ConfigError: a setting is invalid, or the database is not PostgreSQL.
    """
    return get_pool().unit_of_work(read_only=read_only, after=after)


def flush_writers() -> None:
    """Commit what the project's writers have buffered.

    Raises:
        StorageError: it could not be written. It stays buffered.
    """
    for writer in tuple(_opened[0].writers.values()) if _opened else ():
        writer.flush()


def close_pool() -> None:
    """Write what is buffered, and close the project's pool. The next use opens another."""
    with _lock.get():
        former = tuple(_opened)
        _opened.clear()
    for each in former:
        each.close()


def _current() -> _Opened:
    now = fingerprint()
    if _opened and _opened[0].fingerprint == now:
        return _opened[0]
    made = _Opened(now, storage_config(), app_settings().writers, is_testing())
    with _lock.get():
        if _opened and _opened[0].is_as(made):
            _opened[0].fingerprint = now
            return _opened[0]
    # Not under the lock: what this logs may come here again, by way of `DjangoStorageHandler`.
    made.open()
    with _lock.get():
        former = tuple(_opened)
        if _opened and _opened[0].is_as(made):  # another thread was first
            former = (made,)
        else:
            _opened[:] = [made]
        current = _opened[0]
    for each in former:
        each.close()
    return current


def _pool(config: StorageConfig) -> StoragePool:
    return StoragePool(config, connect=False)


def _pool_for_tests(config: StorageConfig) -> StoragePool:
    """A pool that keeps no connection open: Django could not drop the database of the tests."""
    engine = sa.create_engine(
        config.postgres.url(),
        poolclass=NullPool,
        connect_args={**config.postgres.connect_args(), "prepare_threshold": None},
        hide_parameters=True,
    )
    return StoragePool.from_engine(engine, config)


def _writer(kind: type[_Writer]) -> _Writer:
    current = _current()
    writer = current.writers.get(kind)
    if writer is None:
        made = kind(current.pool, current.writer_config)  # not under the lock either
        if isinstance(made, TraceWriter):
            name_service(made, app_settings().service_name)
        with _lock.get():
            writer = current.writers.setdefault(kind, made)  # another thread may have been first
    return cast(_Writer, writer)
