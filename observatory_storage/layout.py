"""How the tables are laid out: which are partitioned, where each partition begins and ends.

Partitions are days near today, months further off, years beyond that, and two catch-alls for the
far past and future: no row is refused for its time, and absurd times do not make thousands of
partitions. Days nest in months and months in years, so a coarse range that would overlap a
partition that is there already gives way to a finer one.
"""

from __future__ import annotations

import re
import threading
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, text
from sqlalchemy.pool import Pool, QueuePool
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from observatory_storage.errors import Conflict, StorageError, sqlstate_of, translated
from observatory_storage.processes import PerProcess
from observatory_storage.tables import TABLES

__all__ = ["PARTITIONED", "Partitions", "Range", "advisory_key", "is_partition"]

# Partitioned table -> the column that its ranges are over.
PARTITIONED: Final = {
    table.name: table.partition_column for table in TABLES.values() if table.partition_column
}

_DAYS_BACK: Final = timedelta(days=90)
_DAYS_AHEAD: Final = timedelta(days=35)
_MONTHS_BACK: Final = timedelta(days=5 * 366)
_MONTHS_AHEAD: Final = timedelta(days=2 * 366)
_MIN: Final = datetime.min.replace(tzinfo=UTC)
_MAX: Final = datetime.max.replace(tzinfo=UTC)
_FIRST_YEAR: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST_YEAR: Final = datetime(2100, 1, 1, tzinfo=UTC)
_LOCK_TIMEOUT: Final = "2s"
_NO_PRIVILEGE: Final = "42501"
_ATTEMPTS: Final = 8
_NAME = re.compile(rf"({'|'.join(PARTITIONED)})_(p\d{{4}}(\d\d){{0,2}}|past|future)(_\d+)?")
_BOUND = re.compile(r"FROM \((MINVALUE|'[^']+')\) TO \((MAXVALUE|'[^']+')\)")


class Range(NamedTuple):
    """A half-open range of time [lower, upper); the catch-alls reach to the ends of datetime."""

    lower: datetime
    upper: datetime
    suffix: str = ""

    def holds(self, moment: datetime) -> bool:
        return self.lower <= moment < self.upper or moment == self.upper == _MAX


def is_partition(table_name: str) -> bool:
    """Whether a table of this name is a partition that this module made."""
    return _NAME.fullmatch(table_name) is not None


def advisory_key(purpose: str, schema: str) -> int:
    """The key of the advisory lock that serialises one purpose in one schema of a database."""
    return zlib.crc32(f"observatory_storage:{purpose}:{schema}".encode())


def candidates(moment: datetime, now: datetime) -> Iterator[Range]:
    """The ranges that may hold the moment, the preferred one first, each within the one before."""
    moment = moment.astimezone(UTC)
    if moment < _FIRST_YEAR:
        yield Range(_MIN, _FIRST_YEAR, "past")
        return
    if moment >= _LAST_YEAR:
        yield Range(_LAST_YEAR, _MAX, "future")
        return
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    year = month.replace(month=1)
    if not now - _MONTHS_BACK <= moment <= now + _MONTHS_AHEAD:
        yield Range(year, year.replace(year=year.year + 1), f"p{year:%Y}")
    if not now - _DAYS_BACK <= moment <= now + _DAYS_AHEAD:
        following = (month + timedelta(days=32)).replace(day=1)
        yield Range(month, following, f"p{month:%Y%m}")
    yield Range(day, day + timedelta(days=1), f"p{day:%Y%m%d}")


