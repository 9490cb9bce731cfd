"""Copies the rows of a partition that is split, and what writers change meanwhile.

Rows are copied in the order of the partition's pages, so a run goes on where the last one ended.
Changes are found by the transaction ids of row versions (``xmin``): a transaction before the
oldest one of a snapshot had ended when the snapshot was taken, so whoever reads later sees what it
wrote. Row versions of younger transactions are copied in the next round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.split_state import NewTable, SplitState, save
from observatory_storage.models import Base
from observatory_storage.schema_state import quoted_name
from observatory_storage.time_ranges import MAX, MIN

__all__ = ["Scanned", "SplitCopy"]

_FIRST_BLOCKS: Final = 64
_MOST_BLOCKS: Final = 8192
_BLOCKS_OF_CHANGES: Final = 16_384
# A transaction of this length delays neither vacuuming nor others.
_GOAL_SECS: Final = 0.5
# Whether a row version is younger than the snapshot.
_IS_CHANGED: Final = "age(m.xmin) <= (SELECT age(CAST(CAST(:since AS xid8) AS xid)))"
_ON_PAGES: Final = "m.ctid >= CAST(:first AS tid) AND m.ctid < CAST(:last AS tid)"
_LISTED: Final = "m.ctid = ANY (CAST(:listed AS tid[]))"


class Scanned(NamedTuple):
    """What a look through the partition has found.

    Attributes:
        rows: the number of its rows.
        changes: the number of row versions that came since the last round.
        listed: the ``ctid`` of each of these, as text of an array.
    """

    rows: int
    changes: int
    listed: str


class SplitCopy:
    """Copies into the new tables of a split. Each step is a transaction that notes where it is.

    Attributes:
        state: the split, as far as it has come.
        rows: how many rows the new tables have, once they have been counted.
    """

    def __init__(self, run: Run, state: SplitState) -> None:
        self._run = run
        self._engine = run.source.engine
        self.state = state
        self.rows = 0
        self._schema = quoted_name(run.source.schema)
        self._column = quoted_name(PARTITIONED[state.table_name])
        key = Base.metadata.tables[state.table_name].primary_key
        self._key = [quoted_name(column.name) for column in key]
        self._columns: list[str] = []

    def copy_rows(self) -> None:
        """Copy the rows that were there when the split began, until the deadline."""
        blocks = _FIRST_BLOCKS
        while not self.state.is_copied and not self._run.deadline.is_over:
            began = time.monotonic()
            last = min(self.state.next_block + blocks, self.state.block_count)
            pages = _pages(self.state.next_block, last)
            with self._begun() as connection:
                found = self._found(connection, f"{_ON_PAGES} AND NOT {_IS_CHANGED}", pages)
                for new in found:
                    self._insert(connection, new, f"{_ON_PAGES} AND NOT {_IS_CHANGED}", pages)
                state = replace(self.state, next_block=last)
                save(connection, state)
            self.state = state
            if time.monotonic() - began < _GOAL_SECS / 2:
                blocks = min(2 * blocks, _MOST_BLOCKS)
            elif time.monotonic() - began > _GOAL_SECS:
                blocks = max(blocks // 2, 1)

    def copy_changes(self) -> None:
        """Copy the row versions that came since the last round, until the deadline."""
        with self._begun() as connection:
            since = connection.scalar(
                sa.text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
            )
            size = sa.text(
                "SELECT pg_relation_size(CAST(:oid AS oid)) / current_setting('block_size')::bigint"
            )
            blocks = int(connection.scalar(size, {"oid": self.state.relation_oid}) or 0)
        for first in range(0, blocks, _BLOCKS_OF_CHANGES):
            if first and self._run.deadline.is_over:
                return
            with self._begun() as connection:
                where = f"{_ON_PAGES} AND {_IS_CHANGED}"
                fresh = self._merge(connection, where, _pages(first, first + _BLOCKS_OF_CHANGES))
            self.rows += fresh
        with self._begun() as connection:
            state = replace(self.state, changed_since=str(since))
            save(connection, state)
        self.state = state

    def copy_listed(self, connection: sa.Connection, listed: str) -> int:
        """Copy these row versions in the caller's transaction; how many have new keys.

        Args:
            connection: the connection.
            listed: the ``ctid`` of each, as text of an array.
        """
        return self._merge(connection, _LISTED, {"listed": listed})

    def compare(self) -> None:
        """Delete copies of rows that are gone, and copy rows that have none."""
        same = " AND ".join(f"n.{name} = m.{name}" for name in self._key)
        for new in self.state.new_tables:
            name = self._named(new.name)
            with self._begun() as connection:
                gone = sa.text(
                    f"DELETE FROM {name} AS n WHERE NOT EXISTS"  # noqa: S608 - quoted
                    f" (SELECT FROM ONLY {self._partition} AS m"
                    f" WHERE {same} AND {self._is_within(new)})"
                )
                connection.execute(gone, _bounds(new))
                where = f"NOT EXISTS (SELECT FROM {name} AS n WHERE {same})"
                self._insert(connection, new, where, {})

    def scan(self, connection: sa.Connection, timeout: str) -> Scanned:
        """Count the partition's rows and find its changes, in so short a time or not at all."""
        before = connection.scalar(sa.text("SHOW statement_timeout"))
        set_timeout = sa.text("SELECT set_config('statement_timeout', :timeout, true)")
        connection.execute(set_timeout, {"timeout": timeout})
        query = sa.text(
            f"SELECT count(*), count(*) FILTER (WHERE {_IS_CHANGED}),"  # noqa: S608 - quoted
            f" coalesce(array_agg(m.ctid) FILTER (WHERE {_IS_CHANGED}), '{{}}')::text"
            f" FROM ONLY {self._partition} AS m"
        )
        rows, changes, listed = connection.execute(query, {"since": self.state.changed_since}).one()
        connection.execute(set_timeout, {"timeout": before})
        return Scanned(rows, changes, listed)

    def count(self) -> None:
        """Count the rows that the new tables have."""
        self.rows = 0
        with self._begun() as connection:
            for new in self.state.new_tables:
                counted = sa.text(f"SELECT count(*) FROM {self._named(new.name)}")  # noqa: S608 - quoted
                self.rows += connection.scalar(counted) or 0

    def analyze(self) -> None:
        """Let the planner know the new tables before queries meet them."""
        for new in self.state.new_tables:
            with self._begun() as connection:
                connection.execute(sa.text(f"ANALYZE {self._named(new.name)}"))

    @contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as connection:
            # A partition of any size is counted and compared. That holds up nobody.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            yield connection

    @property
    def _partition(self) -> str:
        return self._named(self.state.partition_name)

    def _named(self, name: str) -> str:
        return f"{self._schema}.{quoted_name(name)}"

    def _found(
        self, connection: sa.Connection, where: str, values: dict[str, Any]
    ) -> Sequence[NewTable]:
        """The new tables that rows of the partition may go into, by the times of these rows."""
        clamped = f"least(greatest(m.{self._column}, :min), :max)"
        query = sa.text(
            f"SELECT min({clamped}), max({clamped})"  # noqa: S608 - quoted
            f" FROM ONLY {self._partition} AS m WHERE {where}"
        )
        values = {"since": self.state.changed_since, **values, "min": MIN, "max": MAX}
        first, last = connection.execute(query, values).one()
        if first is None:
            return []
        return [
            one
            for one in self.state.new_tables
            if one.held.lower <= last and (first < one.held.upper or one.held.upper == MAX)
        ]

    def _merge(self, connection: sa.Connection, where: str, values: dict[str, Any]) -> int:
        """Copy rows over those with the same keys; how many have new keys."""
        columns = self._all_columns(connection)
        others = [name for name in columns if name not in self._key]
        changes = ", ".join(f"{name} = excluded.{name}" for name in others)
        # A row version that replaces another one has the id of the transaction that locked that.
        conflict = (
            f" ON CONFLICT ({', '.join(self._key)}) DO UPDATE SET {changes}"
            " RETURNING xmax = 0 AS is_fresh"
        )
        return sum(
            sum(self._insert(connection, new, where, values, conflict).scalars())
            for new in self._found(connection, where, values)
        )

    def _insert(
        self,
        connection: sa.Connection,
        new: NewTable,
        where: str,
        values: dict[str, Any],
        conflict: str = "",
    ) -> sa.CursorResult[Any]:
        columns = ", ".join(self._all_columns(connection))
        selected = ", ".join(f"m.{name}" for name in self._all_columns(connection))
        statement = sa.text(
            f"INSERT INTO {self._named(new.name)} ({columns}) SELECT {selected}"  # noqa: S608 - quoted
            f" FROM ONLY {self._partition} AS m"
            f" WHERE {where} AND {self._is_within(new)}{conflict}"
        )
        values = {"since": self.state.changed_since, **values, **_bounds(new)}
        return connection.execute(statement, values)

    def _is_within(self, new: NewTable) -> str:
        conditions = ["true"]
        if new.held.lower > MIN:
            conditions.append(f"m.{self._column} >= :lower")
        if new.held.upper < MAX:
            conditions.append(f"m.{self._column} < :upper")
        return " AND ".join(conditions)

    def _all_columns(self, connection: sa.Connection) -> list[str]:
        """The columns of the partition: a newer version of the package may have added some."""
        if not self._columns:
            query = sa.text(
                "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:oid AS oid)"
                " AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            )
            names = connection.scalars(query, {"oid": self.state.relation_oid})
            self._columns = [quoted_name(name) for name in names]
        return self._columns


def _pages(first: int, last: int) -> dict[str, str]:
    return {"first": f"({first},0)", "last": f"({last},0)"}


def _bounds(new: NewTable) -> dict[str, datetime]:
    return {"lower": new.held.lower, "upper": new.held.upper}
