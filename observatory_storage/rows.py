"""Rows made ready to write: checked, completed, and in the order of their table's columns.

Each table's checks are compiled once from its columns. What comes in is an ORM instance or a plain
mapping with the columns' names; what goes out is a `Row` whose values COPY takes as they are, with
JSON already encoded, so that nothing that a caller changes later changes what is written.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, Integer, Numeric, Table
from sqlalchemy import SmallInteger as Small
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage import ids, jsonb
from observatory_storage.errors import BatchError, Rejected, ValidationError
from observatory_storage.llm import facts
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

__all__ = [
    "COLUMNS",
    "UNKNOWN_SERVICE",
    "Row",
    "as_mapping",
    "prepare_data_point",
    "prepare_event",
    "prepare_log",
    "prepare_many",
    "prepare_metric",
    "prepare_span",
    "prepare_trace",
    "remember_id",
]

UNKNOWN_SERVICE: Final = "unknown_service"  # OpenTelemetry's name for a service without one

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
_MICROSECOND: Final = timedelta(microseconds=1)
_HIGHEST_COST_EXPONENT: Final = 100


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
        return _named_values(self.table, self.values) | (
            {"events": [_named_values("trace_events", event) for event in self.events]}
            if self.events
            else {}
        )


_Check = Callable[[Any], Any]


class _Refused(ValueError):
    """What a check says of a value: the rule that it breaks."""


def _text(value: Any, *, longest: int | None = None, empty: bool = True) -> str:
    if not isinstance(value, str):
        raise _Refused("must be text")
    if not value and not empty:
        raise _Refused("must not be empty")
    # A character has at most four bytes: only a long name is measured.
    if longest is not None and len(value) * 4 > longest:
        if len(value.encode("utf-8", "surrogatepass")) > longest:
            raise _Refused(f"must have at most {longest} bytes of UTF-8")
    return value


def _choice(value: Any, *, values: frozenset[str], listed: str) -> str:
    if isinstance(value, str) and value in values:
        return value
    raise _Refused(f"must be one of {listed}")


def _integer(value: Any, *, lowest: int, highest: int) -> int:
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, int)):
        raise _Refused("must be an integer")
    if not lowest <= value <= highest:
        raise _Refused(f"must be from {lowest} to {highest}")
    return int(value)


def _number(value: Any, *, lowest: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise _Refused("must be a number")
    try:
        result = float(value)
    except OverflowError:
        raise _Refused("must fit a double") from None
    if not math.isfinite(result):
        raise _Refused("must be a finite number")
    if lowest is not None and result < lowest:
        raise _Refused(f"must not be less than {lowest:g}")
    return result


def _cost(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise _Refused("must be a number")
    try:
        # A float's shortest text is what its writer meant: 0.1, not 0.1000000000000000055…
        result = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise _Refused("must be a number") from None
    if not result.is_finite() or result < 0:
        raise _Refused("must be a finite number, not negative")
    if result and abs(result.adjusted()) > _HIGHEST_COST_EXPONENT:
        raise _Refused(f"must have an exponent within {_HIGHEST_COST_EXPONENT}")
    return result


def _time(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise _Refused("must be a datetime")
    if value.tzinfo is None or value.utcoffset() is None:
        raise _Refused("must have a time zone")
    if value.year in (1, 9999):
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise _Refused("must be within the years 1 to 9999 in UTC") from None
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Refused("must be true or false")
    return value


def _json(value: Any, *, field: str, kind: type | tuple[type, ...], rule: str) -> bytes:
    if not isinstance(value, kind):
        raise _Refused(rule)
    return jsonb.encode(value if type(value) in (dict, list) else _plainer(value), field)


def _plainer(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _quantiles(value: Any, *, field: str) -> bytes:
    for item in value if isinstance(value, (list, tuple)) else ():
        q = item.get("quantile") if isinstance(item, Mapping) else None
        if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1:
            raise _Refused('must be a list of {"quantile": 0 to 1, "value": number}')
    return _json(value, field=field, kind=(list, tuple), rule="must be a list")


def _one_of(values: Iterable[str]) -> _Check:
    values = tuple(values)
    return partial(_choice, values=frozenset(values), listed=", ".join(values))


_INT64: Final = 2**63 - 1
_INDEXED_NAME = partial(_text, longest=ids.MAX_NAME_BYTES, empty=False)
_COUNT = partial(_integer, lowest=0, highest=_INT64)
_FRACTION = partial(_integer, lowest=0, highest=999)

# Checks that a column's type does not tell; "table.column" wins over "column".
_CHECKS: Final[dict[str, _Check]] = {
    "status": _one_of(STATUSES),
    "kind": _one_of(KINDS),
    "metric_type": _one_of(METRIC_TYPES),
    "temporality": _one_of(TEMPORALITIES),
    "name": _INDEXED_NAME,
    "service_name": _INDEXED_NAME,
    "model": _INDEXED_NAME,
    "user_id": _INDEXED_NAME,
    "session_id": _INDEXED_NAME,
    "span_id": ids.span_id,
    "parent_span_id": partial(ids.span_id, field="parent_span_id"),
    "trace_id": ids.trace_uuid,
    "traces.trace_id": _text,
    "start_ns": _FRACTION,
    "end_ns": _FRACTION,
    "duration_ns": _FRACTION,
    "timestamp_ns": _FRACTION,
    "span_start_ns": _FRACTION,
    "position": partial(_integer, lowest=0, highest=2**31 - 1),
    "severity_number": partial(_integer, lowest=1, highest=24),
    "trace_flags": partial(_integer, lowest=0, highest=2**32 - 1),
    "ttft_ms": partial(_number, lowest=0),
}
_DEFAULTS: Final[dict[str, Any]] = {
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


def _check_of(table: Table, column: Column[Any]) -> _Check:
    known = _CHECKS.get(f"{table.name}.{column.name}") or _CHECKS.get(column.name)
    if known is not None:
        return known
    match column.type:
        case JSONB():
            return _json_check(column)
        case UuidType():
            return partial(ids.uuid_of, field=column.name)
        case DateTime():
            return _time
        case Double():
            return _number
        case Numeric():
            return _cost
        case Boolean():
            return _flag
        case Small() | BigInteger() | Integer():
            return _COUNT
        case _:
            return _text


def _json_check(column: Column[Any]) -> _Check:
    if column.name == "body_json":
        return partial(jsonb.encode, field=column.name)
    if column.name == "quantiles":
        return partial(_quantiles, field=column.name)
    if column.name in ("links", "exemplars"):
        return partial(_json, field=column.name, kind=(list, tuple), rule="must be a list")
    return partial(_json, field=column.name, kind=Mapping, rule="must be a mapping")


class _Table(NamedTuple):
    """What preparing a row of one table needs, compiled once."""

    name: str
    model: type[Base]
    known: frozenset[str]
    columns: tuple[tuple[str, _Check, Any, bool], ...]

    def prepare(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        if not self.known.issuperset(values):
            unknown = min(set(values) - self.known)
            raise ValidationError(str(unknown), values[unknown], f"is not a column of {self.name}")
        prepared = []
        for column, check, default, required in self.columns:
            value = values.get(column)
            if value is None:
                if required:
                    raise ValidationError(column, None, f"is required in {self.name}")
                prepared.append(default)
                continue
            try:
                prepared.append(check(value))
            except _Refused as refused:
                raise ValidationError(column, value, str(refused)) from None
        return tuple(prepared)


def _compiled(model: type[Base], extra: tuple[str, ...] = ()) -> _Table:
    table = model.__table__
    assert isinstance(table, Table)
    columns = tuple(
        (
            column.name,
            _check_of(table, column),
            _DEFAULTS.get(column.name) if not column.nullable else None,
            not column.nullable and column.name not in _DEFAULTS,
        )
        for column in table.columns
        if column.name not in _OWN
    )
    return _Table(table.name, model, frozenset({*table.columns.keys(), *extra}), columns)


_TRACES: Final = _compiled(Trace)
_SPANS: Final = _compiled(TraceSpan, ("events",))
_EVENTS: Final = _compiled(TraceEvent)
_METRICS: Final = _compiled(Metric)
_POINTS: Final = _compiled(MetricDataPoint)
_LOGS: Final = _compiled(LogRecord)

# Table name -> the columns that writers give, in the order of `Row.values`.
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    table.name: tuple(column for column, *_ in table.columns)
    for table in (_TRACES, _SPANS, _EVENTS, _METRICS, _POINTS, _LOGS)
}
_JSON_COLUMNS: Final = frozenset(
    column.name
    for table in Base.metadata.tables.values()
    for column in table.columns
    if isinstance(column.type, JSONB)
)


def _named_values(table: str, values: tuple[Any, ...]) -> dict[str, Any]:
    return {
        column: jsonb.decode(value) if column in _JSON_COLUMNS else value
        for column, value in zip(COLUMNS[table], values, strict=True)
    }


def as_mapping(row: object, model: type[Base]) -> dict[str, Any]:
    """The columns that an ORM instance or a mapping gives, as a new dict.

    Raises:
        ValidationError: the row is neither a mapping nor an instance of the model.
    """
    if isinstance(row, model):
        return {key: value for key, value in row.__dict__.items() if key[0] != "_"}
    if isinstance(row, Mapping):
        return dict(row)
    raise ValidationError(
        "row", row, f"must be a {model.__name__} or a mapping with its columns' names"
    )


def prepare_trace(row: Trace | Mapping[str, Any]) -> Row:
    """A row of `traces`; its id is computed from its ``trace_id``."""
    values = as_mapping(row, Trace)
    given = values.get("trace_id")
    if given is None:
        given = values.get("id")
    if given is None:
        raise ValidationError("trace_id", None, "is required in traces")
    _computed(values, "id", ids.trace_uuid(given), "is computed from trace_id: leave it out")
    values["trace_id"] = ids.trace_text(given)
    _name_service(values)
    values["duration_us"], _ = _duration(values)
    return Row("traces", _TRACES.prepare(values))


def prepare_span(row: TraceSpan | Mapping[str, Any]) -> Row:
    """A row of `trace_spans` with those of its events; LLM columns come from its attributes."""
    values = as_mapping(row, TraceSpan)
    events = values.pop("events", None)
    given = values.get("trace_id")
    if given is not None:
        values["trace_id"] = ids.trace_uuid(given)
    _name_service(values)
    _fill_llm_columns(values)
    values["duration_us"], values["duration_ns"] = _duration(values)
    prepared = _SPANS.prepare(values)
    if events is not None:
        events = tuple(_event_of_span(event, prepared, at) for at, event in enumerate(events))
    assert given is not None  # prepare() has refused a span without a trace
    return Row("trace_spans", prepared, events, ids.trace_text(given))


def prepare_event(row: TraceEvent | Mapping[str, Any]) -> Row:
    """A row of `trace_events` by itself: it names its span, the span's start and its position."""
    return Row("trace_events", _EVENTS.prepare(as_mapping(row, TraceEvent)))


