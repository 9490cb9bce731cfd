"""Rows of the six tables made ready: checked, completed, and in the order of the columns."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Context
from typing import Any, Final, NamedTuple

from sqlalchemy import inspect

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.llm import facts
from observatory_storage.models import (
    Base,
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.rows import checks
from observatory_storage.rows.checks import MAX_INT64, Refused
from observatory_storage.rows.tables import (
    COLUMNS,
    EVENTS,
    EVENTS_OF_SPANS,
    JSON_COLUMNS,
    LOGS,
    METRICS,
    POINTS,
    SPAN_KEY_OF_EVENT,
    SPANS,
    TRACES,
    UNKNOWN_SERVICE,
    RowTable,
)

__all__ = [
    "USAGE",
    "Row",
    "as_mapping",
    "events_of",
    "prepare_data_point",
    "prepare_event",
    "prepare_log",
    "prepare_metric",
    "prepare_span",
    "prepare_trace",
    "remember_id",
    "service_of",
]

_MICROSECOND: Final = timedelta(microseconds=1)
# Adds any two costs exactly, whatever precision the caller's own context has.
_EXACT: Final = Context(prec=800, traps=[])


class Row(NamedTuple):
    """One row ready to write.

    Attributes:
        table: the name of its table.
        values: one value for each of ``COLUMNS[table]``, in that order.
        events: for a span, its events' values; None where the span says nothing of its events.
        trace_text: for a span, its trace id as text.
    """

    table: str
    values: tuple[Any, ...]
    events: tuple[tuple[Any, ...], ...] | None = None
    trace_text: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The row with its columns' names, JSON decoded, as a handler of rejects wants it."""
        named = _named(self.table, self.values)
        if self.events is not None:
            named["events"] = [_named("trace_events", event) for event in self.events]
        return named


def _named(table: str, values: tuple[Any, ...]) -> dict[str, Any]:
    return {
        column: jsonb.decode(value) if column in JSON_COLUMNS else value
        for column, value in zip(COLUMNS[table], values, strict=True)
    }


def as_mapping(row: object, model: type[Base]) -> dict[str, Any]:
    """The columns that an ORM instance or a mapping gives, as a new dict.

    Raises:
        ValidationError: the row is neither a mapping nor an instance of the model.
    """
    if isinstance(row, model):
        for column in inspect(row).callables:  # what a list has left out
            if column in COLUMNS[model.__tablename__] and column not in row.__dict__:
                raise ValidationError(
                    column, None, "was not loaded: read the row whole to write it"
                )
        return {key: value for key, value in row.__dict__.items() if key[0] != "_"}
    if isinstance(row, Mapping) and not isinstance(row, Base):  # which is another model's
        return dict(row)
    raise ValidationError(
        "row", row, f"must be a {model.__name__} or a mapping with its columns' names"
    )


def _given(row: object, model: type[Base]) -> Mapping[str, Any]:
    """As `as_mapping`, to be read only."""
    return row if type(row) is dict else as_mapping(row, model)


def prepare_trace(row: Trace | Mapping[str, Any]) -> Row:
    """A row of `traces`; its id is computed from its ``trace_id``."""
    values = _given(row, Trace)
    field = "id" if values.get("trace_id") is None else "trace_id"
    given = values.get(field)
    prepared = TRACES.prepare(values)
    if given is None:
        raise ValidationError("trace_id", None, "is required in traces")
    _compute(TRACES, prepared, ids.trace_uuid(given, field), "is computed from trace_id")
    prepared[TRACES.at["trace_id"]] = ids.trace_text(given)
    _name_service(TRACES, prepared, values)
    at_end, at_duration = TRACES.at["end_time"], TRACES.at["duration_us"]
    start, end, took = prepared[TRACES.at["start_time"]], prepared[at_end], prepared[at_duration]
    if end is not None:
        prepared[at_duration], _ = _duration(start, 0, end, 0)
    elif took is not None:
        prepared[at_end], _ = _end(start, 0, took, 0)
    return Row("traces", tuple(prepared))


def prepare_span(row: TraceSpan | Mapping[str, Any]) -> Row:
    """A row of `trace_spans` with those of its events; LLM columns come from its attributes."""
    values = _given(row, TraceSpan)
    prepared = SPANS.prepare(values)
    _name_service(SPANS, prepared, values)
    _fill_llm_columns(prepared, values)
    end = prepared[_END]
    if end is not None:
        prepared[_DURATION], prepared[_DURATION_NS] = _duration(
            prepared[_START], prepared[_START_NS], end, prepared[_END_NS]
        )
    elif prepared[_DURATION] is not None:  # it has ended, only that it is said otherwise
        prepared[_END], prepared[_END_NS] = _end(
            prepared[_START], prepared[_START_NS], prepared[_DURATION], prepared[_DURATION_NS]
        )
    events = values.get("events")
    return Row(
        "trace_spans",
        tuple(prepared),
        None if events is None else events_of(events, prepared),
        ids.trace_text(values["trace_id"]),
    )


