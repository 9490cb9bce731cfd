"""What the three exporters have in common: a buffered writer, and the SDK's terms for its states.

An exporter never waits for the database, except when it is told to flush or to shut down. The SDK
drops a batch that an exporter fails to export, so batches go into the writer's buffer, which keeps
them while the database is away.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from opentelemetry import trace
from opentelemetry._logs import get_logger_provider

from observatory_storage.errors import BatchError, StorageError, ValidationError
from observatory_storage.last_resort import keep_warnings_visible
from observatory_storage.otel.export_context import export_context
from observatory_storage.otlp.resource_scope import Group, Item
from observatory_storage.pool import StoragePool
from observatory_storage.rows import Row
from observatory_storage.shared_pool import shared_pool
from observatory_storage.tables import TableDefinition
from observatory_storage.writers import Source, WriterConfig, process_hooks
from observatory_storage.writers.buffered_writer import BufferedWriter
from observatory_storage.writers.config import Redact

__all__ = ["Outlet", "StoringExporter"]

_W = TypeVar("_W", bound=BufferedWriter)
_T = TypeVar("_T")
_M = TypeVar("_M")
_log = logging.getLogger(__name__)
_DEFAULT: Final = WriterConfig(flush_interval_secs=1.0, max_buffered=50_000)
_CLOSE_SECS: Final = 30.0  # how long a pool that is being closed waits at most
_QUIET_SECS: Final = 60.0  # how long a kind of warning is not repeated


class Outlet(Generic[_W]):
    """The buffered writer of an exporter.

    Args:
        kind: the class of the writer.
        pool: the pool to write to; None is the shared one.
        config: the configuration of the writer. A full buffer drops rows, whatever it says.
        items: what is exported, in the plural, for messages.

    Raises:
        ConfigError: there is no pool, and a setting of the environment is missing or invalid.
        ValidationError: the pool or the configuration is none.
        StorageError: the directory of the spool cannot be used.
    """

    def __init__(
        self, kind: type[_W], pool: Source | None, config: WriterConfig | None, items: str
    ) -> None:
        if config is not None and not isinstance(config, WriterConfig):
            raise ValidationError("config", config, "must be WriterConfig")
        self._kind = kind
        self._source: Source = shared_pool() if pool is None else pool
        self._config = replace(config or _DEFAULT, on_full="drop")
        if self._config.redact is not None:
            self._config = replace(self._config, redact=self._guarded(self._config.redact))
        self._items = items
        self._is_shut_down = False
        self._told: dict[str, tuple[float, int]] = {}
        self._writer = self._open()
        if isinstance(self._source, StoragePool):
            store = weakref.WeakMethod(self._store_before_close)
            self._source.before_close(lambda: (found := store()) and found())
        keep_warnings_visible()
        process_hooks.add_export(_export_all)

    def _open(self) -> _W:
        return self._kind(self._source, self._config, suppression=export_context)

    @property
    def writer(self) -> _W:
        """The writer; a new one if a hook of the process has closed the former.

        The SDK may export its last batches after Python has told the writers that the process ends.
        """
        if self._writer.closed and not self._is_shut_down:
            self._writer = self._open()
        return self._writer

    @contextmanager
    def exporting(self) -> Iterator[bool]:
        """A context to export within; False if the exporter is shut down."""
        with export_context():
            if self._is_shut_down:
                self._warn("shut-down", f"{self._items} are ignored: the exporter is shut down")
            yield not self._is_shut_down

    def messages(self, items: Iterable[_T], convert: Callable[[_T], _M]) -> Iterator[tuple[_T, _M]]:
        """The items of the SDK with their messages. An item that cannot be read costs itself."""
        for item in items:
            try:
                yield item, convert(item)
            except Exception as error:  # noqa: BLE001 - whatever an instrumentation has put there
                self._refused(error, item)

    def mapped(self, group: Group, mapping: Callable[[Group], Iterable[_M]]) -> list[_M]:
        """What a mapping of OTLP makes of a group. A message that it fails for costs itself."""
        if group.error is not None:
            self._refused(group.error, None)
            return []
        try:
            return list(mapping(group))
        except Exception as error:  # noqa: BLE001 - types that the SDK does not check
            messages = list(group.items)
            if len(messages) > 1:
                alone = (group._replace(items=[message]) for message in messages)
                return [made for one in alone for made in self.mapped(one, mapping)]
            self._refused(error, messages[0])
            return []

    def rows(self, items: Iterable[Item]) -> Iterator[Any]:
        """The rows of mapped items. Tells which items, and which of their parts, have none."""
        for item in items:
            for error in item.dropped:
                self._refused(error, item.source)
            if item.error is not None:
                self._refused(item.error, item.source)
            else:
                yield item.row

    def mapped_rows(
        self, groups: Iterable[Group], mapping: Callable[[Group], Iterable[Item]]
    ) -> list[Any]:
        """The rows of all groups."""
        return [row for group in groups for row in self.rows(self.mapped(group, mapping))]

    def write(self, table: TableDefinition, rows: list[Any]) -> bool:
        """Buffer rows. False if some were dropped because the buffer is full."""
        try:
            dropped = self.writer.write_rows(table, rows)
        except BatchError as failure:
            for rejected in failure.rejected:
                self._refused(rejected.error, rejected.row)
            return True
        except StorageError as error:  # a hook of the process has just closed the writer
            self._warn("closed", f"{len(rows)} {self._items} are lost: {error}")
            return False
        if dropped:
            self._warn(
                "dropped",
                f"{dropped} {self._items} were dropped, because the buffer is full:"
                f" max_buffered={self._config.max_buffered} rows",
            )
        return not dropped

    def write_one(self, table: TableDefinition, row: dict[str, Any]) -> Row | None:
        """Buffer a row. Returns the prepared row, or None if it is not to be stored."""
        try:
            return self.writer.write_row(table, row)
        except StorageError as error:
            self._refused(error, row)
            return None

    def _guarded(self, redact: Redact) -> Redact:
        """The function that redacts rows. A row for which it fails is left out."""

        def guarded(row: dict[str, Any]) -> Mapping[str, Any] | None:
            try:
                return redact(row)
            except Exception as error:  # noqa: BLE001 - the application's own code
                self._refused(error, row)
                return None

        return guarded

    def _refused(self, error: Exception, item: Any) -> None:
        """Tell that an item, or a part of it, is not stored."""
        name = item.get("name") if isinstance(item, Mapping) else getattr(item, "name", None)
        of = "" if name is None else f" of {name!r}"
        reason = error if isinstance(error, StorageError) else f"{type(error).__name__}: {error}"
        self._warn("refused", f"{self._items}{of} cannot be stored: {reason}")

    def _warn(self, kind: str, message: str) -> None:
        """Log a warning, but only one of a kind each minute."""
        now = time.monotonic()
        last, left_out = self._told.get(kind, (-_QUIET_SECS, 0))
        if now - last < _QUIET_SECS:
            self._told[kind] = last, left_out + 1
            return
        self._told[kind] = now, 0
        _log.warning("%s%s", message, f" ({left_out} more of this kind before)" if left_out else "")

    def flush(self, timeout_millis: float) -> bool:
        """Write what is buffered, or spool it. Whether everything has left the buffer in time."""
        with export_context():
            try:
                self._writer.flush(timeout_millis / 1000)
            except BatchError:  # whose rows the writer has logged
                return True
            except StorageError as error:
                self._warn("flush", f"{self._items} stay buffered: {error}")
                return False
            return True

    def _store_before_close(self) -> None:
        """Store what processors and the writer hold, while the pool can."""
        if not self._is_shut_down:
            _export_all(_CLOSE_SECS)
            self.flush(_CLOSE_SECS * 1000)

    def shut_down(self, timeout_millis: float) -> None:
        """Write what is buffered, or spool it, and export no more. Does nothing the second time."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        with export_context():
            try:
                self._writer.close(timeout_millis / 1000)
            except BatchError:
                pass
            except StorageError as error:
                left = self._writer.buffer_stats().buffered
                _log.error(
                    "%d rows of %s could not be written at shutdown, and are lost when the process"
                    " ends: %s",
                    *(left, self._items, error),
                )
            process_hooks.forget(self._writer)