class Partitions:
    """Makes the partitions that rows need, and remembers which are there.

    Thread-safe. A partition is made in a short transaction of its own, under an advisory lock, by
    CREATE TABLE (LIKE …) and ATTACH, which does not wait behind open writers.
    """

    def __init__(self, engine: Engine, schema: str) -> None:
        self._engine = engine
        self._schema = schema
        self._known: dict[str, list[Range]] = {}
        self._lock = PerProcess(threading.Lock)

    def ensure(self, table_name: str, moments: Iterable[datetime]) -> None:
        """Make sure that each moment has a partition of the table.

        Raises:
            StorageError: the server could not be reached or refused.
        """
        missing = self._missing(table_name, moments)
        if not missing:
            return
        with self._lock.get():
            if missing := self._missing(table_name, missing):
                self._make(table_name, missing)

    def ensure_within(
        self, connection: Connection, table_name: str, moments: Iterable[datetime]
    ) -> None:
        """As `ensure`, for a caller that holds a connection of the pool.

        Where the pool has no other connection, waiting for one would never end. So the partition is
        made in the open transaction, and others see it once that commits.

        Raises:
            StorageError: the server could not be reached or refused.
        """
        missing = self._missing(table_name, moments)
        if not missing:
            return
        if not is_of_one(self._engine.pool):
            self.ensure(table_name, missing)
            return
        with translated(), connection.begin_nested():
            settings = connection.execute(_SETTINGS).one()
            self._make_in(connection, table_name, missing)
            # They were changed until the end of the caller's transaction.
            connection.execute(_RESTORE, dict(zip(("a", "b", "c"), settings, strict=True)))

    def hold(self, table_name: str, moments: Sequence[datetime]) -> bool:
        """Whether each of the moments has a partition of the table that is known of."""
        first = _range_of(self._known.get(table_name, []), min(moments))
        if first is None:
            return False
        # Rows that are written together are mostly of one day.
        return max(moments) < first.upper or not self._missing(table_name, moments)

    def forget(self) -> None:
        """Ask the catalog again before the next write: partitions may have been dropped."""
        self._known = {}

    def _missing(self, table_name: str, moments: Iterable[datetime]) -> list[datetime]:
        known = self._known.get(table_name, [])
        missing = []
        last = Range(_MAX, _MIN)
        for moment in moments:
            # Neighbours in a batch mostly share a partition: two comparisons a row.
            if not last.lower <= moment < last.upper:
                found = _range_of(known, moment)
                if found is None:
                    missing.append(moment)
                else:
                    last = found
        return missing

    def _make(self, table_name: str, moments: list[datetime]) -> None:
        # These attempts are for waits for locks: when the server is away, the writer retries.
        attempts = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            retry=retry_if_exception(lambda e: isinstance(e, Conflict) and e.retryable),
            reraise=True,
        )

        def make() -> list[Range]:
            with translated(), self._engine.begin() as connection:
                return self._make_in(connection, table_name, moments)

        try:
            known = attempts(make)
        except StorageError as error:
            if error.__cause__ is None or sqlstate_of(error.__cause__) != _NO_PRIVILEGE:
                raise
            raise StorageError(
                f"{table_name} has no partition for {min(moments)}, and only the owner of the"
                f" tables may make one, ahead, by pool.partitions.ensure(table, moments): {error}"
            ) from error.__cause__
        self._known = {**self._known, table_name: known}

    def _make_in(
        self, connection: Connection, table_name: str, moments: list[datetime]
    ) -> list[Range]:
        lock(connection, "partitions", self._schema)
        known = existing(connection, self._schema, table_name)
        leaving = being_detached(connection, self._schema, table_name)
        now = datetime.now(UTC)
        for moment in sorted(moments):
            if any(ranged.holds(moment) for ranged in leaving):
                raise Conflict(
                    f"the partition of {table_name} for {moment} is being detached", retryable=True
                )
            if _range_of(known, moment) is None:
                wanted = next(
                    (
                        wanted
                        for wanted in candidates(moment, now)
                        if not any(
                            wanted.lower < r.upper and r.lower < wanted.upper
                            for r in (*known, *leaving)
                        )
                    ),
                    None,
                )
                if wanted is None:  # another program made partitions of other sizes
                    raise StorageError(
                        f"{table_name} has no partition for {moment}, nor room for one of a day"
                    )
                self._attach(connection, table_name, wanted)
                known = sorted([*known, wanted])
        return known

    def _attach(self, connection: Connection, table_name: str, wanted: Range) -> None:
        quote = connection.dialect.identifier_preparer.quote
        parent = f"{quote(self._schema)}.{quote(table_name)}"
        name = _free_name(connection, self._schema, f"{table_name}_{wanted.suffix}")
        child = f"{quote(self._schema)}.{quote(name)}"
        lower = "MINVALUE" if wanted.lower == _MIN else f"'{wanted.lower.isoformat()}'"
        upper = "MAXVALUE" if wanted.upper == _MAX else f"'{wanted.upper.isoformat()}'"
        connection.exec_driver_sql(f"CREATE TABLE {child} (LIKE {parent} INCLUDING ALL)")
        connection.exec_driver_sql(
            f"ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ({lower}) TO ({upper})"
        )


