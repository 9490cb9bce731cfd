"""What is read, as users write it, for the type checker alone: see `api`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, assert_type
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import (
    DeletedRows,
    Exists,
    LogFilters,
    LogRecord,
    LogRepository,
    Metric,
    MetricDataPoint,
    MetricFilters,
    MetricRepository,
    Not,
    OneOf,
    Page,
    Prefix,
    ResultList,
    ResultStream,
    SessionFilters,
    SessionSummary,
    SpanFilters,
    SpanNode,
    SpanStats,
    SpanTree,
    TimeSeriesQuery,
    Trace,
    TraceEvent,
    TraceFilters,
    TraceRepository,
    TraceSpan,
    TraceStats,
    UnitOfWork,
    UnpricedModel,
)


def traces(uow: UnitOfWork, start: datetime, end: datetime, trace_id: str | UUID) -> None:
    assert_type(uow.session, Session)
    assert_type(uow.traces, TraceRepository)
    assert_type(TraceFilters.parse("service:chat", limit=5), TraceFilters)
    TraceFilters(
        service_name=["chat", "search"],
        operation=OneOf("ask", Prefix("GET ")),
        status=("ok", "unset"),
        model=Not("m", "n"),
        user_id={"u"},
        session_id=Not(Exists()),
        gen_ai_operation="chat",
        agent_name=Prefix("plan"),
        attributes={"a": OneOf(1, "x"), "b": Not(True), "c": 1},
        root=True,
        ended_after=start,
        ended_before=end,
    )
    SpanFilters(trace_id=[trace_id, UUID(int=1)], kind=Not("client"))
    uow.traces.list(service_name=Prefix("chat"), order_by="-duration_us")
    uow.traces.list_spans(order_by="total_cost_usd", start_time=start, end_time=end)
    uow.traces.list(order_by="duration")  # type: ignore[arg-type]  # what is tried here
    filters = TraceFilters(
        service_name="chat",
        operation="ask",
        status="error",
        start_time=start,
        end_time=end,
        min_duration_us=1,
        max_duration_us=1.5,
        attributes={"a": 1, "b": 1.5, "c": "x", "d": True},
        provider="p",
        model="m",
        user_id="u",
        session_id="s",
        environment="prod",
        min_tokens=1,
        max_tokens=2,
        min_cost_usd=0.5,
        max_cost_usd=Decimal(1),
        text="refund policy",
        limit=50,
    )
    page = uow.traces.list(filters)
    assert_type(page, Page[Trace])
    assert_type(page[0], Trace)
    assert_type(page.next, str | None)
    assert_type(page.previous, str | None)
    rows: Sequence[Trace] = page
    assert_type(uow.traces.list(filters, after=page.next), Page[Trace])
    assert_type(uow.traces.list(service_name="chat", limit=5), Page[Trace])
    uow.traces.list(servicename="chat")  # type: ignore[call-arg]  # what users are told
    uow.traces.list(service_name=5)  # type: ignore[arg-type]  # what users are told
    assert_type(uow.traces.get_stats(model="m"), TraceStats)
    assert_type(uow.traces.get_stats(kind="client", group_by="model"), ResultList[SpanStats])
    assert_type(uow.traces.get_spans(page[0]), ResultList[TraceSpan])
    assert_type(uow.logs.list(min_severity="WARNING", trace_id=page[0]), Page[LogRecord])
    assert_type(uow.traces.iterate(filters), ResultStream[Trace])
    assert_type(uow.traces.search_text("refund", SpanFilters(start_time=start)), Page[TraceSpan])
    trace = uow.traces.get_by_trace_id("5b8efff798038103d269b633813fc60c")
    assert_type(trace, Trace)
    assert_type(trace.id, UUID)
    assert_type(trace.total_cost_usd, Decimal | None)
    assert_type(uow.traces.get(trace_id), Trace)
    assert_type(uow.traces.get_spans(trace.id), ResultList[TraceSpan])
    assert_type(uow.traces.get_events(trace.id), ResultList[TraceEvent])
    assert_type(uow.traces.get_span(trace_id, "eee19b7ec3c1b174"), TraceSpan)
    spans = uow.traces.list_spans(
        SpanFilters(trace_id=trace_id, kind="client", name="x", min_tokens=1, max_cost_usd=0.5)
    )
    assert_type(spans, Page[TraceSpan])
    assert_type(uow.traces.services(), list[str])
    assert_type(uow.traces.operations("chat")[0].kind, str)
    assert_type(uow.traces.get_stats(filters).trace_count, int)
    assert_type(uow.traces.get_stats(filters, group_by=("model",)), ResultList[SpanStats])
    assert_type(uow.traces.get_stats(SpanFilters(), group_by=[]), ResultList[SpanStats])
    assert_type(uow.traces.get_stats(bucket_size_secs=3600)[0].error_rate, float)
    assert_type(
        uow.traces.get_stats(group_by=["status"], bucket_size_secs=86_400, time_zone="Asia/Tokyo"),
        ResultList[SpanStats],
    )
    assert_type(uow.traces.get_stats(bucket_size_secs="month", fill="zero"), ResultList[SpanStats])
    tree = uow.traces.get_tree(trace_id, payload=True)
    assert_type(tree.roots[0].children, tuple[SpanNode, ...])
    assert_type(tree.nodes[0].self_time_us, float | None)
    assert_type(tree.critical_path[0].node.span, TraceSpan)
    assert_type(SpanTree.of(spans), SpanTree)
    walk = uow.traces.iterate_spans(SpanFilters(trace_id=trace_id), oldest_first=True)
    assert_type(walk, ResultStream[TraceSpan])
    sessions = uow.traces.list_sessions(SessionFilters(user_id="u", start_time=start))
    assert_type(sessions, Page[SessionSummary])
    assert_type(uow.traces.get_session("s").total_cost_usd, Decimal | None)
    assert_type(uow.traces.iterate_sessions(), ResultStream[SessionSummary])
    assert_type(uow.traces.delete(trace_id).spans, int)
    assert_type(uow.traces.delete_user("u"), DeletedRows)
    assert_type(uow.traces.delete_session("s").logs, int)
    uow.commit()
    of_trace: list[TraceSpan] = uow.traces.get_spans(trace_id)
    every: Iterator[TraceSpan] = uow.traces.iterate_spans()
    del rows, of_trace, every


def rows(trace: Trace, span: TraceSpan, metric: Metric, point: MetricDataPoint) -> None:
    assert_type(trace.status, Literal["unset", "ok", "error"])
    assert_type(
        span.kind, Literal["unspecified", "internal", "server", "client", "producer", "consumer"]
    )
    assert_type(metric.temporality, Literal["unspecified", "delta", "cumulative"] | None)
    if metric.metric_type == "updowncounter":
        print(metric.name)
    trace.status_message = "looked into"
    span.statsu = "ok"  # type: ignore[attr-defined]  # a mistake is seen
    trace.status = "failed"  # type: ignore[assignment]  # and so is this one
    assert_type(trace.spans, list[TraceSpan])
    assert_type(trace.logs, list[LogRecord])
    assert_type(span.trace, Trace | None)
    assert_type(span.events, list[TraceEvent])
    assert_type(metric.points, list[MetricDataPoint])
    assert_type(point.metric, Metric | None)
    joined = sa.select(Trace.trace_id, TraceSpan.name).join(Trace.spans).join(TraceSpan.events)
    assert_type(joined, sa.Select[str, str])
    assert_type(span["name"], Any)
    assert_type(dict(span), dict[str, Any])
    assert_type(span.to_dict(json=True), dict[str, Any])
    assert_type(Page((trace,)).to_dict(), dict[str, Any])


def metrics(uow: UnitOfWork, start: datetime, end: datetime, metric_id: UUID) -> None:
    assert_type(uow.metrics, MetricRepository)
    assert_type(uow.metrics.get(metric_id), Metric)
    assert_type(uow.metrics.get_by_name("latency"), ResultList[Metric])
    assert_type(uow.metrics.list(MetricFilters(name="latency", limit=5)), Page[Metric])
    assert_type(uow.metrics.list(total="exact").total, int | None)
    assert_type(uow.metrics.get_data_points(metric_id, total="estimated").total, int | None)
    assert_type(uow.metrics.get_data_points(metric_id, start, end), Page[MetricDataPoint])
    assert_type(uow.metrics.get_latest_data_point(metric_id), MetricDataPoint | None)
    query = TimeSeriesQuery(metric_id, start, end, "p95", 60, ("host",), fill="previous")
    assert_type(uow.metrics.query_time_series(query)[0].value, float | None)
    TimeSeriesQuery(metric_id, start, end, bucket_size_secs="week", time_zone="Asia/Tokyo")
    named = uow.metrics.query_time_series(name="latency", start_time=start, end_time=end)
    assert_type(named[0].group["host"], Any)
    assert_type(TimeSeriesQuery(name="latency", start_time=start, end_time=end).end_time, datetime)
    assert_type(uow.metrics.get_stats(metric_id).point_count, int)
    assert_type(uow.metrics.get_cost_summary(start, end)[0].total_cost_usd, Decimal | None)
    assert_type(uow.metrics.get_unpriced_models(start, end, limit=5), ResultList[UnpricedModel])
    assert_type(uow.metrics.get_latency_percentiles(start, end)[0].p95_us, float)


def logs(uow: UnitOfWork, trace_id: str) -> None:
    assert_type(uow.logs, LogRepository)
    filters = LogFilters(service_name="chat", min_severity=17, trace_id=trace_id, text="timeout")
    assert_type(uow.logs.list(filters), Page[LogRecord])
    assert_type(uow.logs.iterate(filters), ResultStream[LogRecord])
    assert_type(uow.logs.get_by_trace(trace_id), ResultList[LogRecord])
    assert_type(uow.logs.search_text("timeout"), Page[LogRecord])
    assert_type(uow.logs.search_text("time*", filters, order="rank"), Page[LogRecord])
    assert_type(uow.logs.count_by_level()[0].count, int)
    assert_type(uow.logs.get_stats().error_count, int)
    page = uow.logs.tail()
    assert_type(uow.logs.tail(page.next), Page[LogRecord])
    assert_type(page[0].body, str | None)
