"""DDL that does not hold up readers and writers: it waits for its locks briefly, again and again.

Everyone who comes after a waiting DDL statement waits behind it. So it gives up soon, lets them
pass, and tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import sqlalchemy as sa
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from observatory_storage import layout
from observatory_storage.errors import Conflict, translated
from observatory_storage.storing.transaction import Source

__all__ = ["LOCK_TIMEOUT", "with_short_locks"]

LOCK_TIMEOUT: Final = "300ms"
_ATTEMPTS: Final = 40
_T = TypeVar("_T")


def with_short_locks(source: Source, change: Callable[[sa.Connection], _T]) -> _T:
    """Run the change in a transaction, and again while it waits for a lock or deadlocks.

    The transaction holds the advisory lock under which partitions are made, so the catalog's
    partitions do not change meanwhile.

    Raises:
        Conflict: a lock was not free in about a minute of attempts.
        StorageError: the server refused the change.
    """
    attempts = Retrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        retry=retry_if_exception(lambda error: isinstance(error, Conflict) and error.retryable),
        reraise=True,
    )

    def attempt() -> _T:
        with translated(), source.engine.begin() as connection:
            layout.lock(connection, "partitions", source.schema)
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            return change(connection)

    return attempts(attempt)
