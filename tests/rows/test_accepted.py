"""The extremes that are valid, and the forms in which rows and their values may be given."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import LogRecord, Metric, MetricDataPoint, Trace, TraceSpan, ids
from observatory_storage.models import KINDS, METRIC_TYPES, STATUSES, TEMPORALITIES
from observatory_storage.rows import (
    as_mapping,
    prepare_data_point,
    prepare_log,
    prepare_metric,
    prepare_span,
    prepare_trace,
    remember_id,
)
from observatory_storage.tables import TABLES
from tests.rows.samples import (
    EVENTS,
    FIRST,
    LAST,
    LEAST,
    MAX_INT64,
    MODELS,
    NOON,
    POINTS,
    PREPARE,
    SPAN,
    SPANS,
    TRACE,
    prepared,
)

LARGEST = 1.7976931348623157e308


class Word(str, enum.Enum):  # noqa: UP042 - as older programs write it
    OK = "ok"
    CHAT = "chat"


class Level(enum.IntEnum):
    ERROR = 17


class Moment(datetime):
    """A class of its own, as pandas and pendulum have."""


class OwnUuid(UUID):
    """A class of its own, as asyncpg has."""


SAME = object()
BODIES: list[Any] = [False, 0, "", [], {}, [None], 1.5]
EXTREMES: list[tuple[str, str, Any, Any]] = [
    (SPANS, "span_id", "0" * 15 + "1", SAME),
    (SPANS, "span_id", SPAN.upper(), SPAN),
    (SPANS, "parent_span_id", "F" * 16, "f" * 16),
    (SPANS, "trace_id", "f" * 32, UUID(int=2**128 - 1)),
    (SPANS, "trace_id", UUID(int=1), SAME),
    (SPANS, "trace_id", OwnUuid(int=1), UUID(int=1)),
    ("traces", "trace_id", "é" * 512, SAME),
    ("logs", "id", UUID(int=0), SAME),
    *((table, "name", "x" * 1024, SAME) for table in (SPANS, EVENTS, "metrics")),
    (SPANS, "name", "\N{GRINNING FACE}" * 256, SAME),
    (SPANS, "name", "\x00" * 341, SAME),
    (SPANS, "name", " ", SAME),
    (SPANS, "name", Word.CHAT, "chat"),
    (SPANS, "status_message", "", SAME),
    (SPANS, "environment", "x" * 5000, SAME),
    ("logs", "body", "", SAME),
    *(("traces", "status", status, SAME) for status in STATUSES),
    (SPANS, "status", Word.OK, "ok"),
    *((SPANS, "kind", kind, SAME) for kind in KINDS),
    *(("metrics", "metric_type", kind, SAME) for kind in METRIC_TYPES),
    *(("metrics", "temporality", temporality, SAME) for temporality in TEMPORALITIES),
    ("logs", "timestamp", FIRST, SAME),
    ("logs", "timestamp", LAST, SAME),
    ("logs", "timestamp", FIRST.replace(tzinfo=timezone(-timedelta(hours=5))), SAME),
    ("logs", "timestamp", Moment(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    (SPANS, "end_time", NOON, SAME),
    (POINTS, "start_timestamp", NOON, SAME),
    *((POINTS, "value", number, SAME) for number in (LARGEST, -LARGEST, 5e-324, 0.0)),
    (POINTS, "value", 2**53 + 1, float(2**53)),
    (POINTS, "sum", Decimal("-0.1"), -0.1),
    (POINTS, "count", MAX_INT64, SAME),
    (POINTS, "count", 0, SAME),
    (SPANS, "total_tokens", 0, SAME),
    (SPANS, "total_tokens", MAX_INT64, SAME),
    (SPANS, "total_cost_usd", 0.1, Decimal("0.1")),
    (SPANS, "total_cost_usd", "0.10", Decimal("0.10")),
    (SPANS, "total_cost_usd", 3, Decimal(3)),
    (SPANS, "total_cost_usd", Decimal("1E-100"), SAME),
    (SPANS, "total_cost_usd", Decimal("1E+100"), SAME),
    (SPANS, "total_cost_usd", -0.0, Decimal(0)),
    (SPANS, "ttft_ms", 0, 0.0),
    (SPANS, "start_ns", 999, SAME),
    (EVENTS, "position", 2**31 - 1, SAME),
    ("logs", "severity_number", 1, SAME),
    ("logs", "severity_number", 24, SAME),
    ("logs", "severity_number", Level.ERROR, 17),
    ("logs", "trace_flags", 2**32 - 1, SAME),
    *(("logs", "body_json", body, SAME) for body in BODIES),
    (SPANS, "attributes", OrderedDict(a=1), {"a": 1}),
    (SPANS, "attributes", MappingProxyType({"a": 1}), {"a": 1}),
    (SPANS, "attributes", {"a": (1, 2)}, {"a": [1, 2]}),
    (SPANS, "links", (), []),
    (SPANS, "links", ({"trace_id": TRACE, "span_id": SPAN, "attributes": {}},), None),
    (SPANS, "links", [{"trace_id": "", "span_id": ""}], SAME),
    (POINTS, "quantiles", [{"quantile": 0, "value": 1}, {"quantile": 1.0, "value": "NaN"}], SAME),
    (POINTS, "buckets", {"bounds": [], "counts": []}, SAME),
    (POINTS, "buckets", {"bounds": [0.5, "Infinity"], "counts": [0, 2**64 - 1, 1]}, SAME),
    (POINTS, "buckets", {"scale": -2, "zero_count": 0, "positive": {"counts": [1]}}, SAME),
]


@pytest.mark.parametrize(("table", "column", "value", "expected"), EXTREMES)
def test_valid_values_are_accepted(table: str, column: str, value: Any, expected: Any) -> None:
    if expected is SAME:
        expected = value
    elif expected is None:
        expected = list(value)
    taken = prepared(table, **{column: value})[column]
    assert taken == expected
    # The driver knows Python's own types: an enumeration, say, it would write by its name.
    assert type(taken) in {str, int, float, bool, UUID, Decimal, datetime, dict, list}


@pytest.mark.parametrize("table", LEAST)
def test_an_instance_is_prepared_as_its_mapping(table: str) -> None:
    # The ids of these are computed; those of the others would be random.
    gives_id = "id" in TABLES[table].position and table not in ("traces", "metrics")
    row = LEAST[table] | ({"id": TRACE} if gives_id else {})
    instance = MODELS[table](**row)
    assert PREPARE[table](instance) == PREPARE[table](row) == PREPARE[table](OrderedDict(row))
    assert as_mapping(instance, MODELS[table]) == row


def test_given_values_stay_unchanged() -> None:
    attributes = {"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 1}
    row = {**LEAST[SPANS], "attributes": attributes, "events": [{"name": "e", "timestamp": NOON}]}
    before = json.dumps(row, default=str)
    first = prepare_span(row)
    assert json.dumps(row, default=str) == before
    attributes["later"] = 1
    row["events"].clear()
    assert first.as_dict()["attributes"] == {
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 1,
    }
    assert len(first.events or ()) == 1
    span = TraceSpan(**LEAST[SPANS])
    prepare_span(span)
    assert span.service_name is None


def test_times_become_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    row = prepared(SPANS, start_time=NOON.astimezone(tokyo), end_time=NOON.astimezone(tokyo))
    assert row["start_time"] == NOON
    assert row["start_time"].tzinfo is UTC
    assert row["end_time"].tzinfo is UTC


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (TRACE.upper(), TRACE),
        (UUID(TRACE), TRACE),
        (str(UUID(TRACE)), str(UUID(TRACE))),
        ("order-17", "order-17"),
        ("Ärger", "Ärger"),
    ],
)
def test_a_trace_is_found_by_every_form_of_its_id(given: str | UUID, text: str) -> None:
    trace = prepare_trace({"trace_id": given, "start_time": NOON}).as_dict()
    span = prepare_span({**LEAST[SPANS], "trace_id": given})
    assert trace["id"] == span.as_dict()["trace_id"] == ids.trace_uuid(given)
    assert trace["trace_id"] == span.trace_text == text


def test_a_trace_may_be_named_by_its_id_alone() -> None:
    trace = prepare_trace({"id": UUID(TRACE), "start_time": NOON}).as_dict()
    assert (trace["id"], trace["trace_id"]) == (UUID(TRACE), TRACE)
    again = prepare_trace({"id": trace["id"], "trace_id": TRACE, "start_time": NOON}).as_dict()
    assert again == trace


def test_preparing_a_row_again_gives_the_same_computed_id() -> None:
    metric, point = prepare_metric(LEAST["metrics"]), prepare_data_point(LEAST[POINTS])
    assert metric == prepare_metric(LEAST["metrics"])
    assert prepare_metric(metric.as_dict()).as_dict() == metric.as_dict()
    assert point == prepare_data_point(LEAST[POINTS])
    assert prepared(POINTS, id=UUID(int=5))["id"] == UUID(int=5)
    assert prepare_log(LEAST["logs"]) != prepare_log(LEAST["logs"])
    assert prepared("logs", id=str(UUID(int=5)))["id"] == UUID(int=5)


@pytest.mark.parametrize("model", [Trace, Metric, MetricDataPoint, LogRecord])
def test_an_instance_learns_its_id(model: type[Any]) -> None:
    table = model.__tablename__
    instance = model(**LEAST[table])
    row = PREPARE[table](instance)
    assert remember_id(instance, row) == instance.id == row.as_dict()["id"]
    assert PREPARE[table](instance).as_dict()["id"] == instance.id
    assert remember_id(TraceSpan(), prepare_span(LEAST[SPANS])) is None


class _Rows(Mapping[str, Any]):
    """A mapping that is no dict, as a row of a database driver is."""

    def __getitem__(self, key: str) -> Any:
        return LEAST["logs"][key]

    def __iter__(self) -> Iterator[str]:
        return iter(LEAST["logs"])

    def __len__(self) -> int:
        return len(LEAST["logs"])


def test_any_mapping_is_a_row() -> None:
    assert prepare_log(_Rows()).as_dict()["timestamp"] == NOON
