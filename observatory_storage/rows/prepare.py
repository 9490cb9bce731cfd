"""Rows made ready one by one: checked, completed, and in the order of their table's columns.

A table needs a function here only where its rows are completed by more than defaults, the service
that their resource names, and a random id.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from observatory_storage import ids, tables
from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord, Metric, MetricDataPoint, Trace, TraceEvent
from observatory_storage.rows.prepare_span import duration, end_of, prepare_span
from observatory_storage.rows.row import Row, as_mapping
from observatory_storage.rows.table_checks import CHECKS, UNKNOWN_SERVICE

__all__ = [
    "PREPARE",
    "prepare",
    "prepare_data_point",
    "prepare_event",
    "prepare_log",
    "prepare_metric",
    "prepare_trace",
]

_TRACE_ID, _TRACE_TEXT, _START, _END, _DURATION = tables.TRACES.positions(
    "id", "trace_id", "start_time", "end_time", "duration_us"
)
_METRIC_ID: Final = tables.METRICS.position["id"]
_POINT_ID, *_POINT_BOUNDS = tables.DATA_POINTS.positions(
    "id", "start_timestamp", "timestamp", "min", "max"
)
# Keys of ``otlp`` that are part of a metric's identity, since no column contains them.
_IDENTIFYING_NOTES: Final = ("resource", "scope", "name", "temporality", "data")


def prepare(table: tables.TableDefinition, row: Any) -> Row:
    """A row of any table, an ORM instance or a mapping with the columns' names, ready to write.

    Raises:
        ValidationError: names the field, its value and the rule.
    """
    own = PREPARE.get(table.name)
    return _prepare_plain(table, row) if own is None else own(row)


def _prepare_plain(table: tables.TableDefinition, row: Any) -> Row:
    values, _, repairs = _checked(table, row)
    position = table.position.get("id")
    if position is not None and values[position] is None:
        values[position] = uuid.uuid4()
    return Row(table.name, tuple(values), repairs=repairs)


def _checked(table: tables.TableDefinition, row: Any) -> tuple[list[Any], Mapping[str, Any], int]:
    """The checked values, what was given, and how many values in the JSON were repaired."""
    given = row if type(row) is dict else as_mapping(row, table.model)
    values, repairs, plain = CHECKS[table.name].prepare(given)
    return values, plain, repairs


def prepare_event(row: TraceEvent | Mapping[str, Any]) -> Row:
    """A row of `trace_events` without its span. It names the span, its start and a position."""
    return _prepare_plain(tables.EVENTS, row)


def prepare_log(row: LogRecord | Mapping[str, Any]) -> Row:
    """A row of `logs`; without an id it gets a random one."""
    return _prepare_plain(tables.LOGS, row)


def prepare_trace(row: Trace | Mapping[str, Any]) -> Row:
    """A row of `traces`; its id is computed from its ``trace_id``."""
    values, given, repairs = _checked(tables.TRACES, row)
    field = "id" if given.get("trace_id") is None else "trace_id"
    trace_id = given.get(field)
    if trace_id is None:
        raise ValidationError("trace_id", None, "is required in traces")
    key = ids.trace_uuid(trace_id, field)
    # A row that an earlier version has stored keeps the id that it has.
    if values[_TRACE_ID] is None or values[_TRACE_ID] != ids.former_trace_uuid(key):
        _set_id(values, _TRACE_ID, key, "is computed from trace_id")
    values[_TRACE_TEXT] = ids.trace_text(trace_id)
    if values[_END] is not None:
        values[_DURATION], _ = duration(values[_START], 0, values[_END], 0)
    elif values[_DURATION] is not None:
        values[_END], _ = end_of(values[_START], 0, values[_DURATION], 0)
    return Row(tables.TRACES.name, tuple(values), repairs=repairs)


def prepare_metric(row: Metric | Mapping[str, Any]) -> Row:
    """A row of `metrics`; its id is computed from what defines it."""
    values, given, repairs = _checked(tables.METRICS, row)
    named = dict(zip(tables.METRICS.columns, values, strict=True))
    otlp = given.get("otlp") or {}
    computed = ids.metric_id(
        name=named["name"],
        metric_type=named["metric_type"],
        unit=named["unit"],
        temporality=named["temporality"],
        resource_attributes=given.get("resource_attributes"),
        scope_name=named["scope_name"],
        scope_version=named["scope_version"],
        scope_attributes=given.get("scope_attributes"),
        # A resource without a service name differs from one whose service name is
        # "unknown_service".
        service_name=None if named["service_name"] == UNKNOWN_SERVICE else named["service_name"],
        origin={key: otlp[key] for key in _IDENTIFYING_NOTES if key in otlp} or None,
    )
    _set_id(values, _METRIC_ID, computed, "is computed from the definition")
    return Row(tables.METRICS.name, tuple(values), repairs=repairs)


def prepare_data_point(row: MetricDataPoint | Mapping[str, Any]) -> Row:
    """A row of `metric_data_points`; its id, where not given, comes from attributes and start."""
    values, given, repairs = _checked(tables.DATA_POINTS, row)
    start, end, least, greatest = (values[position] for position in _POINT_BOUNDS)
    if least is not None and greatest is not None and least > greatest:
        raise ValidationError("min", least, f"must not be greater than max={greatest!r}")
    if start is not None and start > end:
        raise ValidationError("start_timestamp", start, f"must not be after timestamp={end}")
    if values[_POINT_ID] is None:
        values[_POINT_ID] = ids.data_point_id(
            attributes=given.get("attributes"), start_timestamp=start
        )
    return Row(tables.DATA_POINTS.name, tuple(values), repairs=repairs)


def _set_id(values: list[Any], position: int, computed: uuid.UUID, rule: str) -> None:
    if values[position] is not None and values[position] != computed:
        raise ValidationError("id", values[position], f"{rule}: leave it out")
    values[position] = computed


PREPARE: Final[dict[str, Callable[[Any], Row]]] = {
    tables.TRACES.name: prepare_trace,
    tables.SPANS.name: prepare_span,
    tables.METRICS.name: prepare_metric,
    tables.DATA_POINTS.name: prepare_data_point,
}
"""The tables whose rows are completed in a way of their own."""
