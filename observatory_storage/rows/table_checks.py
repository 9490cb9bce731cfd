"""The checks and defaults of each table's rows, compiled once from the columns of its model."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.models import COST_SOURCES, KINDS, METRIC_TYPES, STATUSES, TEMPORALITIES
from observatory_storage.rows import value_checks as checks
from observatory_storage.rows.value_checks import Check, Refused
from observatory_storage.tables import EVENTS, SPAN_KEY_OF_EVENT, SPANS, TABLES, TableDefinition

__all__ = ["CHECKS", "EVENTS_OF_SPANS", "UNKNOWN_SERVICE", "TableChecks", "service_of"]

UNKNOWN_SERVICE: Final = "unknown_service"  # OpenTelemetry's name for a service without one

_COUNT: Final = checks.integer(0, checks.MAX_INT64)
# The columns for the nanoseconds of a time or a duration beyond its microseconds.
_NANOSECONDS: Final = ("start_ns", "end_ns", "duration_ns", "timestamp_ns", "span_start_ns")

# Checks that do not follow from a column's type; "table.column" wins over "column".
_CHECKS: Final[dict[str, Check]] = {
    "status": checks.choice(STATUSES),
    "kind": checks.choice(KINDS),
    **dict.fromkeys(("cost_source", "reported_cost_source"), checks.choice(COST_SOURCES)),
    "metric_type": checks.choice(METRIC_TYPES),
    "temporality": checks.choice(TEMPORALITIES),
    **dict.fromkeys(("name", "service_name", "model", "user_id", "session_id"), checks.name),
    "span_id": ids.span_id,
    "parent_span_id": partial(ids.span_id, field="parent_span_id"),
    "lead_span_id": partial(ids.span_id, field="lead_span_id"),
    "trace_id": ids.trace_uuid,
    **dict.fromkeys((*_NANOSECONDS, "lead_start_ns"), checks.integer(0, 999)),
    "position": checks.integer(0, 2**31 - 1),
    "sample_weight": checks.integer(1, 2**31 - 1),
    "severity_number": checks.integer(1, 24),
    "trace_flags": checks.integer(0, 2**32 - 1),
    "ttft_ms": checks.non_negative,
    "links": checks.array_of(checks.link),
    "quantiles": checks.array_of(checks.quantile),
    "exemplars": checks.array_of(),
    "buckets": checks.buckets,
    "body_json": checks.anything,
    "payload_frame": checks.no_previews,
}
_DEFAULTS: Final[dict[str, Any]] = {
    "service_name": UNKNOWN_SERVICE,
    "status": "unset",
    "kind": "internal",
    **dict.fromkeys((*_NANOSECONDS, "span_count", "error_count"), 0),
    "attributes": jsonb.EMPTY_OBJECT,
    "resource_attributes": jsonb.EMPTY_OBJECT,
    "scope_attributes": jsonb.EMPTY_OBJECT,
    "links": jsonb.EMPTY_ARRAY,
}


def _check_of(table: TableDefinition, column: sa.Column[Any]) -> Check:
    known = _CHECKS.get(f"{table.name}.{column.name}") or _CHECKS.get(column.name)
    if known is not None:
        return known
    match column.type:
        case JSONB():
            return checks.mapping
        case sa.Uuid():
            return partial(ids.uuid_of, field=column.name)
        case sa.DateTime():
            return checks.time
        case sa.Double():
            return checks.number
        case sa.Numeric():
            return checks.cost
        case sa.Boolean():
            return checks.flag
        case sa.Integer():
            return _COUNT
        case _:
            return checks.text


def _events(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise Refused("must be a list of events")
    return value


class TableChecks:
    """Checks rows of one table and puts their values into the order of its columns.

    Args:
        table: its definition.
        computed: required columns that need not be given, in place of the definition's.

    Attributes:
        places: for each key that a row may have: the position of its value in the prepared row,
            None where it is checked but not written; its check; whether it is encoded as JSON.
        defaults: a prepared row in which nothing was given.
        required: the columns that must be given, and their positions.
    """

    def __init__(self, table: TableDefinition, computed: tuple[str, ...] | None = None) -> None:
        self.table = table
        columns = table.table.c
        self.places: dict[str, tuple[int | None, Check, bool]] = {
            column.name: (
                table.position.get(column.name),
                _check_of(table, column),
                column.name in table.json_columns,
            )
            for column in columns
        }
        if table is SPANS:
            self.places["events"] = (None, _events, False)
        self.defaults = [
            None if columns[name].nullable else _DEFAULTS.get(name) for name in table.columns
        ]
        optional = {*_DEFAULTS, *(table.computed if computed is None else computed)}
        self.required = {
            name: table.position[name]
            for name in table.columns
            if not (columns[name].nullable or name in optional)
        }
        self._service = table.position.get("service_name")

    def prepare(self, values: Mapping[str, Any]) -> tuple[list[Any], int, Mapping[str, Any]]:
        """The values checked, in the order of the columns; None counts as not given.

        If the row does not name its service, the name in its resource is used.

        Returns:
            The values; how many values in their JSON were repaired; and what was given, with JSON
            in place of values that it does not have.

        Raises:
            ValidationError: names the column, its value and the rule.
        """
        given = values
        prepared = self.defaults.copy()
        repairs = 0
        places = self.places
        for column, value in values.items():
            if value is None and column in places:
                continue
            place = places.get(column)
            if place is None:
                raise self._unknown(column, value)
            position, check, is_json = place
            try:
                checked = check(value)
            except Refused as refused:
                raise refused.of(column, value) from None
            if is_json:
                encoded, repaired, plain = jsonb.convert(checked, column)
                repairs += repaired
                if plain is not checked:
                    given = {**given, column: plain}
                checked = encoded
            if position is not None:
                prepared[position] = checked
        for column, position in self.required.items():
            if prepared[position] is None:
                raise ValidationError(column, None, f"is required in {self.table.name}")
        if self._service is not None and given.get("service_name") is None:
            service = service_of(given.get("resource_attributes") or {})
            if service is not None:
                prepared[self._service] = service
        return prepared, repairs, given

    def _unknown(self, key: object, value: Any) -> ValidationError:
        close = get_close_matches(str(key), self.places, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return ValidationError(str(key), value, f"is not a column of {self.table.name}{hint}")


def service_of(resource_attributes: Mapping[str, Any]) -> str | None:
    """The name that a resource gives its service.

    Raises:
        ValidationError: it is too long.
    """
    named = resource_attributes.get("service.name")
    if not isinstance(named, str) or not named:
        return None
    try:
        return checks.name(named)
    except Refused as refused:
        raise refused.of("service_name", named) from None


CHECKS: Final = {name: TableChecks(table) for name, table in TABLES.items()}
# An event that is passed within its span needs neither the key of the span nor a position.
EVENTS_OF_SPANS: Final = TableChecks(EVENTS, computed=(*SPAN_KEY_OF_EVENT, "position"))
