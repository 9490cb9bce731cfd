"""Keeps warnings visible where the only handlers of `logging` store records in a database.

Without any handler, `logging` writes warnings to stderr (`logging.lastResort`). A handler that
stores records turns that off: then the report that nothing can be stored would go to the database.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

__all__ = ["LastResort", "keep_warnings_visible"]

_PACKAGE = "observatory_storage"
# The handlers of this package, and OpenTelemetry's, whose records an exporter may store.
_STORING = frozenset({_PACKAGE, "opentelemetry"})


class LastResort(logging.Handler):
    """Does what `logging.lastResort` does, also if there are handlers that store records.

    A record that reaches any other handler is left to that one. So who has configured logging sees
    nothing twice.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record to stderr, if nothing else shows it."""
        resort = logging.lastResort
        if resort is None or record.levelno < resort.level:
            return
        handlers = list(_handlers(record.name))
        if all(_stores(handler) for handler in handlers):
            first = next((one for one in handlers if isinstance(one, LastResort)), self)
            if first is self:  # another one may be at a logger above
                resort.handle(record)


def keep_warnings_visible() -> None:
    """Have the warnings of this package shown, whatever other handlers there are."""
    logger = logging.getLogger(_PACKAGE)
    if not any(isinstance(handler, LastResort) for handler in logger.handlers):
        logger.addHandler(LastResort())


def _handlers(name: str) -> Iterator[logging.Handler]:
    """The handlers that a record of a logger reaches, the nearest first."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _stores(handler: logging.Handler) -> bool:
    return any(kind.__module__.partition(".")[0] in _STORING for kind in type(handler).__mro__)
