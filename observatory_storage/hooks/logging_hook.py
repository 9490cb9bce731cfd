from __future__ import annotations

import logging
import math
from typing import Any, Final

from observatory_storage.errors import ValidationError
from observatory_storage.operations import StoreOperation

__all__ = ["LoggingHook"]

_LOGGER: Final = "observatory_storage.operations"


class LoggingHook:
    """Logs operations: slow ones and errors as WARNING, all others as DEBUG.

    Each record has the facts as attributes, for formatters that write JSON: ``storage_operation``,
    ``storage_table``, ``storage_method``, ``storage_outcome``, ``storage_seconds``,
    ``storage_rows``, ``storage_bytes``, ``storage_retries``, ``storage_rejected`` and
    ``storage_slow``. A row's content is never logged.

    Example::

        pool.add_hook(LoggingHook(slow_secs=0.5))

    Args:
        slow_secs: operations that take at least so many seconds are slow.
        logger: the logger; the default is ``observatory_storage.operations``.

    Raises:
        ValidationError: the seconds are not a positive number.
    """

    def __init__(self, slow_secs: float = 1.0, logger: logging.Logger | None = None) -> None:
        if isinstance(slow_secs, bool) or not (slow_secs > 0 and math.isfinite(slow_secs)):
            raise ValidationError("slow_secs", slow_secs, "must be a positive number")
        self._slow_secs = slow_secs
        self._logger = logger or logging.getLogger(_LOGGER)

    def on_operation(self, operation: StoreOperation, /) -> None:
        """Log the operation."""
        is_slow = operation.seconds >= self._slow_secs
        level = logging.WARNING if is_slow or operation.failed else logging.DEBUG
        if not self._logger.isEnabledFor(level):
            return
        what = [operation.operation, operation.method, operation.table]
        self._logger.log(
            level,
            "%s%s: %s in %.3f s, %d rows, %d retries",
            "slow " if is_slow else "",
            " ".join(part for part in what if part),
            operation.outcome,
            operation.seconds,
            operation.rows,
            operation.retries,
            extra=_fields(operation, is_slow=is_slow),
        )


def _fields(operation: StoreOperation, *, is_slow: bool) -> dict[str, Any]:
    return {
        "storage_operation": operation.operation,
        "storage_table": operation.table,
        "storage_method": operation.method,
        "storage_outcome": operation.outcome,
        "storage_seconds": operation.seconds,
        "storage_rows": operation.rows,
        "storage_bytes": operation.bytes,
        "storage_retries": operation.retries,
        "storage_rejected": operation.rejected,
        "storage_slow": is_slow,
    }