def prepare_event(row: TraceEvent | Mapping[str, Any]) -> Row:
    """A row of `trace_events` by itself: it names its span, the span's start and its position."""
    return Row("trace_events", tuple(EVENTS.prepare(_given(row, TraceEvent))))


# What of ``otlp`` tells two definitions apart: what their columns cannot hold.
_TELLING_APART: Final = ("resource", "scope", "name", "temporality", "data")


def prepare_metric(row: Metric | Mapping[str, Any]) -> Row:
    """A row of `metrics`; its id is computed from what defines it."""
    values = _given(row, Metric)
    prepared = METRICS.prepare(values)
    _name_service(METRICS, prepared, values)
    named = dict(zip(COLUMNS["metrics"], prepared, strict=True))
    otlp = values.get("otlp") or {}
    computed = ids.metric_id(
        name=named["name"],
        metric_type=named["metric_type"],
        unit=named["unit"],
        temporality=named["temporality"],
        resource_attributes=values.get("resource_attributes"),
        scope_name=named["scope_name"],
        scope_version=named["scope_version"],
        scope_attributes=values.get("scope_attributes"),
        # A resource that names no service is not the one that names it "unknown_service".
        service_name=None if named["service_name"] == UNKNOWN_SERVICE else named["service_name"],
        origin={key: otlp[key] for key in _TELLING_APART if key in otlp} or None,
    )
    _compute(METRICS, prepared, computed, "is computed from the definition")
    return Row("metrics", tuple(prepared))


def prepare_data_point(row: MetricDataPoint | Mapping[str, Any]) -> Row:
    """A row of `metric_data_points`; its id, where not given, comes from attributes and start."""
    values = _given(row, MetricDataPoint)
    prepared = POINTS.prepare(values)
    start, end, least, greatest = (prepared[at] for at in _POINT_BOUNDS)
    if least is not None and greatest is not None and least > greatest:
        raise ValidationError("min", least, f"must not be greater than max={greatest!r}")
    if start is not None and start > end:
        raise ValidationError("start_timestamp", start, f"must not be after timestamp={end}")
    if prepared[_POINT_ID] is None:
        prepared[_POINT_ID] = ids.data_point_id(
            attributes=values.get("attributes"), start_timestamp=start
        )
    return Row("metric_data_points", tuple(prepared))


def prepare_log(row: LogRecord | Mapping[str, Any]) -> Row:
    """A row of `logs`; without an id it gets a random one."""
    values = _given(row, LogRecord)
    prepared = LOGS.prepare(values)
    _name_service(LOGS, prepared, values)
    if prepared[_LOG_ID] is None:
        prepared[_LOG_ID] = uuid.uuid4()
    return Row("logs", tuple(prepared))


def remember_id(row: object, prepared: Row) -> uuid.UUID | None:
    """The id that a row was given; an ORM instance that had none learns it."""
    columns = COLUMNS[prepared.table]
    if "id" not in columns:
        return None
    given: uuid.UUID = prepared.values[columns.index("id")]
    if (
        isinstance(row, (Trace, Metric, MetricDataPoint, LogRecord))
        and row.__dict__.get("id") is None
    ):
        row.id = given
    return given


_NAME, _SCOPE, _START, _START_NS, _END, _END_NS, _DURATION, _DURATION_NS = (
    SPANS.at[column]
    for column in (
        "name",
        "scope_name",
        "start_time",
        "start_ns",
        "end_time",
        "end_ns",
        "duration_us",
        "duration_ns",
    )
)
_TOKENS, _COSTS = (
    tuple(SPANS.at[f"{side}_{what}"] for side in ("prompt", "completion", "total"))
    for what in ("tokens", "cost_usd")
)
_COLUMNS: Final = COLUMNS["trace_spans"]
USAGE: Final = frozenset(_COLUMNS[at] for at in (*_TOKENS, *_COSTS))
_SPAN_KEY: Final = tuple(
    SPANS.at[column] for column in ("trace_id", "span_id", "start_time", "start_ns")
)
_EVENT_KEY: Final = tuple(EVENTS.at[column] for column in SPAN_KEY_OF_EVENT)
_POSITION: Final = EVENTS.at["position"]
_POINT_ID, *_POINT_BOUNDS = (
    POINTS.at[column] for column in ("id", "start_timestamp", "timestamp", "min", "max")
)
_LOG_ID: Final = LOGS.at["id"]


