"""`StorageHandler`: stores the records of `logging`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from observatory_storage.errors import ValidationError
from observatory_storage.recording.event_dict import row_of_event
from observatory_storage.recording.exception_attributes import (
    error_text,
    exception_attributes,
    type_name,
)
from observatory_storage.recording.log_severity import severity_number
from observatory_storage.recording.log_sink import LogSink
from observatory_storage.recording.span_context import (
    active_span,
    add_span,
    named_span,
    span_of_ids,
)
from observatory_storage.writers import WriterConfig

if TYPE_CHECKING:
    from observatory_storage.recording.log_sink import PoolSource
    from observatory_storage.writers.config import Redact

__all__ = ["SpanIdsFilter", "StorageHandler"]

# What every record has, and what formatters and OpenTelemetry's instrumentation add to it.
_STANDARD: Final = frozenset(
    {
        *vars(logging.makeLogRecord({})),
        *("message", "asctime", "taskName"),
        *("otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName"),
    }
)
# An argument by its name in a message.
_NAMED: Final = re.compile(r"%\(([^)]*)\)")
# The fields that structlog adds to a record whose message is its event dict.
_OF_STRUCTLOG: Final = frozenset({"_logger", "_name"})


class StorageHandler(logging.Handler):
    """Stores records of `logging` as log records, in the background.

    Logging never waits for the database, and never fails because of it. While the database is away,
    records are buffered and stored later. When the buffer is full, new records are lost. Losses are
    counted, and reported to ``sys.stderr`` at most once a minute if `logging.raiseExceptions` is
    true. Records are flushed when the process ends. A forked child begins with an empty buffer.

    All arguments are plain values, so that `logging.config.dictConfig` can create the handler::

        {
            "version": 1,
            "handlers": {
                "storage": {"class": "observatory_storage.StorageHandler", "service_name": "shop"}
            },
            "root": {"level": "INFO", "handlers": ["storage"]},
        }

    Args:
        pool: the pool; or a function that returns it, such as ``ext://shop.storage.get_pool`` in
            a configuration, which is called for each record. None is the pool that this process
            shares, with the settings of the environment. It is created when the first record
            arrives.
        service_name: the service of all records.
        level: the least level that is stored, as a number or name.
        extra: the fields of ``extra=`` that become attributes: True for all, False for none, or
            their names.
        resource_attributes: attributes of the resource, such as
            ``{"deployment.environment.name": "production"}``.
        batch_size: the number of records at which a flush begins.
        flush_interval_secs: the seconds after which records are flushed in any case.
        max_buffered: the maximum number of buffered records.
        spool_dir: a directory on a local disk for records that cannot be written before the process
            ends; see `WriterConfig`.
        redact: called with each row before it is buffered; see `WriterConfig`.
        flush_timeout_secs: the seconds that `flush` and `close` wait at most.

    Raises:
        ValidationError: an argument is not valid.
    """

    def __init__(
        self,
        pool: PoolSource = None,
        *,
        service_name: str | None = None,
        level: int | str = logging.NOTSET,
        extra: bool | Collection[str] = True,
        resource_attributes: Mapping[str, Any] | None = None,
        batch_size: int = 1000,
        flush_interval_secs: float = 2.0,
        max_buffered: int = 50_000,
        spool_dir: str | os.PathLike[str] | None = None,
        redact: Redact | None = None,
        flush_timeout_secs: float = 10.0,
    ) -> None:
        self._takes_all = extra is True
        self._names = _checked_extra(extra)
        self._sink = LogSink(
            pool,
            service_name,
            resource_attributes,
            WriterConfig(
                batch_size=batch_size,
                flush_interval_secs=flush_interval_secs,
                max_buffered=max_buffered,
                spool_dir=spool_dir,
                redact=redact,
            ),
            flush_timeout_secs,
        )
        # Last: `logging` flushes all handlers that it knows at the end of the process, also those
        # of which an argument was refused.
        super().__init__(level)

    @property
    def lost(self) -> int:
        """The number of records that could not be stored so far."""
        return self._sink.losses.lost

    def handle(self, record: logging.LogRecord) -> bool:
        """Store the record if the filters let it pass.

        Unlike other handlers, this one needs no lock of its own, so that threads do not wait for
        each other, nor for `flush`.
        """
        # Since Python 3.12, a filter may return another record.
        passed: Any = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Buffer the record. Never raises, and never waits for the database."""
        try:
            if self._sink.refuses(record.name, record.threadName):
                return
            row = self._row(record)
        except Exception as error:  # noqa: BLE001 - the caller only wanted to log
            self._sink.losses.add(error)
            return
        self._sink.store(row)

    def flush(self) -> None:
        """Wait until buffered records are committed, within the timeout. Never raises."""
        self._sink.flush()

    def close(self) -> None:
        """Flush within the timeout, and store no more. Never raises."""
        self._sink.close()
        super().close()

    def _row(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = vars(record)
        attributes: dict[str, Any] = {
            "code.file.path": record.pathname,
            "code.line.number": record.lineno,
        }
        if record.funcName:
            attributes["code.function.name"] = record.funcName
        if record.thread is not None:
            attributes["thread.id"] = record.thread
        if record.threadName is not None:
            attributes["thread.name"] = record.threadName
        row: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "severity_number": severity_number(record.levelno or 0),
            "severity_text": record.levelname,
            "scope_name": record.name,
            "resource_attributes": self._sink.resource_of(record.process),
            "attributes": attributes,
        }
        is_structlog = fields.keys() >= _OF_STRUCTLOG
        if isinstance(record.msg, Mapping) and not record.args and self.formatter is None:
            if is_structlog:
                row |= row_of_event(record.msg, attributes)
            else:
                row["body_json"] = record.msg
        else:
            row["body"] = self._message(record, attributes)
        if record.exc_info and isinstance(record.exc_info[1], BaseException):
            attributes |= exception_attributes(record.exc_info[1], record.exc_info[2])
        elif record.exc_text:
            attributes["exception.stacktrace"] = record.exc_text
        if record.stack_info:
            attributes["code.stacktrace"] = record.stack_info
        for name, value in fields.items():
            if (
                name not in _STANDARD
                and (self._takes_all or name in self._names)
                and not (is_structlog and name in _OF_STRUCTLOG)
            ):
                attributes.setdefault(name, value)
        span = span_of_ids(fields.get("otelTraceID"), fields.get("otelSpanID"))
        add_span(row, span or named_span(attributes) or active_span())
        return row

    def _message(self, record: logging.LogRecord, attributes: dict[str, Any]) -> str:
        if self.formatter is not None:
            return self.format(record)
        if not record.args:
            return str(record.msg)
        template = str(record.msg)
        args = record.args
        attributes["message_template.text"] = template
        if isinstance(args, Mapping):
            # Not all: gunicorn passes the headers of each request, of which it shows a few.
            named = set(_NAMED.findall(template))
            attributes["message_template.args"] = {key: args[key] for key in named & args.keys()}
        else:
            attributes["message_template.args"] = list(args)
        try:
            return template % args
        except Exception as error:  # noqa: BLE001 - a mistake in the template, or an argument's code
            attributes["message_template.error"] = f"{type_name(error)}: {error_text(error)}"
            return template


class SpanIdsFilter(logging.Filter):
    """Notes in each record the trace and span that are active where it was logged.

    Add it to a `logging.handlers.QueueHandler` whose listener has a `StorageHandler`: the thread
    that handles the record does not know in which span it was logged. The record gets the fields
    ``otelTraceID`` and ``otelSpanID``, as from OpenTelemetry's instrumentation of logging, so other
    formatters can show them too. All records pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the ids; always true."""
        span = active_span()
        if span is not None:
            record.otelTraceID, record.otelSpanID = span.trace_id, span.span_id
        return True


def _checked_extra(extra: object) -> frozenset[str]:
    """The names of the fields that are stored, unless all are."""
    if isinstance(extra, bool):
        return frozenset()
    if isinstance(extra, Collection) and not isinstance(extra, str):
        names = frozenset(extra)
        if all(isinstance(name, str) for name in names):
            return names
    raise ValidationError("extra", extra, "must be true, false, or a list of names")
