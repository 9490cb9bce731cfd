"""Each rule: what breaks it is refused at once, and the error names field, value and rule."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from observatory_storage import TraceEvent, TraceSpan, ValidationError
from observatory_storage.rows import prepare_many, prepare_span
from observatory_storage.tables import TABLES
from tests.rows.samples import (
    EVENTS,
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

NAN, INFINITY = float("nan"), float("inf")
EARLIER = NOON - timedelta(microseconds=1)
LONG = "x" * 1025
WITH_ATTRIBUTES = [name for name, table in TABLES.items() if "attributes" in table.position]

HEX_16 = "must be 16 hex digits, not all zeros"
ZONE = "must have a time zone"

RULES: list[tuple[str, str, Any, str]] = [
    # Ids: hex of the right length, and not the one that W3C Trace Context declares invalid.
    *((SPANS, "span_id", value, HEX_16) for value in ("", "0" * 16, SPAN[1:], SPAN + "0")),
    *((SPANS, "span_id", value, HEX_16) for value in ("0x" + SPAN[2:], SPAN[1:] + "g", 5, b"ab")),
    (SPANS, "span_id", SPAN + "\n", HEX_16),
    (SPANS, "span_id", "e" * 15 + "\N{FULLWIDTH LATIN SMALL LETTER E}", HEX_16),
    (SPANS, "parent_span_id", "root", HEX_16),
    ("logs", "span_id", "x", HEX_16),
    (EVENTS, "span_id", "x", HEX_16),
    ("traces", "trace_id", "", "must not be empty"),
    ("traces", "trace_id", "0" * 32, "must not be all zeros"),
    (SPANS, "trace_id", "00000000-0000-0000-0000-000000000000", "must not be all zeros"),
    (SPANS, "trace_id", UUID(int=0), "must not be all zeros"),
    (SPANS, "trace_id", 7, "must be text or a UUID"),
    (SPANS, "trace_id", bytes(16), "must be text or a UUID"),
    (SPANS, "trace_id", LONG, "at most 1024 bytes"),
    # NUL becomes a character of three bytes.
    ("traces", "trace_id", "\x00" * 400, "at most 1024 bytes"),
    ("logs", "trace_id", "", "must not be empty"),
    ("logs", "id", "log-1", "must be a UUID"),
    (POINTS, "metric_id", "requests", "must be a UUID"),
    (POINTS, "metric_id", 5, "must be a UUID"),
    ("traces", "id", "hello", "must be a UUID"),
    ("traces", "id", UUID(int=1), "is computed from trace_id"),
    ("metrics", "id", UUID(int=1), "is computed from the definition"),
    # Names.
    *((table, "name", "", "must not be empty") for table in (SPANS, EVENTS, "metrics")),
    *((table, "name", LONG, "at most 1024 bytes") for table in (SPANS, EVENTS, "metrics")),
    (SPANS, "name", "é" * 513, "at most 1024 bytes"),
    (SPANS, "name", "\x00" * 342, "at most 1024 bytes"),
    (SPANS, "name", "\ud800" * 342, "at most 1024 bytes"),
    (SPANS, "name", 5, "must be text"),
    (SPANS, "name", b"chat", "must be text"),
    ("logs", "service_name", "", "must not be empty"),
    *((SPANS, column, LONG, "1024 bytes") for column in ("model", "user_id", "session_id")),
    ("logs", "body", {"a": 1}, "must be text"),
    ("metrics", "description", 5, "must be text"),
    # Words.
    (SPANS, "status", "OK", "must be one of unset, ok, error"),
    ("traces", "status", "", "must be one of unset, ok, error"),
    (SPANS, "status", 1, "must be one of unset, ok, error"),
    (SPANS, "kind", "CLIENT", "must be one of unspecified, internal, server"),
    (SPANS, "kind", ["client"], "must be one of unspecified, internal, server"),
    ("metrics", "metric_type", "sum", "must be one of gauge, counter"),
    ("metrics", "temporality", "monotonic", "must be one of unspecified, delta"),
    # Times.
    *((SPANS, column, NOON.replace(tzinfo=None), ZONE) for column in ("start_time", "end_time")),
    (EVENTS, "timestamp", NOON.replace(tzinfo=None), ZONE),
    ("logs", "timestamp", NOON.replace(tzinfo=None), ZONE),
    (POINTS, "start_timestamp", NOON.replace(tzinfo=None), ZONE),
    (SPANS, "start_time", NOON.date(), "must be a datetime"),
    (SPANS, "start_time", NOON.isoformat(), "must be a datetime"),
    ("logs", "timestamp", NOON.timestamp(), "must be a datetime"),
    (
        "logs",
        "timestamp",
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        "within the years 1 to 9999",
    ),
    (
        "logs",
        "timestamp",
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
        "within the years 1 to 9999",
    ),
    ("traces", "end_time", EARLIER, "must not be before start_time"),
    (SPANS, "end_time", EARLIER, "must not be before start_time"),
    (POINTS, "start_timestamp", NOON + timedelta(microseconds=1), "must not be after timestamp"),
    # Numbers: finite, within what their column holds, and no booleans.
    *((POINTS, "value", value, "finite") for value in (NAN, INFINITY, -INFINITY)),
    *((POINTS, column, NAN, "finite") for column in ("sum", "min", "max")),
    (POINTS, "value", Decimal("NaN"), "finite"),
    (POINTS, "value", Decimal("sNaN"), "finite"),
    (POINTS, "value", Decimal("1e400"), "finite"),
    (POINTS, "value", 10**400, "must fit a double"),
    (POINTS, "value", True, "must be a number"),
    (POINTS, "value", "1", "must be a number"),
    (POINTS, "value", 1j, "must be a number"),
    (POINTS, "count", -1, "must be from 0"),
    (POINTS, "count", 1.0, "must be an integer"),
    (POINTS, "count", MAX_INT64 + 1, "must be from 0"),
    (POINTS, "count", True, "must be an integer"),
    *((SPANS, f"{side}_tokens", -1, "from 0") for side in ("prompt", "completion", "total")),
    *((SPANS, f"{side}_cost_usd", -1, "negative") for side in ("prompt", "completion", "total")),
    (SPANS, "total_cost_usd", NAN, "finite"),
    (SPANS, "total_cost_usd", Decimal("Infinity"), "finite"),
    (SPANS, "total_cost_usd", Decimal("sNaN"), "finite"),
    (SPANS, "total_cost_usd", "a dollar", "must be a number"),
    (SPANS, "total_cost_usd", True, "must be a number"),
    (SPANS, "total_cost_usd", Decimal("1E+101"), "exponent within 100"),
    (SPANS, "total_cost_usd", Decimal("1E-101"), "exponent within 100"),
    (SPANS, "total_cost_usd", Decimal("0E-999"), "at most 200 decimals"),
    (SPANS, "total_cost_usd", "0." + "1" * 201, "at most 200 decimals"),
    (SPANS, "ttft_ms", -0.1, "must not be less than 0"),
    *((SPANS, column, 1000, "from 0 to 999") for column in ("start_ns", "end_ns", "duration_ns")),
    (SPANS, "start_ns", -1, "from 0 to 999"),
    (SPANS, "duration_us", -1, "from 0"),
    (SPANS, "duration_us", 2**62, "year 9999"),
    ("logs", "timestamp_ns", 1000, "from 0 to 999"),
    (EVENTS, "position", -1, "from 0"),
    (EVENTS, "position", 2**31, "from 0"),
    ("traces", "span_count", -1, "from 0"),
    ("logs", "severity_number", 0, "from 1 to 24"),
    ("logs", "severity_number", 25, "from 1 to 24"),
    ("logs", "severity_number", "ERROR", "must be an integer"),
    ("logs", "trace_flags", 2**32, "from 0"),
    ("traces", "lead_has_parent", 1, "must be true or false"),
    # JSON.
    *((table, "attributes", [("a", 1)], "must be a mapping") for table in WITH_ATTRIBUTES),
    (SPANS, "attributes", "{}", "must be a mapping"),
    (SPANS, "otlp", 5, "must be a mapping"),
    (SPANS, "links", {"trace_id": TRACE}, "must be a list"),
    (POINTS, "quantiles", 0.5, "must be a list"),
    (POINTS, "buckets", [1, 2], "must be a mapping"),
]
# Values of which a part breaks a rule: the column, the value, the place of the part, and the rule.
PARTS = [
    (SPANS, "links", [TRACE], "[0]", "must be a mapping"),
    (SPANS, "links", [{}, {"span_id": "root"}], "[1].span_id", "must be hex digits"),
    (POINTS, "exemplars", [{}, "x"], "[1]", "must be a mapping"),
    *(
        (POINTS, "quantiles", [{"quantile": rank, "value": 1}], "[0].quantile", "from 0 to 1")
        for rank in (1.01, -0.01, NAN, True, None)
    ),
    (POINTS, "quantiles", [{"quantile": 0.5}], "[0].value", "must be a number"),
    (POINTS, "quantiles", [{"quantile": 0.5, "value": "fast"}], "[0].value", "must be a number"),
    (POINTS, "buckets", {"bounds": [1], "counts": [1, -1]}, ".counts[1]", "an integer"),
    (POINTS, "buckets", {"counts": [1.5]}, ".counts[0]", "an integer, not negative"),
    (POINTS, "buckets", {"counts": 5}, ".counts", "must be a list"),
    (POINTS, "buckets", {"bounds": ["a"], "counts": [1, 1]}, ".bounds[0]", "must be a number"),
    (POINTS, "buckets", {"zero_count": -1}, ".zero_count", "an integer, not negative"),
    (POINTS, "buckets", {"positive": {"counts": [-1]}}, ".positive.counts[0]", "an integer"),
    (POINTS, "buckets", {"negative": []}, ".negative", "must be a mapping"),
]


@pytest.mark.parametrize(("table", "column", "value", "place", "rule"), PARTS)
def test_a_part_that_breaks_a_rule_is_refused_by_its_place(
    table: str, column: str, value: Any, place: str, rule: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        prepared(table, **{column: value})
    assert caught.value.field == column + place
    assert rule in caught.value.rule


@pytest.mark.parametrize(("table", "column", "value", "rule"), RULES)
def test_a_value_that_breaks_a_rule_is_refused(
    table: str, column: str, value: Any, rule: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        prepared(table, **{column: value})
    error = caught.value
    assert error.field == column
    assert rule in error.rule
    assert str(error).startswith(f"{column}=")
    assert error.rule in str(error)


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, row in LEAST.items() for column in row]
)
def test_a_row_must_have_the_required_columns(table: str, column: str) -> None:
    row = {key: value for key, value in LEAST[table].items() if key != column}
    for without in (row, row | {column: None}):
        with pytest.raises(ValidationError, match="is required in") as caught:
            PREPARE[table](without)
        assert caught.value.field == column


@pytest.mark.parametrize("table", LEAST)
def test_an_unknown_column_is_refused_with_the_nearest_name(table: str) -> None:
    for column in {*LEAST[table], "attributes"} & set(TABLES[table].columns):
        misspelt = column[:1] + column[2:]
        with pytest.raises(ValidationError, match=f"is not a column of {table};") as caught:
            prepared(table, **{misspelt: {}})
        assert caught.value.field == misspelt
        assert caught.value.rule.endswith(f"did you mean {column}?")


@pytest.mark.parametrize("key", ["", "\ud800", 5, None, (1, 2), "_sa_instance_state"])
def test_an_unknown_column_name_is_refused(key: Any) -> None:
    with pytest.raises(ValidationError, match=r"is not a column of logs$"):
        PREPARE["logs"]({"timestamp": NOON, key: None, 7: 7})


@pytest.mark.parametrize("table", LEAST)
@pytest.mark.parametrize("row", [None, 5, "row", [("name", "x")], object()])
def test_a_row_is_an_instance_of_its_model_or_a_mapping(table: str, row: Any) -> None:
    with pytest.raises(ValidationError, match=f"must be a {MODELS[table].__name__} or a mapping"):
        PREPARE[table](row)


def test_a_row_of_another_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be a LogRecord or a mapping"):
        PREPARE["logs"](TraceSpan(**LEAST[SPANS]))


def test_an_attribute_that_an_instance_was_given_by_mistake_is_refused() -> None:
    span = TraceSpan(**LEAST[SPANS])
    span.statsu = "ok"  # type: ignore[attr-defined]  # the mistake
    with pytest.raises(ValidationError, match=r"statsu.*did you mean status"):
        prepare_span(span)


def test_the_nanoseconds_count_when_times_are_compared() -> None:
    with pytest.raises(ValidationError, match="must not be before start_time"):
        prepared(SPANS, start_ns=2, end_time=NOON, end_ns=1)
    assert prepared(SPANS, start_ns=1, end_time=NOON, end_ns=1)["duration_us"] == 0


def test_an_invalid_fraction_is_named_rather_than_the_end_that_it_moves() -> None:
    with pytest.raises(ValidationError) as caught:
        prepared(SPANS, start_ns=5000, end_time=NOON)
    assert caught.value.field == "start_ns"


def test_times_of_one_zone_compare_across_a_change_of_its_clock() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    before = datetime(2026, 10, 25, 2, 50, tzinfo=berlin)
    after = datetime(2026, 10, 25, 2, 10, tzinfo=berlin, fold=1)
    twenty_minutes = timedelta(minutes=20) // timedelta(microseconds=1)
    for table in ("traces", SPANS):
        assert prepared(table, start_time=before, end_time=after)["duration_us"] == twenty_minutes
        with pytest.raises(ValidationError, match="must not be before start_time"):
            prepared(table, start_time=after, end_time=before)
    prepared(POINTS, start_timestamp=before, timestamp=after)
    with pytest.raises(ValidationError, match="must not be after timestamp"):
        prepared(POINTS, start_timestamp=after, timestamp=before)


def test_a_least_value_is_not_above_the_greatest() -> None:
    with pytest.raises(ValidationError, match="must not be greater than max") as caught:
        prepared(POINTS, min=2, max=Decimal("1.5"))
    assert caught.value.field == "min"
    prepared(POINTS, min=1.5, max=Decimal("1.5"))


@pytest.mark.parametrize(
    ("events", "field", "rule"),
    [
        (5, "events", "must be a list of events"),
        ("events", "events", "must be a list of events"),
        ({"name": "e"}, "events", "must be a list of events"),
        ([5], "events[0]", "must be a TraceEvent or a mapping"),
        ([{"name": "e", "timestamp": NOON}, {"timestamp": NOON}], "events[1].name", "is required"),
        ([{"name": "e"}], "events[0].timestamp", "is required"),
        ([TraceEvent(name="e", timestamp=5)], "events[0].timestamp", "must be a datetime"),
        ([{"name": "e", "timestmp": NOON}], "events[0].timestmp", "did you mean timestamp"),
        ([{"name": "e", "timestamp": NOON, "attributes": 5}], "events[0].attributes", "mapping"),
        (
            [{"name": "e", "timestamp": NOON, "position": 1}, {"name": "f", "timestamp": NOON}],
            "events[1].position",
            "must not be that of another event",
        ),
    ],
)
def test_an_event_of_a_span_is_refused_by_its_place(events: Any, field: str, rule: str) -> None:
    with pytest.raises(ValidationError) as caught:
        prepared(SPANS, events=events)
    assert caught.value.field == field
    assert rule in caught.value.rule


def test_the_error_shows_a_value_whose_own_repr_fails() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValidationError, match="must be text"):
        prepared("logs", body=deep)


def test_a_refusal_is_short_however_large_the_value() -> None:
    for value in (10**100_000, ["x" * 1000] * 100_000, "1" * 10_000_000, {"a": "b" * 10_000_000}):
        with pytest.raises(ValidationError, match="must be") as caught:
            prepared("logs", severity_number=value)
        assert len(str(caught.value)) < 300


def test_preparing_many_rows_separates_valid_and_refused_rows() -> None:
    good, bad = LEAST["logs"], {"timestamp": NOON, "severity_number": 99}
    taken, error = prepare_many(TABLES["logs"], [good, bad, good, 5])
    assert len(taken) == 2
    assert error is not None
    assert [(one.index, one.row) for one in error.rejected] == [(1, bad), (3, 5)]
    assert Counter(type(one.error) for one in error.rejected) == {ValidationError: 2}
    assert str(error).startswith("2 refused; row 1: severity_number=99: must be from 1 to 24")
    assert prepare_many(TABLES["logs"], iter([good]))[1] is None


def test_a_refused_value_is_shown_in_part() -> None:
    with pytest.raises(ValidationError) as caught:
        prepared(SPANS, name="secret " * 1000)
    assert caught.value.value == "secret " * 1000
    assert len(str(caught.value)) < 250
    assert "…" in str(caught.value)


def test_a_time_of_a_zone_without_an_offset_is_refused() -> None:
    class Nowhere(type(ZoneInfo("UTC")).__base__):  # type: ignore[misc]  # tzinfo itself
        def utcoffset(self, _: datetime | None) -> None:
            return None

    with pytest.raises(ValidationError, match=ZONE):
        prepared("logs", timestamp=datetime(2026, 1, 1, tzinfo=Nowhere()))
    assert datetime.now(UTC).utcoffset() == timedelta(0)
