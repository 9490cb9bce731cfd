"""A month of log records in a partition that was made long before, and has filled up since."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from observatory_storage.lifecycle.run import Deadline
from observatory_storage.pool import StoragePool
from tests.lifecycle.pools import ranges
from tests.writers.helpers import (
    a_log,
)

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIN = datetime.min.replace(tzinfo=UTC)
MAX = datetime.max.replace(tzinfo=UTC)
DAYS = [f"p202601{day:02}" for day in range(1, 32)]


def make_month(pool: StoragePool, *tables: str) -> None:
    for table in tables:
        pool.partitions.cover(table, FIRST, FIRST, now=FIRST - 300 * DAY)


def logs(first: int, rows: int) -> list[dict[str, Any]]:
    """Log records of all hours of the month's first twenty days."""
    return [
        a_log(
            id=f"00000000-0000-0000-0000-{n:012x}",
            timestamp=FIRST + (n * 7 % 480) * HOUR,
            body=f"b{n}",
        )
        for n in range(first, first + rows)
    ]


def tables(pool: StoragePool) -> set[str]:
    """All tables that have something to do with partitions."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' AND relname ~ '_(p\\d|past|future)'"
    )
    with pool.engine.connect() as connection:
        return set(connection.scalars(sa.text(query)))


def rows_in_place(pool: StoragePool, table: str, column: str) -> bool:
    """Whether each row is in the partition whose range holds it."""
    held = ranges(pool, table)
    with pool.engine.connect() as connection:
        found = connection.execute(
            sa.text(
                f"SELECT tableoid::regclass::text, min({column}), max({column})"
                f" FROM {table} GROUP BY 1"
            )
        )
        return all(
            held[name.removeprefix(f"{table}_")].holds(moment)
            for name, *moments in found
            for moment in moments
        )


class Ending(Deadline):
    """A deadline that is over when it has been asked so often."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self._left = questions

    @property
    def is_over(self) -> bool:
        self._left -= 1
        return self._left < 0