# What `lock` and `existing` set until the end of the transaction.
_SETTINGS: Final = text(
    "SELECT current_setting('lock_timeout'), current_setting('timezone'),"
    " current_setting('datestyle')"
)
_RESTORE: Final = text(
    "SELECT set_config('lock_timeout', :a, true), set_config('timezone', :b, true),"
    " set_config('datestyle', :c, true)"
)


def is_of_one(pool: Pool) -> bool:
    """Whether one connection is all that the pool may have.

    A pool of more takes another connection even when all are in use. The advisory lock is held
    until the transaction ends, and that transaction might wait for a connection that waits for the
    lock.
    """
    return isinstance(pool, QueuePool) and pool.size() == 1 and pool._max_overflow == 0


def lock(connection: Connection, purpose: str, schema: str) -> None:
    """Take the advisory lock of a purpose until the transaction ends, and bound later waits."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:key)"), {"key": advisory_key(purpose, schema)}
    )
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")


def existing(connection: Connection, schema: str, table_name: str) -> list[Range]:
    """The ranges of the partitions that the table has, in order."""
    return sorted(named(connection, schema, table_name).values())


def being_detached(connection: Connection, schema: str, table_name: str) -> list[Range]:
    """The ranges of partitions that are being detached concurrently.

    They take no rows any more, but PostgreSQL accepts no other partition of their range yet.
    """
    return sorted(named(connection, schema, table_name, leaving=True).values())


def named(
    connection: Connection, schema: str, table_name: str, *, leaving: bool = False
) -> dict[str, Range]:
    """The ranges of the partitions that the table has, by the partitions' names.

    Args:
        leaving: those that are being detached concurrently, instead of the others.
    """
    # Bounds are printed in the session's time zone and date style.
    connection.exec_driver_sql("SET LOCAL timezone = 'UTC'")
    connection.exec_driver_sql("SET LOCAL datestyle = 'ISO'")
    bounds = connection.execute(
        text(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i"
            " JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent"
            " JOIN pg_namespace n ON n.oid = p.relnamespace"
            " WHERE n.nspname = :schema AND p.relname = :table_name"
            " AND i.inhdetachpending = :leaving"
        ),
        {"schema": schema, "table_name": table_name, "leaving": leaving},
    )
    return {name: _parsed(bound) for name, bound in bounds}


def _free_name(connection: Connection, schema: str, name: str) -> str:
    """The name, or the name with a number if a table has it, such as a detached partition."""
    taken = set(
        connection.scalars(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = :schema AND starts_with(c.relname, :name)"
            ),
            {"schema": schema, "name": name},
        )
    )
    numbered = (f"{name}_{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def _parsed(bound: str) -> Range:
    match = _BOUND.search(bound)
    if match is None:
        raise StorageError(f"a partition's bound is not a range of time: {bound}")
    lower, upper = match.groups()
    return Range(
        _MIN if lower == "MINVALUE" else datetime.fromisoformat(lower.strip("'")),
        _MAX if upper == "MAXVALUE" else datetime.fromisoformat(upper.strip("'")),
    )


def _range_of(ranges: list[Range], moment: datetime) -> Range | None:
    index = bisect_right(ranges, moment, key=lambda r: r.lower) - 1
    return ranges[index] if index >= 0 and ranges[index].holds(moment) else None