def prepare_metric(row: Metric | Mapping[str, Any]) -> Row:
    """A row of `metrics`; its id is computed from what defines it."""
    values = as_mapping(row, Metric)
    given_id = values.pop("id", None)
    _name_service(values)
    values["id"] = uuid.UUID(int=0)
    prepared = dict(zip(COLUMNS["metrics"], _METRICS.prepare(values), strict=True))
    values["id"] = given_id
    computed = ids.metric_id(
        **{
            key: values.get(key)
            for key in (
                "name",
                "metric_type",
                "unit",
                "temporality",
                "resource_attributes",
                "scope_name",
                "scope_version",
                "scope_attributes",
                "service_name",
            )
        },
        origin=_origin(values.get("otlp")),
    )
    _computed(values, "id", computed, "is computed from the definition: leave it out")
    prepared["id"] = computed
    return Row("metrics", tuple(prepared.values()))


def prepare_data_point(row: MetricDataPoint | Mapping[str, Any]) -> Row:
    """A row of `metric_data_points`; its id, where not given, comes from attributes and start."""
    values = as_mapping(row, MetricDataPoint)
    if values.get("id") is None:
        attributes, start = values.get("attributes"), values.get("start_timestamp")
        values["id"] = ids.data_point_id(
            attributes=attributes if isinstance(attributes, Mapping) else None,
            start_timestamp=start if isinstance(start, datetime) else None,
        )
    least, greatest = values.get("min"), values.get("max")
    prepared = _POINTS.prepare(values)
    if least is not None and greatest is not None and least > greatest:
        raise ValidationError("min", least, f"must not be greater than max={greatest!r}")
    start, end = values.get("start_timestamp"), values["timestamp"]
    if start is not None and start > end:
        raise ValidationError("start_timestamp", start, f"must not be after timestamp={end}")
    return Row("metric_data_points", prepared)


