"""A table as the target of writes: its columns and their types, its stage and its merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Executable, FromClause, Table, Text, tuple_
from sqlalchemy.dialects.postgresql import JSONB, Insert, dialect, insert
from sqlalchemy.sql import visitors

from observatory_storage.storing.usage_once import Usage
from observatory_storage.tables import PAYLOAD_COLUMNS, TableDefinition, Values

__all__ = ["UpsertTarget", "comparable_json", "in_literals"]

_REPORTED: Final = "reported_usage"
# The same values may be in any frame: their digests are compared.
_FRAME: Final = PAYLOAD_COLUMNS[0]
_COST_SOURCE, _REPORTED_COST_SOURCE = "cost_source", "reported_cost_source"
_TEMPORARY_SCHEMA: Final = "pg_temp"
_DIALECT: Final = cast(sa.Dialect, dialect())  # type: ignore[no-untyped-call]  # as SQLAlchemy has it


class _EncodedJson(sa.TypeDecorator[bytes]):
    """jsonb whose values are encoded already: only the version byte is removed."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value[1:].decode()

    def bind_expression(self, bindparam: sa.BindParameter[bytes]) -> ColumnElement[Any]:
        return sa.cast(bindparam, JSONB)


_JSON_TYPES: Final = (JSONB, _EncodedJson)


@dataclass(frozen=True, eq=False)
class UpsertTarget:
    """The target of rows with certain columns, and the rule for rows whose key exists already.

    Attributes:
        definition: the definition of the table.
        conflict: adds the ON CONFLICT clause to an INSERT.
        combine: combines two rows of one key in a batch, the earlier and the later.
        columns: the columns of the rows.
        stage_name: the name of the temporary table from which rows are merged.
    """

    definition: TableDefinition
    conflict: Callable[[UpsertTarget, Insert], Insert]
    combine: Callable[[Values, Values], Values]
    columns: tuple[str, ...]
    stage_name: str

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def key(self) -> tuple[str, ...]:
        return self.definition.key

    @property
    def table(self) -> Table:
        return self.definition.table

    @cached_property
    def key_of(self) -> Callable[[Values], Any]:
        return itemgetter(*(self.columns.index(column) for column in self.key))

    @cached_property
    def types(self) -> list[str]:
        """The PostgreSQL types of the columns; encoded jsonb is sent as bytes."""
        return [
            "bytea"
            if column in self.definition.json_columns
            else str(self.table.c[column].type.compile(_DIALECT)).partition(" COLLATE")[0].lower()
            for column in self.columns
        ]

    @cached_property
    def target(self) -> Table:
        """The table as the target of an INSERT of prepared rows."""
        return self._of_prepared_rows(self.name, None)

    @cached_property
    def stage(self) -> Table:
        """The temporary table from which rows are merged."""
        return self._of_prepared_rows(self.stage_name, _TEMPORARY_SCHEMA)

    def _of_prepared_rows(self, table_name: str, schema: str | None) -> Table:
        json, stored = self.definition.json_columns, self.table.c
        columns = (
            sa.Column(name, _EncodedJson() if name in json else stored[name].type)
            for name in self.columns
        )
        return Table(table_name, sa.MetaData(), *columns, schema=schema)

    @cached_property
    def merge(self) -> Insert:
        """INSERT … SELECT from the stage, with the ON CONFLICT clause."""
        staged = sa.select(*(self.stage.c[column] for column in self.columns))
        return self.conflict(self, insert(self.table).from_select(list(self.columns), staged))

    @cached_property
    def insert_or_merge(self) -> Executable:
        """INSERT of prepared rows, with the ON CONFLICT clause, as one statement."""
        # Not into `target`: a rule may set columns that no row gives.
        given = {
            column.name: sa.bindparam(column.name, type_=column.type) for column in self.target.c
        }
        merging = self.conflict(self, insert(self.table).values(given))
        return merging.returning(self.table.c[self.key[0]])

    def replacing(self, old: Any, new: Any, column: str) -> ColumnElement[Any]:
        """The value of a column after a new version of a row has replaced the stored one."""
        if column in self.definition.least:
            # PostgreSQL's LEAST ignores NULL.
            are_known = sa.and_(old[column].is_not(None), new[column].is_not(None))
            return sa.case((are_known, sa.func.least(old[column], new[column])))
        kept = column in self.definition.filled_later
        value: ColumnElement[Any] = (
            sa.func.coalesce(new[column], old[column]) if kept else new[column]
        )
        return value

    def distinct(self, old: FromClause | Any, new: FromClause | Any) -> ColumnElement[bool]:
        """Whether replacing a stored row by a new version changes a column.

        Spans are compared by the usage that they report, wherever it counts.
        """
        replaced = {column: self.replacing(old, new, column) for column in self.columns}
        return tuple_(*self._compared(old)).is_distinct_from(tuple_(*self._compared(replaced)))

    def _compared(self, side: Any) -> list[ColumnElement[Any]]:
        columns = [name for name in self.columns if name not in (*self.key, _FRAME)]
        if _REPORTED not in columns:
            return [comparable_json(side[name]) for name in columns]
        return [
            _reported(side, name) if name in Usage._fields else comparable_json(side[name])
            for name in columns
            if name not in (_REPORTED, _REPORTED_COST_SOURCE)
        ]

    def unique(self, rows: list[Values]) -> list[Values]:
        """One row for each key, sorted by key: all writers use the same order."""
        key_of = self.key_of
        found: dict[Any, Values] = {}
        for row in rows:
            key = key_of(row)
            found[key] = self.combine(found[key], row) if key in found else row
        return [found[key] for key in sorted(found, key=_sortable)]


def _sortable(key: Any) -> Any:
    # UUID compares in Python code; its integer, which has the same order, does not.
    if isinstance(key, UUID):
        return key.int
    return tuple(part.int if isinstance(part, UUID) else part for part in key)


def _reported(side: Any, name: str) -> ColumnElement[Any]:
    """The usage that a span reports."""
    column, reported = side[name], sa.type_coerce(side[_REPORTED], JSONB)
    if name == _COST_SOURCE:
        return sa.case((side[_REPORTED].is_(None), column), else_=side[_REPORTED_COST_SOURCE])
    value = reported[name].as_string()
    return sa.case(
        (side[_REPORTED].is_(None), comparable_json(column)),
        else_=value if isinstance(column.type, _JSON_TYPES) else sa.cast(value, column.type),
    )


def comparable_json(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """The value, with jsonb as text: jsonb considers 1 and 1.0 equal, but they differ here."""
    return sa.cast(value, Text) if isinstance(value.type, _JSON_TYPES) else value


def in_literals(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """The expression with its constants in the text of the statement, for ON CONFLICT.

    Citus sends an INSERT … SELECT to the shards without the values of parameters that are only in
    its ON CONFLICT clause.
    """

    def in_text(part: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(part, sa.BindParameter):
            return None
        text = part.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
        return sa.literal_column(str(text), part.type)

    changed: ColumnElement[Any] = visitors.replacement_traverse(expression, {}, cast(Any, in_text))
    return changed
