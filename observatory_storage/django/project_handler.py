"""`DjangoStorageHandler`: stores the records of `logging` in the store of the project."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from django.apps import apps

from observatory_storage import migrate
from observatory_storage.django.app_pool import get_log_writer, get_pool
from observatory_storage.django.app_settings import app_settings, fingerprint, is_testing
from observatory_storage.django.database_alias import (
    is_postgresql,
    is_test_database,
    settings_of_alias,
)
from observatory_storage.engine import single_attempt
from observatory_storage.errors import StorageError
from observatory_storage.processes import PerProcess
from observatory_storage.recording.log_sink import LogSink
from observatory_storage.recording.storage_handler import StorageHandler
from observatory_storage.writers import LogWriter, WriterConfig

__all__ = ["DjangoStorageHandler"]

_RETRY_SECS: Final = 30.0
_MOST_HELD: Final = 1000
_DEFAULTS: Final = WriterConfig()


class DjangoStorageHandler(StorageHandler):
    """A `StorageHandler` for ``LOGGING``, which stores in the database of the project.

    It buffers by way of `get_log_writer`, so ``OBSERVATORY_WRITERS`` says how. Nothing is read or
    opened when the handler is created, because Django configures logging before its apps. Records
    that arrive earlier than these are ready are held, 1000 at most. Until the store is migrated,
    records stay in the buffer.

    While tests run, records are committed at once, to the store of the test's database. Records
    before that store exists, and those of tests on another database than PostgreSQL, are not
    stored.

    Example::

        LOGGING = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "console": {"class": "logging.StreamHandler"},
                "storage": {"class": "observatory_storage.django.DjangoStorageHandler"},
            },
            "root": {"level": "INFO", "handlers": ["console", "storage"]},
        }

    Args:
        service_name: the service of all records; ``OBSERVATORY_SERVICE_NAME`` if it is None.
        level: the least level that is stored, as a number or name.
        extra: the fields of ``extra=`` that become attributes: True for all, False for none, or
            their names.
        resource_attributes: attributes of the resource.
        flush_timeout_secs: the seconds that `flush` and `close` wait at most.

    Raises:
        ValidationError: an argument is not valid.
    """

    def __init__(
        self,
        *,
        service_name: str | None = None,
        level: int | str = logging.NOTSET,
        extra: bool | Collection[str] = True,
        resource_attributes: Mapping[str, Any] | None = None,
        flush_timeout_secs: float = 10.0,
    ) -> None:
        super().__init__(level=level, extra=extra)
        self._sink = _ProjectSink(service_name, resource_attributes, flush_timeout_secs)


class _ProjectSink(LogSink):
    """Passes rows to the log writer that the project has at the time."""

    def __init__(
        self,
        service_name: str | None,
        resource_attributes: Mapping[str, Any] | None,
        flush_timeout_secs: float,
    ) -> None:
        super().__init__(
            None,
            service_name,
            resource_attributes,
            # Not used: `OBSERVATORY_WRITERS` has them.
            batch_size=_DEFAULTS.batch_size,
            flush_interval_secs=_DEFAULTS.flush_interval_secs or 0.0,
            max_buffered=_DEFAULTS.max_buffered,
            spool_dir=None,
            redact=None,
            flush_timeout_secs=flush_timeout_secs,
        )
        # A forked child has none of its parent's, which stores them itself.
        self._held = PerProcess(lambda: deque[Mapping[str, Any]](maxlen=_MOST_HELD))
        self._migrated: tuple[object, ...] | None = None

    def store(self, row: Mapping[str, Any]) -> None:
        """Buffer a row of `LogRecord`, or hold it until the apps are ready."""
        if self.is_busy:
            return
        self._held.get().append(row)
        # Settings may name functions of modules that cannot be imported earlier.
        if apps.ready:
            self._store_held()
            if is_testing():
                # Nobody tells that the database of the tests is about to be dropped.
                super().flush()

    def flush(self) -> None:
        """Wait until buffered records are committed, within the timeout. Never raises."""
        if apps.ready:
            self._store_held()
        super().flush()

    def close(self) -> None:
        """The same, and lose later records. The writer stays open, since it is the project's."""
        if "django.test.utils" in sys.modules:
            # The process may have run tests, and nobody has logged since the apps were ready.
            self._held.get().clear()
        self.flush()
        self._closed = True

    def _store_held(self) -> None:
        held = self._held.get()
        while held:
            with suppress(IndexError):  # another thread took the last one
                super().store(self._with_service(held.popleft()))

    def _with_service(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if "service.name" in self._resource:
            return row
        self._busy.now = True  # what the first reading of the settings logs
        try:
            return {"service_name": app_settings().service_name, **row}
        except StorageError:
            return row  # `_open_writer` meets the error too, and counts the loss
        finally:
            self._busy.now = False

    def _open_writer(self) -> LogWriter | None:
        if self._closed:
            raise StorageError("the handler is closed")
        if time.monotonic() < self._not_before:
            self.losses.lost += 1  # told when it was tried
            return None
        try:
            if is_testing() and not self._has_store_of_tests():
                return None
            writer = get_log_writer()
        except StorageError:
            # Reading the settings takes too long to be tried for every record.
            self._not_before = time.monotonic() + _RETRY_SECS
            raise
        self._writers[id(writer.source)] = writer
        return writer

    def _has_store_of_tests(self) -> bool:
        """Whether Django has made the test's database, and the store in it is migrated."""
        _, alias, *address = fingerprint()
        if self._migrated == (alias, *address):
            return True
        entry = settings_of_alias(str(alias)) if alias is not None else None
        if entry is None or not is_postgresql(entry) or not is_test_database(entry):
            return False
        pool = get_pool()
        with suppress(StorageError), single_attempt():
            if not migrate.pending(pool.engine, pool.schema):
                self._migrated = (alias, *address)
        return self._migrated == (alias, *address)