def prepare_log(row: LogRecord | Mapping[str, Any]) -> Row:
    """A row of `logs`; without an id it gets a random one."""
    values = as_mapping(row, LogRecord)
    if values.get("id") is None:
        values["id"] = uuid.uuid4()
    _name_service(values)
    return Row("logs", _LOGS.prepare(values))


def prepare_many(
    prepare: Callable[[Any], Row], rows: Iterable[Any]
) -> tuple[list[Row], BatchError | None]:
    """The good rows, ready to write, and one error that lists the others."""
    prepared, rejected = [], []
    for index, row in enumerate(rows):
        try:
            prepared.append(prepare(row))
        except ValidationError as error:
            rejected.append(Rejected(index, row, error))
    return prepared, BatchError(rejected) if rejected else None


def remember_id(row: object, prepared: Row) -> uuid.UUID | None:
    """The id that a row was given; an ORM instance that had none learns it."""
    columns = COLUMNS[prepared.table]
    if "id" not in columns:
        return None
    given: uuid.UUID = prepared.values[columns.index("id")]
    if isinstance(row, (Trace, Metric, MetricDataPoint, LogRecord)) and row.id is None:
        row.id = given
    return given


def _computed(values: dict[str, Any], column: str, computed: uuid.UUID, rule: str) -> None:
    given = values.get(column)
    if given is not None and ids.uuid_of(given, column) != computed:
        raise ValidationError(column, given, rule)
    values[column] = computed


