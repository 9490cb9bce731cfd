"""The API as its users write it, for the type checker alone: nothing here is run.

mypy --strict reads it with the other tests: a type that changes for users is an error here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, assert_type
from uuid import UUID
from wsgiref.types import WSGIApplication

import sqlalchemy as sa
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from observatory_storage import (
    BatchError,
    CallUsage,
    CopyWriter,
    Costs,
    FlushResult,
    IndexBuild,
    IngestResult,
    LlmSpan,
    LoadedPrices,
    LogFilters,
    LoggingHook,
    LogRecord,
    LogWriter,
    Metric,
    MetricDataPoint,
    MetricFilters,
    MetricWriter,
    NotFound,
    OpenTelemetryHook,
    PostgresConfig,
    Price,
    PriceTable,
    PriceTier,
    PrometheusHook,
    RecomputedCosts,
    RefreshedFacts,
    Rejected,
    SettledUsage,
    StorageConfig,
    StorageError,
    StoragePool,
    StoreOperation,
    Trace,
    TraceEvent,
    TraceFilters,
    TraceSpan,
    TraceWriter,
    UnitOfWork,
    ValidationError,
    WriterConfig,
    bearer_token,
    build_partition_indexes,
    cost_of,
    create_app,
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
    StoragePool(config, connect=False, hooks=[PrometheusHook(), OpenTelemetryHook()]).close()
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
        pool.add_hook(LoggingHook(slow_secs=0.5))
        pool.add_hook(lambda operation: assert_type(operation, StoreOperation))
        assert_type(create_app(pool), WSGIApplication)
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
