"""How the tables are laid out: which are partitioned, and how they get the partitions they need.

`time_ranges` says where each partition begins and ends, `partition_catalog` has the statements.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.pool import Pool, QueuePool
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from observatory_storage.config import PartitionsConfig
from observatory_storage.distribution import is_sharded
from observatory_storage.errors import Conflict, StorageError, sqlstate_of, translated
from observatory_storage.partition_catalog import (
    advisory_key,
    attach,
    being_detached,
    create_like,
    existing,
    free_name,
    lock,
    named,
    partitions_of,
)
from observatory_storage.processes import PerProcess
from observatory_storage.tables import EVENTS, LOG_FRAMES, LOGS, PAYLOAD_FRAMES, SPANS, TABLES
from observatory_storage.time_ranges import (
    MAX,
    MIN,
    NAMES,
    Range,
    candidates,
    free_range,
    named_gap,
    range_of,
)

__all__ = [
    "PARTITIONED",
    "TWINS",
    "Partitions",
    "Range",
    "advisory_key",
    "being_detached",
    "candidates",
    "existing",
    "is_of_one",
    "is_partition",
    "lock",
    "named",
]

# Partitioned table -> the column that its ranges are over.
PARTITIONED: Final = {
    table.name: table.partition_column
    for table in (*TABLES.values(), PAYLOAD_FRAMES, LOG_FRAMES)
    if table.partition_column
}
_TOGETHER: Final = (
    (SPANS.name, EVENTS.name, PAYLOAD_FRAMES.name),
    (LOGS.name, LOG_FRAMES.name),
)
# Rows and their payloads have the same ranges, so that they are dropped together.
TWINS: Final = {
    name: tuple(other for other in names if other != name) for names in _TOGETHER for name in names
}

_NO_PRIVILEGE: Final = "42501"
_ATTEMPTS: Final = 8
# A transaction that makes partitions delays other makers, so it makes no more ahead than these.
_AT_ONCE: Final = 24
_NAME: Final = re.compile(rf"(?:{'|'.join(PARTITIONED)})_(?:{NAMES.pattern})")


def is_partition(table_name: str) -> bool:
    """Whether a table of this name is a partition that this package made."""
    return _NAME.fullmatch(table_name) is not None


class Partitions:
    """Makes the partitions that rows need, and remembers which are there.

    Thread-safe. A partition is made in a short transaction of its own, under an advisory lock, by
    CREATE TABLE (LIKE …) and ATTACH, which does not wait behind open writers.
    """

    def __init__(self, engine: Engine, schema: str, config: PartitionsConfig | None = None) -> None:
        self._engine = engine
        self._schema = schema
        self._config = PartitionsConfig() if config is None else config
        self._known: dict[str, list[Range]] = {}
        self._lock = PerProcess(threading.Lock)

    def ensure(self, table_name: str, moments: Iterable[datetime]) -> None:
        """Make sure that each moment has a partition of the table.

        Raises:
            StorageError: the server could not be reached or refused.
        """
        self._ensure(table_name, moments)

    def _ensure(
        self, table_name: str, moments: Iterable[datetime], attempts: int | None = None
    ) -> None:
        missing = self._missing(table_name, moments)
        if not missing:
            return
        with self._lock.get():
            if missing := self._missing(table_name, missing):
                self._make(table_name, missing, attempts=attempts)

    def ensure_within(
        self, connection: Connection, table_name: str, moments: Iterable[datetime]
    ) -> None:
        """As `ensure`, for a caller that holds a connection of the pool.

        Where the pool has no other connection, waiting for one would never end. So the partition is
        made in the open transaction, and others see it once that commits. The same holds where
        another transaction would wait on shards for locks of the open one.

        Raises:
            StorageError: the server could not be reached or refused.
        """
        missing = self._missing(table_name, moments)
        if not missing:
            return
        if not is_of_one(self._engine.pool):
            if not is_sharded(connection):
                self.ensure(table_name, missing)
                return
            with suppress(Conflict):
                self._ensure(table_name, missing, attempts=1)
                return
            # A worker waits, perhaps for what the open transaction has deleted there.
        with translated(), connection.begin_nested():
            settings = connection.execute(_SETTINGS).one()
            self._make_in(connection, table_name, missing)
            # They were changed until the end of the caller's transaction.
            connection.execute(_RESTORE, dict(zip(("a", "b", "c"), settings, strict=True)))

    def cover(
        self, table_name: str, start: datetime, end: datetime, now: datetime | None = None
    ) -> list[str]:
        """Make sure that every moment from start to end has a partition of the table.

        Args:
            table_name: a partitioned table.
            start: the first moment.
            end: the last moment.
            now: the present time, from which the widths of ranges follow. The default is that of
                the clock.

        Returns:
            The names of the partitions that were made.

        Raises:
            StorageError: the server could not be reached or refused.
        """
        made: list[str] = []
        while True:
            with translated(), self._engine.begin() as connection:
                known = existing(connection, self._schema, table_name)
            missing = self._gaps(table_name, start, end, now or datetime.now(UTC), known)
            if not missing:
                return made
            with self._lock.get():
                made += self._make(table_name, missing, now)

    def hold(self, table_name: str, moments: Sequence[datetime]) -> bool:
        """Whether each of the moments has a partition of the table that is known of."""
        first = range_of(self._known.get(table_name, []), min(moments))
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
        last = Range(MAX, MIN)
        for moment in moments:
            # Neighbours in a batch mostly share a partition: two comparisons a row.
            if not last.lower <= moment < last.upper:
                found = range_of(known, moment)
                if found is None:
                    missing.append(moment)
                else:
                    last = found
        return missing

    def _gaps(
        self, table_name: str, start: datetime, end: datetime, now: datetime, known: list[Range]
    ) -> list[datetime]:
        """Moments from start to end, one of each partition that is missing, the first ones."""
        missing: list[datetime] = []
        moment = start
        while moment <= end and len(missing) < _AT_ONCE:
            found = range_of(known, moment)
            if found is None:
                missing.append(moment)
                found = self._wanted(table_name, moment, now, known)
                known = sorted([*known, found])
            if found.upper == MAX:
                break
            moment = found.upper
        return missing

    def _wanted(
        self, table_name: str, moment: datetime, now: datetime, taken: Sequence[Range]
    ) -> Range:
        width, ahead = self._config.width_of(table_name), self._config.ahead
        return free_range(moment, now, width, taken, ahead)

    def _make(
        self,
        table_name: str,
        moments: list[datetime],
        now: datetime | None = None,
        *,
        attempts: int | None = None,
    ) -> list[str]:
        # These attempts are for waits for locks: when the server is away, the writer retries.
        retrying = Retrying(
            stop=stop_after_attempt(attempts or _ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            retry=retry_if_exception(lambda e: isinstance(e, Conflict) and e.retryable),
            reraise=True,
        )

        def make() -> tuple[list[Range], list[str]]:
            with translated(), self._engine.begin() as connection:
                return self._make_in(connection, table_name, moments, now)

        try:
            known, made = retrying(make)
        except StorageError as error:
            if error.__cause__ is None or sqlstate_of(error.__cause__) != _NO_PRIVILEGE:
                raise
            raise StorageError(
                f"{table_name} has no partition for {min(moments)}, and only the owner of the"
                " tables may make one, ahead: regularly by `observatory-storage maintain`, or by"
                f" pool.partitions.ensure(table, moments): {error}"
            ) from error.__cause__
        self._known = {**self._known, table_name: known}
        return made

    def _make_in(
        self,
        connection: Connection,
        table_name: str,
        moments: list[datetime],
        now: datetime | None = None,
    ) -> tuple[list[Range], list[str]]:
        """Make what is missing. The ranges that take rows, and the names of the new partitions."""
        lock(connection, "partitions", self._schema)
        partitions = partitions_of(connection, self._schema, table_name)
        known = [partition.range for partition in partitions if not partition.is_leaving]
        leaving = [partition.range for partition in partitions if partition.is_leaving]
        twins = [existing(connection, self._schema, other) for other in TWINS.get(table_name, ())]
        made = []
        for moment in sorted(moments):
            if range_of(known, moment) is not None:
                continue
            if range_of(leaving, moment) is not None:
                raise Conflict(f"a partition of {table_name} is being detached", retryable=True)
            taken = sorted([*known, *leaving])
            found = (range_of(ranges, moment) for ranges in twins)
            twin = next((each for each in found if each is not None), None)
            if twin is None or any(twin.overlaps(other) for other in taken):
                wanted = self._wanted(table_name, moment, now or datetime.now(UTC), taken)
            else:
                wanted = named_gap(twin.lower, twin.upper)
            name = free_name(connection, self._schema, table_name, wanted.suffix)
            create_like(connection, self._schema, table_name, name)
            attach(connection, self._schema, table_name, name, wanted)
            made.append(name)
            known = sorted([*known, wanted])
        return known, made


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