def _origin(otlp: Any) -> Any:
    """What of a definition's ``otlp`` tells two of them apart: what their columns cannot hold."""
    if not isinstance(otlp, Mapping):
        return None
    telling = ("resource", "scope", "name", "temporality", "data")
    return {key: otlp[key] for key in telling if key in otlp} or None


def _name_service(values: dict[str, Any]) -> None:
    if values.get("service_name") is None:
        resource = values.get("resource_attributes")
        named = resource.get("service.name") if isinstance(resource, Mapping) else None
        values["service_name"] = named if isinstance(named, str) and named else UNKNOWN_SERVICE


def _fill_llm_columns(values: dict[str, Any]) -> None:
    attributes, resource = values.get("attributes"), values.get("resource_attributes")
    found = facts(
        attributes if isinstance(attributes, Mapping) else {},
        name=values.get("name") or "",
        scope_name=values.get("scope_name"),
        resource_attributes=resource if isinstance(resource, Mapping) else {},
    )
    for column, value in found.items():
        if values.get(column) is None:
            values[column] = value
    for total, prompt, completion in (
        ("total_tokens", "prompt_tokens", "completion_tokens"),
        ("total_cost_usd", "prompt_cost_usd", "completion_cost_usd"),
    ):
        if values.get(total) is None:
            values[total] = _sum(values.get(prompt), values.get(completion))


def _sum(left: Any, right: Any) -> int | Decimal | None:
    """The sum of the sides that are known; None where it fits no column."""
    sides = [side for side in (left, right) if isinstance(side, (int, Decimal))]
    if not sides or len(sides) < (left is not None) + (right is not None):
        return None
    total = sum(sides[1:], sides[0])
    return total if isinstance(total, Decimal) or total <= _INT64 else None


def _duration(values: dict[str, Any]) -> tuple[int | None, int]:
    start, end = values.get("start_time"), values.get("end_time")
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        return values.get("duration_us"), values.get("duration_ns") or 0
    try:
        microseconds = (_time(end) - _time(start)) // _MICROSECOND
    except _Refused:  # the column's own check says which
        return None, 0
    start_ns, end_ns = values.get("start_ns") or 0, values.get("end_ns") or 0
    if not isinstance(start_ns, int) or not isinstance(end_ns, int):
        return None, 0
    nanoseconds = microseconds * 1000 + end_ns - start_ns
    if nanoseconds < 0:
        raise ValidationError("end_time", end, f"must not be before start_time={start}")
    return divmod(nanoseconds, 1000)


_SPAN_KEY: Final = tuple(
    COLUMNS["trace_spans"].index(column)
    for column in ("trace_id", "span_id", "start_time", "start_ns")
)
_SPAN_KEY_OF_EVENT: Final = ("trace_id", "span_id", "span_start_time", "span_start_ns")


def _event_of_span(
    event: TraceEvent | Mapping[str, Any], span: tuple[Any, ...], position: int
) -> tuple[Any, ...]:
    values = as_mapping(event, TraceEvent)
    values |= {column: span[at] for column, at in zip(_SPAN_KEY_OF_EVENT, _SPAN_KEY, strict=True)}
    if values.get("position") is None:
        values["position"] = position
    return _EVENTS.prepare(values)
