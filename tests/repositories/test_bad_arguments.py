"""What makes no sense is refused by name; what only looks dangerous is taken as it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import CopyWriter, StoragePool, UnitOfWork, ValidationError
from observatory_storage.repositories import (
    LogFilters,
    MetricFilters,
    SpanFilters,
    TimeSeriesQuery,
    TraceFilters,
)
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_log,
    a_span,
    an_event,
    span_key,
    trace_key,
)

KEY = UUID(int=1)
BEFORE = START - SECOND
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - what is refused
FAR = datetime(9999, 12, 31, tzinfo=UTC)
Method = Callable[..., Any]

# Whoever asks, by the repository that is asked.
LISTS: dict[str, Callable[[UnitOfWork], Method]] = {
    "traces.list": lambda uow: uow.traces.list,
    "traces.list_spans": lambda uow: uow.traces.list_spans,
    "logs.list": lambda uow: uow.logs.list,
    "metrics.list": lambda uow: uow.metrics.list,
}
WALKS: dict[str, Callable[[UnitOfWork], Method]] = {
    "traces.iterate": lambda uow: uow.traces.iterate,
    "traces.iterate_spans": lambda uow: uow.traces.iterate_spans,
    "logs.iterate": lambda uow: uow.logs.iterate,
    "metrics.iterate": lambda uow: uow.metrics.iterate,
    "metrics.iterate_data_points": lambda uow: (
        lambda batch_size=1: uow.metrics.iterate_data_points(KEY, batch_size=batch_size)
    ),
}
RANGES: dict[str, Callable[[UnitOfWork], Method]] = {
    "get_data_points": lambda uow: lambda a, b: uow.metrics.get_data_points(KEY, a, b),
    "iterate_data_points": lambda uow: lambda a, b: uow.metrics.iterate_data_points(KEY, a, b),
    "metrics.get_stats": lambda uow: lambda a, b: uow.metrics.get_stats(KEY, a, b),
    "get_cost_summary": lambda uow: uow.metrics.get_cost_summary,
    "get_latency_percentiles": lambda uow: uow.metrics.get_latency_percentiles,
    "TraceFilters": lambda _: lambda a, b: TraceFilters(start_time=a, end_time=b),
    "SpanFilters": lambda _: lambda a, b: SpanFilters(start_time=a, end_time=b),
    "LogFilters": lambda _: lambda a, b: LogFilters(start_time=a, end_time=b),
    "TimeSeriesQuery": lambda _: lambda a, b: TimeSeriesQuery(KEY, a, b),
}
FILTERS = (TraceFilters, SpanFilters, LogFilters, MetricFilters)


@pytest.fixture
def uow(shared_pool: StoragePool) -> Iterator[UnitOfWork]:
    with shared_pool.unit_of_work() as made:
        yield made


def consume(result: Any) -> None:
    """Walk what is walked only on demand."""
    if isinstance(result, Iterator):
        next(result, None)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("limit", [-1, 0, 2**31, 1.0, "5", None, True])
def test_a_limit_is_a_number_of_rows(filters: Any, limit: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        filters(limit=limit)
    assert refused.value.field == "limit"


@pytest.mark.parametrize("limit", [-1, 0, 2**31, 1.0, "5", None, True])
def test_a_limit_of_points_is_a_number_of_rows(uow: UnitOfWork, limit: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        uow.metrics.get_data_points(KEY, limit=limit)
    assert refused.value.field == "limit"


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("size", [-1, 0, 2**31, 1.5, "5", None, False])
def test_a_batch_is_a_number_of_rows(uow: UnitOfWork, name: str, size: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        consume(WALKS[name](uow)(batch_size=size))
    assert refused.value.field == "batch_size"


@pytest.mark.parametrize("filters", FILTERS)
def test_an_unknown_filter_field_is_a_type_error(filters: Any) -> None:
    with pytest.raises(TypeError, match="servicename"):
        filters(servicename="a")


@pytest.mark.parametrize("name", [*LISTS, *(name for name in WALKS if "points" not in name)])
@pytest.mark.parametrize("other", [*FILTERS, dict, str])
def test_filters_of_another_kind_are_refused(uow: UnitOfWork, name: str, other: Any) -> None:
    own: Any = MetricFilters
    if name.startswith("traces"):
        own = SpanFilters if "spans" in name else TraceFilters
    elif name.startswith("logs"):
        own = LogFilters
    if other is own:
        return
    with pytest.raises(ValidationError, match=own.__name__) as refused:
        consume({**LISTS, **WALKS}[name](uow)(other()))
    assert refused.value.field == "filters"


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (START, BEFORE, "end_time"),
        (NAIVE, START, "start_time"),
        (START, NAIVE, "end_time"),
        ("2026-01-01", START, "start_time"),
        (START, 1.0, "end_time"),
    ],
)
def test_a_range_of_time_has_an_order_and_zones(
    uow: UnitOfWork, name: str, start: Any, end: Any, field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        consume(RANGES[name](uow)(start, end))
    assert refused.value.field == field


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(
    ("start", "end"),
    [(START, START), (datetime.min.replace(tzinfo=UTC), FAR), (FAR, FAR)],
    ids=["empty", "all", "at the end"],
)
def test_a_range_may_be_empty_or_all_of_time(
    uow: UnitOfWork, name: str, start: datetime, end: datetime
) -> None:
    if name == "TimeSeriesQuery" and start.year == 1:
        return  # whose first bucket may begin before the year 1
    consume(RANGES[name](uow)(start, end))


@pytest.mark.parametrize("name", [*LISTS, "metrics.get_data_points"])
@pytest.mark.parametrize("field", ["after", "before"])
@pytest.mark.parametrize("cursor", ["", "x", "'; DROP TABLE traces; --", "é", 5, b"x", object()])
def test_a_text_that_is_not_a_cursor_is_refused(
    uow: UnitOfWork, name: str, field: str, cursor: Any
) -> None:
    ask = LISTS[name](uow) if name in LISTS else partial(uow.metrics.get_data_points, KEY)
    with pytest.raises(ValidationError, match="cursor") as refused:
        ask(**{field: cursor})
    assert refused.value.field == field


@pytest.mark.parametrize(
    "ask",
    [
        lambda uow: uow.metrics.get("x"),
        lambda uow: uow.metrics.get_data_points(None),
        lambda uow: uow.metrics.get_latest_data_point(5),
        lambda uow: uow.metrics.get_stats(""),
        lambda uow: uow.metrics.get_by_name(None),
        lambda uow: uow.metrics.get_cost_summary(group_by=("nothing",)),
        lambda uow: uow.metrics.get_cost_summary(group_by="mode"),
        lambda uow: uow.metrics.get_cost_summary(bucket_size_secs=0),
        lambda uow: uow.metrics.get_latency_percentiles(bucket_size_secs=-5),
        lambda uow: uow.metrics.get_latency_percentiles(service_name=5),
        lambda uow: uow.metrics.query_time_series(None),
        lambda uow: uow.traces.get(""),
        lambda uow: uow.traces.get_by_trace_id(None),
        lambda uow: uow.traces.get_spans(5),
        lambda uow: uow.traces.get_span(KEY, "xyz"),
        lambda uow: uow.traces.get_events(KEY, "xyz"),
        lambda uow: uow.traces.operations(None),
        lambda uow: uow.traces.delete(None),
        lambda uow: uow.logs.get("x"),
        lambda uow: uow.logs.get(KEY, NAIVE),
        lambda uow: uow.logs.get_by_trace(""),
        lambda uow: uow.logs.search_text(" "),
        lambda uow: uow.logs.search_text(None),
        lambda uow: uow.logs.count_by_level(bucket_size_secs=float("nan")),
        lambda uow: uow.logs.tail("x"),
    ],
)
def test_an_invalid_argument_is_a_validation_error(
    uow: UnitOfWork, ask: Callable[[UnitOfWork], Any]
) -> None:
    with pytest.raises(ValidationError) as refused:
        ask(uow)
    assert refused.value.field
    assert refused.value.rule


# Wildcards, quotes, operators, paths and parameters of whatever language text may end up in.
AWKWARD = [
    "%",
    "_",
    "a%",
    "\\",
    "\\%",
    "'",
    "''",
    '"',
    "'; DROP TABLE traces; --",
    "$1",
    "%s",
    "%(name)s",
    ":name",
    "$.a",
    "a.b",
    "a->b",
    "{a}",
    "[0]",
    "*",
    "?",
    "é\u202e",
    "\N{GRINNING FACE}",
    " a ",
]


@pytest.fixture(scope="module")
def awkward(shared_pool: StoragePool) -> StoragePool:
    """A pool on rows that have each of the awkward texts wherever there is text."""
    writer = CopyWriter(shared_pool)
    spans, logs = [], []
    for number, text in enumerate(AWKWARD):
        names: Row = dict.fromkeys(
            ("name", "service_name", "model", "provider", "user_id", "session_id", "environment"),
            text,
        )
        place = ("attributes", "resource_attributes", "scope_attributes")[number % 3]
        span = a_span(number + 1, number + 1, START + number * SECOND, **names)
        span[place] = {text: text}
        span["events"] = [an_event(**{f"event {text}": text})]
        spans.append(span)
        logs.append(
            a_log(number, START + number * SECOND, service_name=text, attributes={text: text})
        )
    writer.write_spans(spans)
    writer.write_logs(logs)
    writer.write_metrics(
        [
            {"name": text, "metric_type": "gauge", "service_name": text, "unit": text}
            for text in AWKWARD
        ]
    )
    return shared_pool


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
@pytest.mark.parametrize(
    "field",
    ["service_name", "operation", "model", "provider", "user_id", "session_id", "environment"],
)
def test_an_awkward_text_matches_only_the_row_that_has_it(
    awkward: StoragePool, field: str, text: str
) -> None:
    number = AWKWARD.index(text) + 1
    asked: dict[str, Any] = {field: text}
    with awkward.unit_of_work() as uow:
        (span,) = uow.traces.list_spans(SpanFilters(**asked))
        (trace,) = uow.traces.list(TraceFilters(**asked))
        assert span.span_id == span_key(number)
        assert trace.trace_id == trace_key(number)


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_attributes_are_literal(awkward: StoragePool, text: str) -> None:
    number = AWKWARD.index(text) + 1
    with awkward.unit_of_work() as uow:
        for key in (text, f"event {text}"):
            for asked in ({key: text}, {key: text, text: text}):
                (span,) = uow.traces.list_spans(SpanFilters(attributes=asked))
                (trace,) = uow.traces.list(TraceFilters(attributes=asked))
                assert span.span_id == span_key(number)
                assert trace.trace_id == trace_key(number)
            assert not uow.traces.list_spans(SpanFilters(attributes={key: f"{text}x"}))
        (log,) = uow.logs.list(LogFilters(attributes={text: text}))
        assert log.service_name == text


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_names_are_literal(awkward: StoragePool, text: str) -> None:
    with awkward.unit_of_work() as uow:
        assert text in uow.traces.services()
        assert [one.name for one in uow.traces.operations(text)] == [text]
        (log,) = uow.logs.list(LogFilters(service_name=text))
        assert log.attributes == {text: text}
        found = uow.metrics.get_by_name(text, service_name=text)
        assert [metric.name for metric in found] == [text]
        assert len(uow.metrics.list(MetricFilters(name=text))) == len(found)
        latencies = uow.metrics.get_latency_percentiles(
            START, START + DAY, service_name=text, operation=text
        )
        assert [one.span_count for one in latencies] == [1]


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_any_text_may_be_searched_for(awkward: StoragePool, text: str) -> None:
    with awkward.unit_of_work() as uow:
        for words in (text, f"word {text} word", f'"{text}'):
            assert not uow.logs.search_text(words)
            assert not uow.logs.list(LogFilters(text=words))


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_a_series_is_grouped_by_literal_keys(awkward: StoragePool, text: str) -> None:
    with awkward.unit_of_work() as uow:
        metric_id = next(uow.metrics.iterate()).id
        CopyWriter(uow).write_data_points(
            [{"metric_id": metric_id, "timestamp": START, "value": 1.0, "attributes": {text: "a"}}]
        )
        query = TimeSeriesQuery(metric_id, START, START + DAY, "sum", 86_400, group_by=(text,))
        (point,) = uow.metrics.query_time_series(query)
        assert (dict(point.group), point.value) == ({text: "a"}, 1.0)
