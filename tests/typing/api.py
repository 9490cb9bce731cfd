"""The API as its users write it, for the type checker alone: nothing here is run.

mypy --strict reads it with the other tests: a type that changes for users is an error here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, assert_type
from uuid import UUID
from wsgiref.types import WSGIApplication

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from observatory_storage import (
    BatchError,
    CallUsage,
    CopyWriter,
    Costs,
    DeletedRows,
    Exists,
    FlushResult,
    IndexBuild,
    IngestResult,
    LlmSpan,
    LoadedPrices,
    LogFilters,
    LogRecord,
    LogRepository,
    LogWriter,
    Metric,
    MetricDataPoint,
    MetricFilters,
    MetricRepository,
    MetricWriter,
    Not,
    NotFound,
    OneOf,
    Page,
    PostgresConfig,
    Prefix,
    Price,
    PriceTable,
    PriceTier,
    RecomputedCosts,
    RefreshedFacts,
    Rejected,
    SessionFilters,
    SessionSummary,
    SettledUsage,
    SpanFilters,
    SpanNode,
    SpanStats,
    SpanTree,
    StorageConfig,
    StorageError,
    StoragePool,
    TimeSeriesQuery,
    Trace,
    TraceEvent,
    TraceFilters,
    TraceRepository,
    TraceSpan,
    TraceStats,
    TraceWriter,
    UnitOfWork,
    UnpricedModel,
    ValidationError,
    WriterConfig,
    bearer_token,
    build_partition_indexes,
    cost_of,
    decompress,
    export_logs,
    export_metrics,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
    load_package_prices,
    load_prices,
    otlp_app,
    recompute_costs,
)


def configuration() -> None:
    assert_type(StorageConfig.from_env(), StorageConfig)
    assert_type(StorageConfig.from_file("storage.yaml"), StorageConfig)
    config = StorageConfig(postgres=PostgresConfig(host="localhost", port=5432))
    assert_type(config.postgres.host, str)
    assert_type(config.pool.max_connections, int)


def pools(config: StorageConfig, engine: sa.Engine) -> None:
    with StoragePool(config) as pool:
        assert_type(pool, StoragePool)
    StoragePool(config, connect=False).close()
    with StoragePool.from_env() as pool, StoragePool.from_engine(engine) as other:
        assert_type(pool, StoragePool)
        assert_type(other, StoragePool)
        pool.run_migrations()
        assert_type(pool.engine, sa.Engine)
        assert_type(pool.config, StorageConfig)
        assert_type(pool.health_check().postgres.ok, bool)
        assert_type(pool.health_check().postgres.latency_ms, float)
        assert_type(pool.stats().active, int)
        assert_type(pool.stats().near_capacity, bool)
        assert_type(pool.unit_of_work(), UnitOfWork)
        assert_type(build_partition_indexes(pool, table="logs"), IndexBuild)
        assert_type(pool.settle_usage(max_traces=5), SettledUsage)
        now = datetime.now(UTC)
        assert_type(pool.refresh_facts(now, now, max_spans=5, progress=print), RefreshedFacts)
        assert_type(pool.refresh_facts().next_start, datetime | None)
        assert_type(load_prices(pool, "prices.yaml", replace=True), LoadedPrices)
        assert_type(load_package_prices(pool).left_out, tuple[str, ...])
        assert_type(recompute_costs(pool, now, now, progress=print), RecomputedCosts)
        assert_type(pool.prices.table(), PriceTable | None)
        price = Price(
            "m", {"input": Decimal(3)}, tiers=[PriceTier(9, "call", {"output": Decimal(1)})]
        )
        assert_type(cost_of(price, CallUsage(1, 2)), Costs | None)


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
    assert_type(uow.traces.get_stats(kind="client", group_by="model"), list[SpanStats])
    assert_type(uow.traces.get_spans(page[0]), list[TraceSpan])
    assert_type(uow.logs.list(min_severity="WARNING", trace_id=page[0]), Page[LogRecord])
    assert_type(uow.traces.iterate(filters), Iterator[Trace])
    assert_type(uow.traces.search_text("refund", SpanFilters(start_time=start)), Page[TraceSpan])
    trace = uow.traces.get_by_trace_id("5b8efff798038103d269b633813fc60c")
    assert_type(trace, Trace)
    assert_type(trace.id, UUID)
    assert_type(trace.total_cost_usd, Decimal | None)
    assert_type(uow.traces.get(trace_id), Trace)
    assert_type(uow.traces.get_spans(trace.id), list[TraceSpan])
    assert_type(uow.traces.get_events(trace.id), list[TraceEvent])
    assert_type(uow.traces.get_span(trace_id, "eee19b7ec3c1b174"), TraceSpan)
    spans = uow.traces.list_spans(
        SpanFilters(trace_id=trace_id, kind="client", name="x", min_tokens=1, max_cost_usd=0.5)
    )
    assert_type(spans, Page[TraceSpan])
    assert_type(uow.traces.services(), list[str])
    assert_type(uow.traces.operations("chat")[0].kind, str)
    assert_type(uow.traces.get_stats(filters).trace_count, int)
    assert_type(uow.traces.get_stats(filters, group_by=("model",)), list[SpanStats])
    assert_type(uow.traces.get_stats(SpanFilters(), group_by=[]), list[SpanStats])
    assert_type(uow.traces.get_stats(bucket_size_secs=3600)[0].error_rate, float)
    assert_type(
        uow.traces.get_stats(group_by=["status"], bucket_size_secs=86_400, time_zone="Asia/Tokyo"),
        list[SpanStats],
    )
    assert_type(uow.traces.get_stats(bucket_size_secs="month", fill="zero"), list[SpanStats])
    tree = uow.traces.get_tree(trace_id, payload=True)
    assert_type(tree.roots[0].children, tuple[SpanNode, ...])
    assert_type(tree.nodes[0].self_time_us, float | None)
    assert_type(tree.critical_path[0].node.span, TraceSpan)
    assert_type(SpanTree.of(spans), SpanTree)
    walk = uow.traces.iterate_spans(SpanFilters(trace_id=trace_id), oldest_first=True)
    assert_type(walk, Iterator[TraceSpan])
    sessions = uow.traces.list_sessions(SessionFilters(user_id="u", start_time=start))
    assert_type(sessions, Page[SessionSummary])
    assert_type(uow.traces.get_session("s").total_cost_usd, Decimal | None)
    assert_type(uow.traces.iterate_sessions(), Iterator[SessionSummary])
    assert_type(uow.traces.delete(trace_id).spans, int)
    assert_type(uow.traces.delete_user("u"), DeletedRows)
    assert_type(uow.traces.delete_session("s").logs, int)
    uow.commit()
    del rows


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
    assert_type(uow.metrics.get_by_name("latency"), list[Metric])
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
    assert_type(uow.metrics.get_unpriced_models(start, end, limit=5), list[UnpricedModel])
    assert_type(uow.metrics.get_latency_percentiles(start, end)[0].p95_us, float)


def logs(uow: UnitOfWork, trace_id: str) -> None:
    assert_type(uow.logs, LogRepository)
    filters = LogFilters(service_name="chat", min_severity=17, trace_id=trace_id, text="timeout")
    assert_type(uow.logs.list(filters), Page[LogRecord])
    assert_type(uow.logs.iterate(filters), Iterator[LogRecord])
    assert_type(uow.logs.get_by_trace(trace_id), list[LogRecord])
    assert_type(uow.logs.search_text("timeout"), Page[LogRecord])
    assert_type(uow.logs.search_text("time*", filters, order="rank"), Page[LogRecord])
    assert_type(uow.logs.count_by_level()[0].count, int)
    assert_type(uow.logs.get_stats().error_count, int)
    page = uow.logs.tail()
    assert_type(uow.logs.tail(page.next), Page[LogRecord])
    assert_type(page[0].body, str | None)


def redact(row: dict[str, Any]) -> dict[str, Any] | None:
    return None if row["name"] == "secret" else row


def on_rejected(row: Any, error: StorageError) -> None:
    print(row, error)


def writers(pool: StoragePool, now: datetime) -> None:
    config = WriterConfig(batch_size=1000, flush_interval_secs=5, redact=redact)
    with TraceWriter(pool, config) as writer:
        assert_type(writer, TraceWriter)
        event = TraceEvent(name="token", timestamp=now)
        assert_type(writer.write_trace(Trace(trace_id="order-17", start_time=now)), UUID)
        writer.write_span(TraceSpan(span_id="eee19b7ec3c1b174", name="x", events=[event]))
        writer.write_span({"span_id": "eee19b7ec3c1b174", "name": "x"})
        writer.write_spans([TraceSpan(), {"name": "x"}])
        writer.write_event(TraceEvent(position=0))
        assert_type(writer.write_span_from_llm(LlmSpan(provider="p", model="m")), TraceSpan)
        assert_type(writer.flush(), FlushResult)
        assert_type(writer.flush().committed, int)
        assert_type(writer.flush().spooled, int)
        assert_type(writer.buffer_stats().buffered, int)
        assert_type(writer.write_stats().rows, int)
    with MetricWriter(pool, WriterConfig(on_rejected=on_rejected)) as metric_writer:
        assert_type(metric_writer.write_metric(Metric(name="m")), UUID)
        metric_writer.write_metrics([Metric(), {"name": "m"}])
        metric_writer.write_data_point(MetricDataPoint(value=1))
        metric_writer.write_data_points([MetricDataPoint(), {"value": 1}])
    with LogWriter(pool) as log_writer:
        assert_type(log_writer.write_log(LogRecord(body="x")), UUID)
        log_writer.write_logs([LogRecord(), {"body": "x"}])


def copies(pool: StoragePool, uow: UnitOfWork) -> None:
    for writer in (CopyWriter(pool), CopyWriter(uow, method="insert")):
        assert_type(writer.write_traces([Trace()]), int)
        assert_type(writer.write_spans([TraceSpan(), {"name": "x"}]), int)
        assert_type(writer.write_events([TraceEvent()]), int)
        assert_type(writer.write_metrics([Metric()]), int)
        assert_type(writer.write_data_points([MetricDataPoint()]), int)
        assert_type(writer.write_logs([LogRecord()]), int)


def otlp(pool: StoragePool, payload: bytes) -> None:
    result = ingest_traces(pool, payload)
    assert_type(result, IngestResult)
    assert_type(result.accepted, int)
    assert_type(result.rejected, list[Rejected])
    assert_type(result.repaired + result.duplicates, int)
    assert_type(result.to_otlp("protobuf"), bytes)
    assert_type(decompress(payload, "gzip", max_bytes=1_000_000), bytes)
    app: WSGIApplication = otlp_app(pool, authorize=bearer_token("secret"), max_body_bytes=1_000)
    flask = Flask(__name__)
    flask.wsgi_app = DispatcherMiddleware(flask.wsgi_app, {"/otlp": app})  # type: ignore[method-assign]  # as Flask's own documentation does it
    otlp_app(pool, authorize=lambda environ: environ["REMOTE_ADDR"] == "127.0.0.1")
    otlp_app(pool, authorize="secret")  # type: ignore[arg-type]
    for request in export_traces(pool, TraceFilters(service_name="chat")):
        assert_type(ingest_traces(pool, request).accepted, int)
    for request in export_traces(pool, ["5b8efff798038103d269b633813fc60c"]):
        print(request["resourceSpans"])
    for request in export_metrics(pool, MetricFilters()):
        ingest_metrics(pool, request)
    for request in export_logs(pool, LogFilters()):
        ingest_logs(pool, request)


def errors(uow: UnitOfWork, writer: LogWriter) -> None:
    try:
        uow.traces.get_by_trace_id("order-17")
        writer.write_logs([])
    except NotFound as error:
        assert_type(error.retryable, bool)
    except ValidationError as error:
        assert_type(error.field, str)
        assert_type(error.value, object)
        assert_type(error.rule, str)
    except BatchError as error:
        assert_type(error.rejected[0].index, int)
        assert_type(error.rejected[0].error, StorageError)