def _compute(table: RowTable, prepared: list[Any], computed: uuid.UUID, rule: str) -> None:
    at = table.at["id"]
    if prepared[at] is not None and prepared[at] != computed:
        raise ValidationError("id", prepared[at], f"{rule}: leave it out")
    prepared[at] = computed


def _name_service(table: RowTable, prepared: list[Any], values: Mapping[str, Any]) -> None:
    """Where a row does not name its service, its resource may."""
    if values.get("service_name") is None:
        service = service_of(values.get("resource_attributes") or {})
        if service is not None:
            prepared[table.at["service_name"]] = service


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
        raise ValidationError("service_name", named, str(refused)) from None


def _fill_llm_columns(prepared: list[Any], values: Mapping[str, Any]) -> None:
    found = facts(
        values.get("attributes") or {},
        name=prepared[_NAME],
        scope_name=prepared[_SCOPE],
        resource_attributes=values.get("resource_attributes") or {},
    )
    gives_usage = not USAGE.isdisjoint(values)
    if gives_usage:
        _leave_totals(found, prepared)
    for column, value in found.items():
        at = SPANS.at[column]
        if prepared[at] is None:
            prepared[at] = value
    if gives_usage:
        _add_totals(prepared)


def _leave_totals(found: dict[str, Any], prepared: list[Any]) -> None:
    """Take out a total that is but the sum of the attributes' sides: not that of the caller's."""
    for sides, add in ((_TOKENS, int.__add__), (_COSTS, _EXACT.add)):
        prompt, completion, total = sides
        if prepared[prompt] is not None or prepared[completion] is not None:
            of_prompt, of_completion, of_both = (found.get(_COLUMNS[side]) for side in sides)
            if of_both == _sum(of_prompt, of_completion, add):
                found.pop(_COLUMNS[total], None)


def _add_totals(prepared: list[Any]) -> None:
    prompt, completion, total = _TOKENS
    if prepared[total] is None:
        tokens = _sum(prepared[prompt], prepared[completion], int.__add__)
        prepared[total] = None if tokens is None or tokens > MAX_INT64 else tokens
    prompt, completion, total = _COSTS
    if prepared[total] is None:
        prepared[total] = _sum(prepared[prompt], prepared[completion], _EXACT.add)


def _sum(prompt: Any, completion: Any, add: Callable[[Any, Any], Any]) -> Any:
    """The sum of the sides that are known: zero is not unknown."""
    if prompt is None or completion is None:
        return completion if prompt is None else prompt
    return add(prompt, completion)


def _duration(start: datetime, start_ns: int, end: datetime, end_ns: int) -> tuple[int, int]:
    """The microseconds from start to end, and the nanoseconds beyond them."""
    nanoseconds = (end - start) // _MICROSECOND * 1000 + end_ns - start_ns
    if nanoseconds < 0:
        raise ValidationError("end_time", end, f"must not be before start_time={start}")
    return divmod(nanoseconds, 1000)


def _end(start: datetime, start_ns: int, took: int, took_ns: int) -> tuple[datetime, int]:
    """The end by a duration: the time, and the nanoseconds beyond its microseconds."""
    microseconds, nanoseconds = divmod(start_ns + took_ns, 1000)
    try:
        return start + (took + microseconds) * _MICROSECOND, nanoseconds
    except OverflowError:
        raise ValidationError("duration_us", took, f"ends after the year 9999: {start}") from None


def events_of(events: Sequence[Any], span: Sequence[Any]) -> tuple[tuple[Any, ...], ...]:
    """The rows of a prepared span's events.

    Raises:
        ValidationError: names the event by its place.
    """
    prepared = []
    positions = set()
    for index, event in enumerate(events):
        try:
            values = EVENTS_OF_SPANS.prepare(_given(event, TraceEvent))
        except ValidationError as error:
            place = f"events[{index}].{error.field}".removesuffix(".row")
            raise ValidationError(place, error.value, error.rule) from None
        for at, of_span in zip(_EVENT_KEY, _SPAN_KEY, strict=True):
            values[at] = span[of_span]
        if values[_POSITION] is None:
            values[_POSITION] = index
        positions.add(values[_POSITION])
        if len(positions) == index:
            rule = "must not be that of another event"
            raise ValidationError(f"events[{index}].position", values[_POSITION], rule)
        prepared.append(tuple(values))
    return tuple(prepared)
