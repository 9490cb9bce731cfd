"""The same rows by INSERT and by COPY read back equal, in all six tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from observatory_storage.jsonb import clean_text
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
from observatory_storage.pool import StoragePool
from observatory_storage.rows import (
    COLUMNS,
    Row,
    prepare_data_point,
    prepare_event,
    prepare_log,
    prepare_metric,
    prepare_span,
    prepare_trace,
)
from observatory_storage.writers import CopyWriter
from observatory_storage.writers.tables import TABLES, TableWriter
from tests.writers.helpers import (
    START,
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
    contents,
    empty,
    fetch,
)

METRIC = UUID("00000000-0000-4000-8000-00000000abcd")
BERLIN = ZoneInfo("Europe/Berlin")

TEXTS = (
    "naïve café Ω≈ç√ 日本語 עברית",
    "🧪👩‍👩‍👧‍👦",
    "a\x00b",
    "lone \ud83d surrogate",
    "pair \ud83d\ude00 of surrogates",
    "quote ' double \" back\\slash \t tab \r\n line \x07 bell",
    "{NULL,\"x\"} \\N \\. %s %(a)s :name",
    " ",
)
JSON_VALUES: tuple[Any, ...] = (
    {},
    {"empty": [{}, [], "", None, {"": {}}]},
    {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "in": [{"list": math.nan}]},
    {"big": 2**64, "bigger": -(10**300), "edge": [2**63 - 1, -(2**63), 2**63]},
    {"int": 1, "float": 1.0, "true": True, "false": False, "small": 5e-324, "e": 1e15},
    {"\x00key": "\x00", "\ud800": "\udfff", 'k"ey': "null \\u0000 literally"},
    {"text": "x" * 300_000},
    {1: "number", 2.5: "float", True: "flag"},
    {"time": START, "id": METRIC, "exact": Decimal("0.1"), "tuple": (1, (2, 3))},
)


def deep(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"down": [value]}
    return value


TIMES = (
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, 12, tzinfo=timezone(timedelta(hours=5))),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=0),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN),
    datetime(2026, 6, 1, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=-11, minutes=-59))),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=3))),
)
COSTS = (
    Decimal(0),
    Decimal("0.10"),
    Decimal("123456789012345678901234567890.123456789012345678901234567890123456789"),
    Decimal("1E-90"),
    Decimal("9E+90"),
    0.1,
    "0.000000000000000000000000000000001",
    7,
)
FLOATS = (0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1, -1.5, 3, 2**60, Decimal("0.25"))


def json_rows(base: Callable[..., Any], column: str, values: Iterable[Any]) -> list[Any]:
    return [base(**{column: value}) for value in values]


def traces() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_trace(next(numbers), **columns)

    everything = row(
        end_time=START + timedelta(days=400_000),
        status_message="it broke",
        root_span_name="root",
        attributes={"a": 1},
        resource_attributes={"b": [2]},
        span_count=3,
        error_count=2,
        total_tokens=2**63 - 1,
        total_cost_usd=COSTS[2],
    )
    return [
        row(),
        everything,
        row(service_name=None, resource_attributes={"service.name": "of the resource"}),
        *(row(status=status) for status in STATUSES),
        *(row(status_message=text, root_span_name=text) for text in TEXTS),
        *({**row(), "trace_id": text} for text in (*TEXTS, "0x1", "{abc}", "Ω")),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "resource_attributes", JSON_VALUES),
        *(row(start_time=time) for time in TIMES),
        *(row(total_cost_usd=cost) for cost in COSTS),
    ]


def spans() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_span(7, next(numbers), **columns)

    everything = row(
        parent_span_id="00000000000000ff",
        kind="server",
        start_ns=999,
        end_ns=1,
        status_message="why",
        attributes={"a": 1},
        links=[{"trace_id": "0" * 31 + "1", "span_id": "0" * 15 + "1", "attributes": {}}],
        resource_attributes={"b": 1},
        scope_name="scope",
        scope_version="1.0",
        scope_attributes={"c": None},
        otlp={"state": "x"},
        provider="openai",
        model="gpt",
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=4,
        prompt_cost_usd=Decimal("0.1"),
        completion_cost_usd=Decimal("0.2"),
        total_cost_usd=Decimal("0.4"),
        ttft_ms=12.75,
        user_id="u",
        session_id="s",
        environment="test",
        events=[{"name": "e", "timestamp": START}],
    )
    return [
        row(end_time=None),
        everything,
        *(row(status=status) for status in STATUSES),
        *(row(kind=kind) for kind in KINDS),
        *(row(name=text, status_message=text, scope_name=text, user_id=text) for text in TEXTS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "otlp", JSON_VALUES),
        *json_rows(row, "links", ([], [*JSON_VALUES])),
        *(row(start_time=time, end_time=None) for time in TIMES),
        *(row(total_cost_usd=cost, prompt_cost_usd=cost) for cost in COSTS),
        *(row(ttft_ms=abs(value)) for value in FLOATS),
        *(
            row(events=[{"name": text, "timestamp": START, "attributes": {"t": text}}])
            for text in TEXTS
        ),
    ]


def events() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return an_event(8, 1, next(numbers), **columns)

    return [
        row(),
        row(span_start_ns=999, timestamp_ns=1, otlp={"dropped": 1}),
        {**row(), "position": 2**31 - 1},
        *(row(name=text) for text in TEXTS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "otlp", JSON_VALUES),
        *(row(span_start_time=time, timestamp=time) for time in TIMES),
    ]


def metrics() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_metric(f"metric {next(numbers)}", **columns)

    everything = row(
        description="what it is",
        unit="{request}",
        temporality="delta",
        attributes={"a": 1},
        resource_attributes={"b": 1},
        scope_name="scope",
        scope_version="1",
        scope_attributes={"c": 1},
        otlp={"resource": {"schema_url": "x"}},
    )
    return [
        row(),
        everything,
        *(row(metric_type=kind) for kind in METRIC_TYPES),
        *(row(temporality=temporality) for temporality in TEMPORALITIES),
        *(row(description=text, unit=text, scope_version=text) for text in TEXTS),
        *({**row(), "name": text} for text in TEXTS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "resource_attributes", JSON_VALUES),
        *json_rows(row, "otlp", JSON_VALUES),
    ]


def points() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        return a_point(METRIC, next(numbers), **columns)

    everything = row(
        start_timestamp=START,
        count=2**63 - 1,
        sum=-0.5,
        min=-1e300,
        max=1e300,
        buckets={"bounds": [0.5, 1], "counts": [1, 2, 3]},
        quantiles=[{"quantile": 0, "value": 1}, {"quantile": 1, "value": 2.5}],
        exemplars=[{"value": 1}],
        attributes={"a": 1},
        otlp={"flags": 1},
    )
    return [
        row(value=None),
        everything,
        *(row(value=value, sum=value, min=value, max=value) for value in FLOATS),
        *json_rows(row, "attributes", (*JSON_VALUES, deep(200))),
        *json_rows(row, "buckets", JSON_VALUES),
        *json_rows(row, "exemplars", ([], [*JSON_VALUES])),
        *json_rows(row, "otlp", JSON_VALUES),
        *(row(timestamp=time) for time in TIMES),
    ]


def logs() -> list[Any]:
    numbers = iter(range(1, 10_000))

    def row(**columns: Any) -> Any:
        number = next(numbers)
        return a_log(number, id=UUID(int=number), **columns)

    everything = row(
        timestamp_ns=999,
        observed_timestamp=START,
        severity_number=24,
        severity_text="FATAL4",
        body_json={"a": [1, 1.0]},
        event_name="event",
        trace_id="any text",
        span_id="00000000000000ff",
        trace_flags=2**32 - 1,
        attributes={"a": 1},
        resource_attributes={"b": 1},
        scope_name="scope",
        scope_version="1",
        scope_attributes={"c": 1},
        otlp={"x": 1},
    )
    return [
        row(body=None),
        everything,
        row(body="word " * 400_000),
        row(body=""),
        *(row(severity_number=number) for number in range(1, 25)),
        *(row(body=text, severity_text=text, event_name=text) for text in TEXTS),
        *json_rows(row, "body_json", (*JSON_VALUES, deep(200), *TEXTS, 1, 1.5, True, [], 2**70)),
        *json_rows(row, "attributes", JSON_VALUES),
        *(row(timestamp=time, observed_timestamp=time) for time in TIMES),
    ]


CASES: dict[str, tuple[type[Base], Callable[[], list[Any]], str, Callable[[Any], Row]]] = {
    "traces": (Trace, traces, "write_traces", prepare_trace),
    "trace_spans": (TraceSpan, spans, "write_spans", prepare_span),
    "trace_events": (TraceEvent, events, "write_events", prepare_event),
    "metrics": (Metric, metrics, "write_metrics", prepare_metric),
    "metric_data_points": (MetricDataPoint, points, "write_data_points", prepare_data_point),
    "logs": (LogRecord, logs, "write_logs", prepare_log),
}


@pytest.mark.parametrize("table", CASES)
def test_the_same_rows_by_either_method_read_back_equal(pool: StoragePool, table: str) -> None:
    model, make, write, prepare = CASES[table]
    rows = make()
    found = {}
    for method in ("insert", "copy"):
        # Small batches go another way by INSERT than large ones.
        for size in (len(rows), 40):
            for start in range(0, len(rows), size):
                writer = CopyWriter(pool, method=method_named(method))
                batch = rows[start : start + size]
                assert getattr(writer, write)(batch) == len(batch)
            found[method, size] = contents(pool, times_of_writing=False)
            if (method, size) != ("copy", 40):
                empty(pool)
    assert len(found["insert", 40][table]) == len(rows)
    first = found["insert", 40]
    assert all(other == first for other in found.values())
    key = TABLES[table].key
    stored = {tuple(row[column] for column in key): row for row in fetch(pool, model)}
    for row in rows:
        expected = expected_row(table, prepare(row))
        got = stored[tuple(expected[column] for column in key)]
        assert {column: got[column] for column in COLUMNS[table]} == expected


def method_named(name: str) -> Literal["insert", "copy"]:
    return "insert" if name == "insert" else "copy"


def expected_row(table: str, prepared: Row) -> dict[str, Any]:
    """What a reader should find: JSON decoded, text repaired."""
    columns = TABLES[table].table.c
    expected = {}
    for column, value in zip(COLUMNS[table], prepared.values, strict=True):
        if isinstance(value, bytes):
            expected[column] = json.loads(value[1:])
        else:
            expected[column] = clean_text(value) if isinstance(value, str) else value
        assert value is not None or columns[column].nullable
    return expected


@pytest.mark.parametrize("table", CASES)
def test_the_awkward_rows_leave_every_nullable_column_null_and_fill_every_column(
    table: str,
) -> None:
    _, make, _, prepare = CASES[table]
    prepared = [prepare(row).values for row in make()]
    for column, values in zip(COLUMNS[table], zip(*prepared, strict=True), strict=True):
        assert any(value is not None for value in values), column
        if TABLES[table].table.c[column].nullable:
            assert any(value is None for value in values), column


@pytest.mark.parametrize("method", ["insert", "copy"])
def test_integers_and_floats_stay_apart(
    pool: StoragePool, method: Literal["insert", "copy"]
) -> None:
    attributes = {"int": 1, "float": 1.0, "big": 2**70, "bool": True}
    CopyWriter(pool, method=method).write_logs([a_log(attributes=attributes)])
    (row,) = fetch(pool, LogRecord)
    assert {key: type(value) for key, value in row["attributes"].items()} == {
        key: type(value) for key, value in attributes.items()
    }


@pytest.mark.parametrize("writer", TABLES.values(), ids=TABLES)
def test_types_for_copy_are_those_of_the_catalog(pool: StoragePool, writer: TableWriter) -> None:
    with pool.engine.connect() as connection:
        catalog = {
            name: (kind, default)
            for name, kind, default in connection.exec_driver_sql(
                "SELECT attname, format_type(atttypid, atttypmod), atthasdef FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (f"{pool.schema}.{writer.name}",),
            )
        }
    types = dict(zip(writer.columns, writer.types, strict=True))
    assert len(types) == len(writer.types)
    for column, kind in types.items():
        # jsonb goes as the bytes of its binary format.
        assert kind == {"jsonb": "bytea"}.get(catalog[column][0], catalog[column][0]), column
    # What a writer does not give has a default, or is NULL.
    missing = catalog.keys() - types.keys()
    own = {"created_at", "updated_at", "last_span_start"}
    assert missing - own <= {"lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id"}
    assert {column for column in missing if catalog[column][1]} == missing & {
        "created_at",
        "updated_at",
    }


@pytest.mark.parametrize("rows", [1, 7, 8, 100, 101])
def test_auto_takes_all_rows_whatever_their_number(pool: StoragePool, rows: int) -> None:
    assert CopyWriter(pool).write_logs([a_log(n) for n in range(rows)]) == rows
    assert len(fetch(pool, LogRecord)) == rows