class StoringExporter(Generic[_W]):
    """The base of the exporters."""

    def __init__(
        self, kind: type[_W], pool: Source | None, config: WriterConfig | None, items: str
    ) -> None:
        self._outlet = Outlet(kind, pool, config, items)

    @property
    def writer(self) -> _W:
        """The writer of what is exported, for its statistics."""
        return self._outlet.writer

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Commit all that is buffered, or spool it while the database is away.

        Returns:
            Whether that was done within the time.
        """
        return self._outlet.flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Commit or spool all that is buffered, and ignore what is exported later.

        If some can be neither committed nor spooled within the time, an error in the log says how
        many. Calling this again has no effect.
        """
        self._outlet.shut_down(timeout_millis)


def _export_all(timeout: float | None) -> None:
    """Have processors of the SDK export what they hold, at the end of a process or a task.

    The SDK does it only where Python calls its exit handlers: not in processes of multiprocessing
    and of Celery's pool. Metrics are left out. A child has inherited those of its parent, and would
    export them once more.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    for provider in (trace.get_tracer_provider(), get_logger_provider()):
        flush = getattr(provider, "force_flush", None)
        if flush is None:
            continue
        if deadline is None:
            flush()
        else:
            _flush_by(deadline, provider, flush)


_flushing: Final[dict[tuple[int, int], threading.Thread]] = {}  # by process and provider


def _flush_by(deadline: float, provider: object, flush: Callable[[int], object]) -> None:
    """Wait for a provider's `force_flush` until the deadline, on the monotonic clock.

    The SDK passes the time on, but its batch processors wait for their exporters without a limit.
    """

    def left() -> float:
        return max(0.0, deadline - time.monotonic())

    def flush_provider() -> None:
        try:
            flush(int(left() * 1000))
        except Exception:  # noqa: BLE001 - code of others
            _log.exception("a provider of OpenTelemetry could not be flushed")

    key = os.getpid(), id(provider)
    former = _flushing.get(key)
    if former is not None:
        former.join(left())
        if former.is_alive():  # another one would only wait for it too
            return
    thread = threading.Thread(target=flush_provider, name="observatory-export", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending
        flush_provider()
        return
    _flushing[key] = thread
    thread.join(left())
