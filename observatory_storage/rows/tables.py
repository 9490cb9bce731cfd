"""What preparing a row of each table needs, compiled once from the columns of its model."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, Integer, Numeric, Table
from sqlalchemy import SmallInteger as Small
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.models import (
    KINDS,
    METRIC_TYPES,
    STATUSES,
    TEMPORALITIES,
    Base,
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.rows import checks
from observatory_storage.rows.checks import Check, Refused

__all__ = [
    "COLUMNS",
    "EVENTS",
    "EVENTS_OF_SPANS",
    "JSON_COLUMNS",
    "LOGS",
    "METRICS",
    "OBJECT_COLUMNS",
    "POINTS",
    "SPANS",
    "SPAN_KEY_OF_EVENT",
    "TRACES",
    "UNKNOWN_SERVICE",
    "RowTable",
]

UNKNOWN_SERVICE: Final = "unknown_service"  # OpenTelemetry's name for a service without one
SPAN_KEY_OF_EVENT: Final = ("trace_id", "span_id", "span_start_time", "span_start_ns")

# Columns that the storage fills by itself; what a caller gives for them is not written.
_OWN: Final = frozenset(
    {
        "created_at",
        "updated_at",
        "last_span_start",
        "lead_has_parent",
        "lead_start_time",
        "lead_start_ns",
        "lead_span_id",
    }
)

_COUNT: Final = checks.integer(0, checks.MAX_INT64)
_FRACTION: Final = checks.integer(0, 999)

# Checks that a column's type does not tell; "table.column" wins over "column".
_CHECKS: Final[dict[str, Check]] = {
    "status": checks.choice(STATUSES),
    "kind": checks.choice(KINDS),
    "metric_type": checks.choice(METRIC_TYPES),
    "temporality": checks.choice(TEMPORALITIES),
    "name": checks.name,
    "service_name": checks.name,
    "model": checks.name,
    "user_id": checks.name,
    "session_id": checks.name,
    "span_id": ids.span_id,
    "parent_span_id": partial(ids.span_id, field="parent_span_id"),
    "lead_span_id": partial(ids.span_id, field="lead_span_id"),
    "trace_id": ids.trace_uuid,
    "start_ns": _FRACTION,
    "end_ns": _FRACTION,
    "duration_ns": _FRACTION,
    "timestamp_ns": _FRACTION,
    "span_start_ns": _FRACTION,
    "lead_start_ns": _FRACTION,
    "position": checks.integer(0, 2**31 - 1),
    "severity_number": checks.integer(1, 24),
    "trace_flags": checks.integer(0, 2**32 - 1),
    "ttft_ms": checks.non_negative,
    "links": checks.array_of("links", checks.link),
    "quantiles": checks.array_of("quantiles", checks.quantile),
    "exemplars": checks.array_of("exemplars"),
    "buckets": checks.buckets("buckets"),
    "body_json": partial(jsonb.encode, field="body_json"),
}
_DEFAULTS: Final[dict[str, Any]] = {
    "service_name": UNKNOWN_SERVICE,
    "status": "unset",
    "kind": "internal",
    "start_ns": 0,
    "end_ns": 0,
    "duration_ns": 0,
    "timestamp_ns": 0,
    "span_start_ns": 0,
    "attributes": jsonb.EMPTY_OBJECT,
    "resource_attributes": jsonb.EMPTY_OBJECT,
    "scope_attributes": jsonb.EMPTY_OBJECT,
    "links": jsonb.EMPTY_ARRAY,
    "span_count": 0,
    "error_count": 0,
}


def _check_of(table: Table, column: Column[Any]) -> Check:
    known = _CHECKS.get(f"{table.name}.{column.name}") or _CHECKS.get(column.name)
    if known is not None:
        return known
    match column.type:
        case JSONB():
            return checks.mapping(column.name)
        case UuidType():
            return partial(ids.uuid_of, field=column.name)
        case DateTime():
            return checks.time
        case Double():
            return checks.number
        case Numeric():
            return checks.cost
        case Boolean():
            return checks.flag
        case Small() | BigInteger() | Integer():
            return _COUNT
        case _:
            return checks.text


def _events(value: Any) -> None:
    if not isinstance(value, (list, tuple)):
        raise Refused("must be a list of events")


class RowTable(NamedTuple):
    """How a row of one table is checked and put into the order of its columns.

    Attributes:
        places: for each key that a row may have, its place in the prepared row and its check; the
            place is None where what is given is checked but not written.
        at: the place of each column that is written.
        defaults: a prepared row in which nothing was given.
        required: the columns that must be given.
    """

    name: str
    places: dict[str, tuple[int | None, Check]]
    at: dict[str, int]
    defaults: list[Any]
    required: tuple[str, ...]

    def prepare(self, values: Mapping[str, Any]) -> list[Any]:
        """The values checked, in the order of the columns; None counts as not given.

        Raises:
            ValidationError: names the column, its value and the rule.
        """
        prepared = self.defaults.copy()
        places = self.places
        for column, value in values.items():
            place = places.get(column)
            if place is None:
                raise self._unknown(column, value)
            if value is None:
                continue
            at, check = place
            try:
                checked = check(value)
            except Refused as refused:
                raise ValidationError(column, value, str(refused)) from None
            if at is not None:
                prepared[at] = checked
        for column in self.required:
            if prepared[self.at[column]] is None:
                raise ValidationError(column, None, f"is required in {self.name}")
        return prepared

    def _unknown(self, key: object, value: Any) -> ValidationError:
        close = get_close_matches(str(key), self.places, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return ValidationError(str(key), value, f"is not a column of {self.name}{hint}")


def _compiled(model: type[Base], *, computed: tuple[str, ...] = ()) -> RowTable:
    """The table of a model, whose computed columns need not be given."""
    table = model.__table__
    assert isinstance(table, Table)
    written = [column for column in table.columns if column.name not in _OWN]
    at = {column.name: place for place, column in enumerate(written)}
    places = {
        column.name: (at.get(column.name), _check_of(table, column)) for column in table.columns
    }
    if model is TraceSpan:
        places["events"] = (None, _events)
    return RowTable(
        name=table.name,
        places=places,
        at=at,
        defaults=[None if column.nullable else _DEFAULTS.get(column.name) for column in written],
        required=tuple(
            column.name
            for column in written
            if not (column.nullable or column.name in _DEFAULTS or column.name in computed)
        ),
    )


TRACES: Final = _compiled(Trace, computed=("id", "trace_id"))
SPANS: Final = _compiled(TraceSpan)
EVENTS: Final = _compiled(TraceEvent)
EVENTS_OF_SPANS: Final = _compiled(TraceEvent, computed=(*SPAN_KEY_OF_EVENT, "position"))
METRICS: Final = _compiled(Metric, computed=("id",))
POINTS: Final = _compiled(MetricDataPoint, computed=("id",))
LOGS: Final = _compiled(LogRecord, computed=("id",))

# Table name -> the columns that writers give, in the order of `Row.values`.
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    table.name: tuple(table.at) for table in (TRACES, SPANS, EVENTS, METRICS, POINTS, LOGS)
}
JSON_COLUMNS: Final = frozenset(
    column.name
    for table in Base.metadata.tables.values()
    for column in table.columns
    if isinstance(column.type, JSONB)
)
# Those of which nothing is asked but that they are objects.
OBJECT_COLUMNS: Final = JSON_COLUMNS - _CHECKS.keys()
