"""The rules on conflict, for rows whose key exists already: one function for each rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    and_,
    case,
    cast,
    extract,
    func,
    literal_column,
    tuple_,
)
from sqlalchemy.dialects.postgresql import Insert

from observatory_storage.jsonb import EMPTY_OBJECT
from observatory_storage.storing.upsert_target import UpsertTarget, comparable_json, in_literals
from observatory_storage.tables import (
    EVENTS,
    LOG_FRAMES,
    LOGS,
    PAYLOAD_COLUMNS,
    PAYLOAD_FRAMES,
    SPANS,
    TABLES,
    TRACES,
    ConflictRule,
    TableDefinition,
    Values,
)
from observatory_storage.times import MICROSECOND

__all__ = ["FRAMES", "TARGETS", "WITH_PAYLOADS", "later", "microseconds", "target_of"]

_TRACE_OBJECTS: Final = ("attributes", "resource_attributes")
_EMPTY: Final[ColumnElement[Any]] = literal_column("CAST('{}' AS jsonb)")
_TRACE_TEXT: Final = TRACES.position["trace_id"]


def microseconds(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[int]:
    """The microseconds from start to end; NULL if one of them is NULL."""
    return cast(extract("epoch", end - start) * 1_000_000, BigInteger)


def _keep(target: UpsertTarget, statement: Insert) -> Insert:
    """An existing row stays as it is."""
    return statement.on_conflict_do_nothing(index_elements=list(target.key))


def earlier(first: Values, _: Values) -> Values:
    """The first of two rows of one key in a batch."""
    return first


def later(_: Values, second: Values) -> Values:
    """The second of two rows of one key in a batch."""
    return second


def _replace(target: UpsertTarget, statement: Insert, *conditions: ColumnElement[bool]) -> Insert:
    """The new row replaces a stored row that differs, if the conditions are met."""
    new, old = statement.excluded, target.table.c
    changed: dict[str, ColumnElement[Any]] = {
        column: target.replacing(old, new, column)
        for column in target.columns
        if column not in target.key
    }
    if "updated_at" in target.table.c:
        changed["updated_at"] = new.updated_at
    return statement.on_conflict_do_update(
        index_elements=list(target.key),
        set_=_in_literals(changed),
        where=in_literals(and_(target.distinct(old, new), *conditions)),
    )


def _replace_unless_unended(target: UpsertTarget, statement: Insert) -> Insert:
    """The same as `_replace`, but an ended span is never replaced by an unended one."""
    new, old = statement.excluded, target.table.c
    return _replace(target, statement, old.end_time.is_(None) | new.end_time.is_not(None))


def _fill_unless_spans_tell(target: UpsertTarget, statement: Insert) -> Insert:
    """A row from `write_trace` sets only columns that no span determines, and clears none."""
    new, old = statement.excluded, target.table.c
    has_spans = old.lead_span_id.is_not(None)
    changed: dict[str, ColumnElement[Any]] = {
        column: func.coalesce(new[column], old[column])
        for column in target.columns
        if column not in target.key
    }
    changed["duration_us"] = func.coalesce(
        microseconds(changed["start_time"], changed["end_time"]), changed["duration_us"]
    )
    for column in changed.keys() - {*_TRACE_OBJECTS, "status_message"}:
        changed[column] = case((has_spans, old[column]), else_=changed[column])
    for column in _TRACE_OBJECTS:
        changed[column] = case((new[column] == _EMPTY, old[column]), else_=new[column])
    # The lesser text, so that it does not depend on which writer came first.
    changed["trace_id"] = func.least(old.trace_id, new.trace_id)
    differs = tuple_(*(comparable_json(old[column]) for column in changed)).is_distinct_from(
        tuple_(*(comparable_json(value) for value in changed.values()))
    )
    return statement.on_conflict_do_update(
        index_elements=list(target.key),
        set_=_in_literals({**changed, "updated_at": new.updated_at}),
        where=in_literals(differs),
    )


def _in_literals(changed: dict[str, ColumnElement[Any]]) -> dict[str, ColumnElement[Any]]:
    return {column: in_literals(value) for column, value in changed.items()}


def _filled(first: Values, second: Values) -> Values:
    """Combine two rows of a trace in one batch, as `_fill_unless_spans_tell` does in SQL."""
    values = {
        column: old if new is None or (column in _TRACE_OBJECTS and new == EMPTY_OBJECT) else new
        for column, old, new in zip(TRACES.columns, first, second, strict=True)
    }
    values["trace_id"] = min(first[_TRACE_TEXT], second[_TRACE_TEXT])
    if values["end_time"] is not None:
        values["duration_us"] = (values["end_time"] - values["start_time"]) // MICROSECOND
    return tuple(values.values())


_Conflict = Callable[[UpsertTarget, Insert], Insert]
_Combine = Callable[[Values, Values], Values]
# For each rule: the function that adds ON CONFLICT to an INSERT, and the function that combines two
# rows of one key in a batch.
_RULES: Final[dict[ConflictRule, tuple[_Conflict, _Combine]]] = {
    "keep": (_keep, earlier),
    "replace": (_replace, later),
    "replace_unless_unended": (_replace_unless_unended, later),
    "fill_unless_spans_tell": (_fill_unless_spans_tell, _filled),
}


def target_of(table: TableDefinition) -> UpsertTarget:
    """The upsert target of the prepared rows of a table."""
    return TARGETS[table.name]


def _target(table: TableDefinition, more_columns: tuple[str, ...] = ()) -> UpsertTarget:
    columns = table.columns + more_columns
    return UpsertTarget(table, *_RULES[table.on_conflict], columns, f"stage_{table.name}")


TARGETS: Final = {name: _target(table) for name, table in TABLES.items()}
WITH_PAYLOADS: Final = {
    table.name: _target(table, PAYLOAD_COLUMNS) for table in (SPANS, EVENTS, LOGS)
}
"""Targets of rows with their payload columns, which `FrameBuilder` adds."""
FRAMES: Final = {table.name: _target(table) for table in (PAYLOAD_FRAMES, LOG_FRAMES)}
"""The targets of payload frames, which are only loaded: their ids are random."""
