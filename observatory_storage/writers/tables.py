"""What writing to each table needs: its columns for loading, its key, its rule on conflict.

Each table's policy is one constant at the end; its columns and types come from the ORM table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from operator import itemgetter
from typing import Any, Final
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Dialect,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    cast,
    extract,
    func,
    tuple_,
)
from sqlalchemy import case as when
from sqlalchemy.dialects.postgresql import JSONB, Insert, dialect, insert
from sqlalchemy.sql import FromClause, select

from observatory_storage.jsonb import EMPTY_OBJECT
from observatory_storage.models import (
    Base,
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.rows import COLUMNS

__all__ = ["EVENTS", "LOGS", "METRICS", "POINTS", "SPANS", "TABLES", "TRACES", "TableWriter"]

Values = tuple[Any, ...]
_TRACE_OBJECTS: Final = ("attributes", "resource_attributes")
_TRACE_TEXT: Final = COLUMNS["traces"].index("trace_id")
_MICROSECOND: Final = timedelta(microseconds=1)
_TEMPORARY_SCHEMA: Final = "pg_temp"
_DIALECT: Final = cast_type(Dialect, dialect())  # type: ignore[no-untyped-call]  # as SQLAlchemy has it


class _EncodedJson(TypeDecorator[bytes]):
    """jsonb whose values `rows` has encoded already: the version byte goes, the text stays."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value[1:].decode()

    def bind_expression(self, bindparam: BindParameter[bytes]) -> ColumnElement[Any]:
        return cast(bindparam, JSONB)


@dataclass(frozen=True)
class TableWriter:
    """How rows get into one table.

    Attributes:
        model: the ORM class of the table.
        conflict: completes an INSERT with what happens to a row whose key is there already.
        combine: what two rows of one key in a batch, the earlier and the later, come to.
        columns: the columns that its rows have; those that `rows` prepares, unless given.
        purpose: tells apart two writers to one table.
    """

    model: type[Base]
    conflict: Callable[[TableWriter, Insert], Insert]
    combine: Callable[[Values, Values], Values] = lambda _, later: later
    columns: tuple[str, ...] = ()
    purpose: str = ""

    def __post_init__(self) -> None:
        if not self.columns:
            object.__setattr__(self, "columns", COLUMNS[self.name])

    @cached_property
    def table(self) -> Table:
        table = self.model.__table__
        assert isinstance(table, Table)
        return table

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def key(self) -> tuple[str, ...]:
        return tuple(self.table.primary_key.columns.keys())

    @cached_property
    def key_of(self) -> Callable[[Values], Any]:
        return itemgetter(*(self.columns.index(column) for column in self.key))

    @cached_property
    def types(self) -> list[str]:
        """The columns' types in PostgreSQL; jsonb goes as bytes, since `rows` has encoded it."""
        return [
            "bytea"
            if isinstance(self.table.c[column].type, JSONB)
            else str(self.table.c[column].type.compile(_DIALECT)).partition(" COLLATE")[0].lower()
            for column in self.columns
        ]

    @cached_property
    def target(self) -> Table:
        """The table as a target of INSERT of prepared rows."""
        return self._twin(self.name, None)

    @cached_property
    def stage(self) -> Table:
        """The temporary table that rows are merged through."""
        return self._twin(f"stage_{self.name}{self.purpose}", _TEMPORARY_SCHEMA)

    def _twin(self, name: str, schema: str | None) -> Table:
        return Table(
            name,
            MetaData(),
            *(
                Column(
                    column,
                    _EncodedJson()
                    if isinstance(self.table.c[column].type, JSONB)
                    else self.table.c[column].type,
                )
                for column in self.columns
            ),
            schema=schema,
        )

    @cached_property
    def merge(self) -> Insert:
        """INSERT … SELECT from the stage, with the table's rule on conflict."""
        staged = select(*(self.stage.c[column] for column in self.columns))
        return self.conflict(self, insert(self.table).from_select(list(self.columns), staged))

    def distinct(self, left: FromClause | Any, right: FromClause | Any) -> ColumnElement[bool]:
        """Whether two versions of a row differ in any column that is not part of the key."""
        return tuple_(*self._compared(left)).is_distinct_from(tuple_(*self._compared(right)))

    def _compared(self, side: Any) -> list[ColumnElement[Any]]:
        return [_as_text(side[column]) for column in self.columns if column not in self.key]

    def unique(self, rows: list[Values]) -> list[Values]:
        """One row of each key, in the order of the keys: writers meet in one order."""
        key_of = self.key_of
        found: dict[Any, Values] = {}
        for row in rows:
            key = key_of(row)
            found[key] = self.combine(found[key], row) if key in found else row
        return [found[key] for key in sorted(found, key=_comparable)]


