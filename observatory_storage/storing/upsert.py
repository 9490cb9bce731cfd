"""Writes prepared rows to a table by INSERT or COPY, or merges them with existing rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import psycopg
from sqlalchemy import Connection, Executable, Integer, Table, insert, literal_column

from observatory_storage.errors import StorageError, is_outage, translate
from observatory_storage.pricing import PriceTable
from observatory_storage.rows import Row
from observatory_storage.storing.binary_copy import SentBytes, copy_encoded, copy_rows, qualified
from observatory_storage.storing.optimism import optimism
from observatory_storage.storing.trace_locks import lock_on_shards
from observatory_storage.storing.upsert_target import UpsertTarget
from observatory_storage.tables import METRICS, TRACES, Values

__all__ = ["Loader", "Method", "chosen_method", "is_text_error"]

Method = Literal["auto", "insert", "copy"]
# From this many rows on, COPY is faster than INSERT. A single row takes about the same time by
# both; see docs/copy.md.
_COPY_FROM_ROWS: Final = 2
_ONE_STATEMENT_ROWS: Final = 100
# Up to this many rows, INSERT … ON CONFLICT costs less than a temporary table to merge from.
_FEW_ROWS: Final = 5
_TEXT_STATES: Final = frozenset({"22021", "22P05"})


def chosen_method(method: Method, rows: int) -> Literal["insert", "copy"]:
    """The method that "auto" uses for a batch of this many rows."""
    if method == "auto":
        return "copy" if rows >= _COPY_FROM_ROWS else "insert"
    return method


class Loader:
    """Writes prepared rows to tables, within the transaction of one connection.

    Args:
        connection: a connection in a transaction.
        method: how rows are written to their tables.
        sent: counts the bytes that are sent.
        prices: the prices to compute costs of spans with.
        payload_threshold: the bytes of attributes that a span or an event may keep in its row. None
            leaves large values in the rows.
        keep_spans: keep the spans as they are written, for `commits`.

    Attributes:
        existing: how many spans, data points and log records had a key that existed already.
        written_spans: the spans with their costs and with their usage where it counts; None if they
            are not kept.
    """

    def __init__(
        self,
        connection: Connection,
        method: Method = "auto",
        sent: SentBytes | None = None,
        *,
        prices: PriceTable | None = None,
        payload_threshold: int | None = None,
        keep_spans: bool = False,
    ) -> None:
        self.connection = connection
        self.method: Method = method
        self.sent = sent or SentBytes()
        self.prices = prices
        self.payload_threshold = payload_threshold
        self.existing = 0
        self.written_spans: list[Row] | None = [] if keep_spans else None

    def upsert(
        self,
        target: UpsertTarget,
        rows: list[Values],
        *,
        encoded: Sequence[bytes] = (),
        optimistic: bool = True,
    ) -> Sequence[Any]:
        """Load rows into their table. After a conflict, merge them instead.

        Returns the rows that the merge returns; none if all rows were loaded.

        Args:
            target: the target of the rows.
            rows: prepared rows.
            encoded: the same rows, unique and in order, encoded by `binary_copy.encode`.
            optimistic: False to merge without an attempt to load.
        """
        if not rows:
            return []
        if not encoded:
            rows = target.unique(rows)
        if target.name == METRICS.name and self._are_few(rows):
            # Senders state a metric with each of its data points, so it mostly exists already.
            self._insert(target, rows, target.insert_or_merge)
            return []
        if optimistic and self.attempt(target, lambda: self.load(target, rows, encoded=encoded)):
            return []
        if target.definition is TRACES:
            at = target.columns.index("id")
            lock_on_shards(self.connection, [row[at] for row in rows])
        self.stage(target, rows, encoded)
        returned: Sequence[Any] = []
        if target.definition.on_conflict == "keep":
            self.existing += len(rows) - self._merge_new(target)
        else:
            merged = self.connection.execute(target.merge)
            returned = merged.all() if merged.returns_rows else []
        self.unstage(target)
        return returned

    def _are_few(self, rows: Sequence[Values]) -> bool:
        return self.method != "copy" and len(rows) <= _FEW_ROWS

    def _merge_new(self, target: UpsertTarget) -> int:
        """Merge rows of which existing ones stay, and return how many are new."""
        new = target.merge.returning(literal_column("1", Integer))
        return sum(1 for _ in self.connection.execute(new))

    def load(
        self,
        target: UpsertTarget,
        rows: Sequence[Values],
        *,
        table: Table | None = None,
        encoded: Sequence[bytes] = (),
    ) -> None:
        """Write rows to the target's table, or to the given one, by the loader's method."""
        into = target.target if table is None else table
        if encoded:
            copy_encoded(self.connection, target, encoded, into, self.sent)
        elif rows and chosen_method(self.method, len(rows)) == "copy":
            copy_rows(self.connection, target, rows, into, self.sent)
        elif rows:
            statement = insert(into)
            if len(rows) > _ONE_STATEMENT_ROWS:
                self._insert(target, rows, statement)
            else:
                # RETURNING makes SQLAlchemy send them as one statement. Without it psycopg would
                # send each by itself in a pipeline, and log a warning when a row's key is there
                # already.
                self._insert(target, rows, statement.returning(into.c[target.key[0]]))

    def _insert(self, target: UpsertTarget, rows: Sequence[Values], statement: Executable) -> None:
        named = [dict(zip(target.columns, row, strict=True)) for row in rows]
        self.connection.execute(statement, named)
        self.sent.count += sum(len(v) for row in rows for v in row if isinstance(v, (str, bytes)))

    def stage(
        self, target: UpsertTarget, rows: Sequence[Values], encoded: Sequence[bytes] = ()
    ) -> None:
        """Write rows to the target's temporary table, which `unstage` or the commit drops."""
        like = qualified(self.connection, target.table)
        self.connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {qualified(self.connection, target.stage)}"
            f" (LIKE {like} INCLUDING DEFAULTS) ON COMMIT DROP"
        )
        self.load(target, rows, table=target.stage, encoded=encoded)

    def unstage(self, target: UpsertTarget) -> None:
        """Drop the target's temporary table."""
        self.connection.exec_driver_sql(f"DROP TABLE {qualified(self.connection, target.stage)}")

    def attempt(self, target: UpsertTarget, load: Callable[[], object]) -> bool:
        """Load in a savepoint; False if that failed and merging may succeed.

        It returns False without an attempt after several conflicts in a row; see `optimism`.

        The decision does not depend on the SQLSTATE, because distributions of PostgreSQL report
        duplicates differently. It depends only on whether the connection is alive and the error is
        not transient.
        """
        learnt = optimism(self.connection, target.stage.name)
        if not learnt.allows():
            return False
        try:
            with self.connection.begin_nested():
                load()
        except Exception as error:  # errors that do not come from the database are raised again
            known = None if isinstance(error, StorageError) else translate(error)
            gone = self.connection.closed
            if known is None or is_outage(known) or gone or is_text_error(error):
                raise
            learnt.learn(clean=False)
            return False
        learnt.learn(clean=True)
        return True


def is_text_error(error: BaseException) -> bool:
    """Whether the error is about text that PostgreSQL cannot store: NUL or a lone surrogate."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, UnicodeEncodeError):
        return True
    # psycopg itself refuses NUL in a value that it sends as text; that error has no SQLSTATE.
    return isinstance(original, psycopg.DataError) and (
        original.sqlstate is None or original.sqlstate in _TEXT_STATES
    )
