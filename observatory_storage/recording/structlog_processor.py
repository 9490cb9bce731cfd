"""`StructlogProcessor`: stores the events of structlog."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from observatory_storage.recording.event_dict import row_of_event
from observatory_storage.recording.log_severity import severity_number
from observatory_storage.recording.log_sink import LogSink
from observatory_storage.recording.span_context import active_span, add_span, named_span
from observatory_storage.writers import WriterConfig

if TYPE_CHECKING:
    from observatory_storage.recording.log_sink import PoolSource
    from observatory_storage.writers.config import Redact

__all__ = ["StructlogProcessor"]

# The methods of structlog's loggers, and the levels of `logging` that they have.
_LEVELS: Final = {
    "notset": 0,
    "debug": 10,
    "info": 20,
    "msg": 20,
    "warning": 30,
    "warn": 30,
    "error": 40,
    "err": 40,
    "exception": 40,
    "critical": 50,
    "fatal": 50,
}


class StructlogProcessor:
    """A processor of structlog that stores each event, and passes it on unchanged.

    Put it after the processors that add what you want stored, and before the renderer. It has the
    options of `StorageHandler`, and treats the database in the same way.

    Example::

        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(utc=True),
                StructlogProcessor(pool, service_name="shop"),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ]
        )

    The event becomes the body, and other keys become attributes. The level, time, logger, call site
    and exception are read as structlog's own processors write them. To store events of structlog
    that go through `logging`, use a `StorageHandler` there instead.

    Args:
        pool: the pool, or a function that returns it, which is called for each event. None is the
            pool that this process shares.
        service_name: the service of all events.
        resource_attributes: attributes of the resource.
        batch_size: the number of events at which a flush begins.
        flush_interval_secs: the seconds after which events are flushed in any case.
        max_buffered: the maximum number of buffered events.
        spool_dir: a directory for events that cannot be written; see `WriterConfig`.
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
        resource_attributes: Mapping[str, Any] | None = None,
        batch_size: int = 1000,
        flush_interval_secs: float = 2.0,
        max_buffered: int = 50_000,
        spool_dir: str | os.PathLike[str] | None = None,
        redact: Redact | None = None,
        flush_timeout_secs: float = 10.0,
    ) -> None:
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

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Buffer the event, and return the event dict unchanged. Never raises."""
        try:
            name = event_dict.get("logger") or getattr(logger, "name", None)
            if not self._sink.refuses(_text(name), None):
                self._sink.store(self._row(_text(name), method_name, event_dict))
        except Exception as error:  # noqa: BLE001 - the caller only wanted to log
            self._sink.losses.add(error)
        return event_dict

    @property
    def lost(self) -> int:
        """The number of events that could not be stored so far."""
        return self._sink.losses.lost

    def flush(self) -> None:
        """Wait until buffered events are committed, within the timeout. Never raises."""
        self._sink.flush()

    def close(self) -> None:
        """Flush within the timeout, and store no more. Never raises."""
        self._sink.close()

    def _row(
        self, logger: str | None, method_name: str, event: Mapping[str, Any]
    ) -> dict[str, Any]:
        level = event.get("level")
        level = level if isinstance(level, str) and level else method_name
        number = event.get("level_number")
        if isinstance(number, bool) or not isinstance(number, int):
            number = _LEVELS.get(level.lower(), _LEVELS.get(method_name, 0))
        thread = threading.current_thread()
        attributes: dict[str, Any] = {"thread.id": thread.ident, "thread.name": thread.name}
        row: dict[str, Any] = {
            "timestamp": datetime.now(UTC),
            "severity_number": severity_number(number),
            "severity_text": level.upper(),
            "scope_name": logger,
            "resource_attributes": self._sink.resource_of(os.getpid()),
            "attributes": attributes,
            **row_of_event(event, attributes),
        }
        add_span(row, named_span(attributes) or active_span())
        return row


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