def _comparable(key: Any) -> Any:
    # UUID compares in Python code; its integer, which has the same order, does not.
    if isinstance(key, UUID):
        return key.int
    return tuple(part.int if isinstance(part, UUID) else part for part in key)


def microseconds(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[int]:
    """How long it is from start to end; NULL where one of them is."""
    return cast(extract("epoch", end - start) * 1_000_000, BigInteger)


def _as_text(value: ColumnElement[Any]) -> ColumnElement[Any]:
    # jsonb holds 1 and 1.0 for equal, and those are two values here.
    return cast(value, Text) if isinstance(value.type, (JSONB, _EncodedJson)) else value


def _keep(writer: TableWriter, statement: Insert) -> Insert:
    """A row that is there already stays as it is."""
    return statement.on_conflict_do_nothing(index_elements=list(writer.key))


def _kept(earlier: Values, _: Values) -> Values:
    """What `_keep` makes of two rows of one key, where both are in one batch."""
    return earlier


def _replace(writer: TableWriter, statement: Insert) -> Insert:
    """A row that differs replaces the one that is there."""
    new = statement.excluded
    changed: dict[str, ColumnElement[Any]] = {
        column: new[column] for column in writer.columns if column not in writer.key
    }
    if "updated_at" in writer.table.c:
        changed["updated_at"] = func.now()
    return statement.on_conflict_do_update(
        index_elements=list(writer.key),
        set_=changed,
        where=writer.distinct(writer.table.c, new),
    )


def _replace_unless_unended(writer: TableWriter, statement: Insert) -> Insert:
    """As `_replace`, but an ended span is never replaced by an unended one."""
    new, old = statement.excluded, writer.table.c
    return statement.on_conflict_do_update(
        index_elements=list(writer.key),
        set_={column: new[column] for column in writer.columns if column not in writer.key},
        where=writer.distinct(old, new) & (old.end_time.is_(None) | new.end_time.is_not(None)),
    )


def _fill(writer: TableWriter, statement: Insert) -> Insert:
    """`write_trace` says only what no span of the trace says, and forgets nothing said before."""
    new, old = statement.excluded, writer.table.c
    spoken = old.lead_span_id.is_not(None)
    changed: dict[str, ColumnElement[Any]] = {
        column: func.coalesce(new[column], old[column])
        for column in writer.columns
        if column not in writer.key
    }
    changed["duration_us"] = func.coalesce(
        microseconds(changed["start_time"], changed["end_time"]), changed["duration_us"]
    )
    for column in changed.keys() - {*_TRACE_OBJECTS, "status_message"}:
        changed[column] = when((spoken, old[column]), else_=changed[column])
    for column in _TRACE_OBJECTS:
        changed[column] = when((new[column] == {}, old[column]), else_=new[column])
    # The text of an id does not depend on which writer came first.
    changed["trace_id"] = func.least(old.trace_id, new.trace_id)
    differs = tuple_(*(_as_text(old[column]) for column in changed)).is_distinct_from(
        tuple_(*(_as_text(value) for value in changed.values()))
    )
    return statement.on_conflict_do_update(
        index_elements=list(writer.key), set_={**changed, "updated_at": func.now()}, where=differs
    )


def _filled(earlier: Values, later: Values) -> Values:
    """What `_fill` makes of two rows of a trace, where both are in one batch."""
    values = {
        column: old if new is None or (column in _TRACE_OBJECTS and new == EMPTY_OBJECT) else new
        for column, old, new in zip(COLUMNS["traces"], earlier, later, strict=True)
    }
    values["trace_id"] = min(earlier[_TRACE_TEXT], later[_TRACE_TEXT])
    if values["end_time"] is not None:
        values["duration_us"] = (values["end_time"] - values["start_time"]) // _MICROSECOND
    return tuple(values.values())


TRACES: Final = TableWriter(Trace, _fill, _filled)
SPANS: Final = TableWriter(TraceSpan, _replace_unless_unended)
EVENTS: Final = TableWriter(TraceEvent, _replace)
METRICS: Final = TableWriter(Metric, _replace)
POINTS: Final = TableWriter(MetricDataPoint, _keep, _kept)
LOGS: Final = TableWriter(LogRecord, _keep, _kept)
TABLES: Final = {writer.name: writer for writer in (TRACES, SPANS, EVENTS, METRICS, POINTS, LOGS)}
