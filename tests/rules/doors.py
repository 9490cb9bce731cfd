"""Every way by which spans, logs and points come into the database, as one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from observatory_storage import ids, ingest_logs, ingest_metrics, ingest_traces
from observatory_storage.config import PoolConfig, PostgresConfig, RulesConfig, StorageConfig
from observatory_storage.llm import LlmSpan
from observatory_storage.models import LogRecord, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter, LogWriter, MetricWriter, TraceWriter
from tests.writers.helpers import START, a_log, a_metric, a_point, a_span, contents

MAIL = r"[\w.]+@[\w.]+\.org"
SECRET = "alice.b@example.org"

Attributes = Mapping[str, Any]
NANOSECONDS = str(int(START.timestamp()) * 10**9)


@contextmanager
def pool_with(url: str, **rules: Any) -> Iterator[StoragePool]:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(url),
        pool=PoolConfig(min_connections=0),
        rules=RulesConfig(**rules),
    )
    with StoragePool(config) as pool:
        yield pool


def any_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case list():
            return {"arrayValue": {"values": [any_value(item) for item in value]}}
        case dict():
            return {"kvlistValue": {"values": pairs(value)}}
        case _:
            return {"stringValue": value}


def pairs(values: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def request(
    kind: str, scoped: str, items: str, *given: Mapping[str, Any], scope: str = "tests"
) -> Any:
    group = {"scope": {"name": scope}, items: list(given)}
    resource = {"attributes": pairs({"service.name": "shop"})}
    return {kind: [{"resource": resource, scoped: [group]}]}


def otlp_span(number: int = 1, name: str = "operation", **attributes: Any) -> dict[str, Any]:
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": name,
        "startTimeUnixNano": NANOSECONDS,
        "endTimeUnixNano": NANOSECONDS,
        "attributes": pairs(attributes),
    }


def span_request(*spans: Mapping[str, Any], scope: str = "tests") -> Any:
    return request("resourceSpans", "scopeSpans", "spans", *spans, scope=scope)


def one_by_one(pool: StoragePool, attributes: Attributes) -> None:
    with TraceWriter(pool) as writer:
        writer.write_span(a_span(attributes=attributes))


def instance(pool: StoragePool, attributes: Attributes) -> None:
    with TraceWriter(pool) as writer:
        writer.write_span(TraceSpan(**a_span(attributes=attributes)))


def as_a_list(pool: StoragePool, attributes: Attributes) -> None:
    with TraceWriter(pool) as writer:
        writer.write_spans([a_span(1, n, attributes=attributes) for n in range(1, 20)])


def copied(pool: StoragePool, attributes: Attributes) -> None:
    CopyWriter(pool).write_spans([a_span(attributes=attributes)])


def streamed(pool: StoragePool, attributes: Attributes) -> None:
    CopyWriter(pool).write_spans([a_span(1, n, attributes=attributes) for n in range(1, 151)])


def within_a_unit_of_work(pool: StoragePool, attributes: Attributes) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(attributes=attributes)])
        uow.commit()


def model_call(pool: StoragePool, attributes: Attributes) -> None:
    with TraceWriter(pool) as writer:
        writer.write_span_from_llm(LlmSpan(model="m", attributes=attributes))


def ingested(pool: StoragePool, attributes: Attributes) -> None:
    assert ingest_traces(pool, span_request(otlp_span(**attributes))).accepted == 1


def ingested_in_bulk(pool: StoragePool, attributes: Attributes) -> None:
    spans = [otlp_span(number, **attributes) for number in range(1, 151)]
    assert ingest_traces(pool, span_request(*spans)).accepted == 150


SPAN_DOORS: dict[str, Callable[[StoragePool, Attributes], None]] = {
    door.__name__: door
    for door in (
        *(one_by_one, instance, as_a_list, copied, streamed, within_a_unit_of_work),
        *(model_call, ingested, ingested_in_bulk),
    )
}


def log_written(pool: StoragePool, attributes: Attributes, body: str) -> None:
    with LogWriter(pool) as writer:
        writer.write_log(a_log(attributes=attributes, body=body))
        writer.write_logs([LogRecord(**a_log(attributes=attributes, body=body))])


def log_copied(pool: StoragePool, attributes: Attributes, body: str) -> None:
    CopyWriter(pool).write_logs([a_log(attributes=attributes, body=body)] * 120)


def log_ingested(pool: StoragePool, attributes: Attributes, body: str) -> None:
    record = {"timeUnixNano": NANOSECONDS, "body": any_value(body), "attributes": pairs(attributes)}
    payload = request("resourceLogs", "scopeLogs", "logRecords", record)
    assert ingest_logs(pool, payload).accepted == 1


LOG_DOORS: dict[str, Callable[[StoragePool, Attributes, str], None]] = {
    door.__name__: door for door in (log_written, log_copied, log_ingested)
}


def metric_written(pool: StoragePool, name: str, attributes: Attributes) -> None:
    with MetricWriter(pool) as writer:
        metric = writer.write_metric(a_metric(name))
        writer.write_data_points([a_point(metric, attributes=attributes)])
        writer.write_data_point(a_point(metric, 1, attributes=attributes))


def metric_copied(pool: StoragePool, name: str, attributes: Attributes) -> None:
    metric = a_metric(name)
    CopyWriter(pool).write_metrics([metric])
    key = ids.metric_id(name=name, metric_type="gauge", service_name="shop")
    CopyWriter(pool).write_data_points([a_point(key, n, attributes=attributes) for n in range(2)])


def metric_ingested(pool: StoragePool, name: str, attributes: Attributes) -> None:
    points = [
        {"timeUnixNano": f"{NANOSECONDS[:-1]}{n}", "asDouble": 1.5, "attributes": pairs(attributes)}
        for n in range(2)
    ]
    metric = {"name": name, "gauge": {"dataPoints": points}}
    ingest_metrics(pool, request("resourceMetrics", "scopeMetrics", "metrics", metric))


METRIC_DOORS: dict[str, Callable[[StoragePool, str, Attributes], None]] = {
    door.__name__: door for door in (metric_written, metric_copied, metric_ingested)
}


def stored_anywhere(pool: Any, text: str) -> bool:
    return any(text in row for rows in contents(pool).values() for row in rows)
