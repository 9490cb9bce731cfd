"""Exporting, flushing and shutting down, as the SDK's processors do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from observatory_storage import (
    ConfigError,
    DropRule,
    PostgresConfig,
    RulesConfig,
    StorageConfig,
    StoragePool,
    ValidationError,
    WriterConfig,
)
from observatory_storage.models import LogRecord, Metric, MetricDataPoint, TraceSpan
from observatory_storage.otel import (
    PostgresLogExporter,
    PostgresMetricExporter,
    PostgresSpanExporter,
)
from tests.otel import sdk_telemetry

EXPORTERS: dict[str, tuple[Any, Any]] = {
    "spans": (PostgresSpanExporter, TraceSpan),
    "metrics": (PostgresMetricExporter, MetricDataPoint),
    "logs": (PostgresLogExporter, LogRecord),
}
every_exporter = pytest.mark.parametrize("signal", EXPORTERS)


def stored(pool: StoragePool, model: Any) -> int:
    with pool.engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(model)) or 0


def named_spans(pool: StoragePool) -> list[str]:
    with pool.engine.connect() as connection:
        return list(connection.scalars(sa.select(TraceSpan.name).order_by(TraceSpan.name)))


@every_exporter
def test_force_flush_stores_what_was_exported(pool: StoragePool, signal: str) -> None:
    kind, model = EXPORTERS[signal]
    exporter = kind(pool)
    assert exporter.export(getattr(sdk_telemetry, signal)()).name == "SUCCESS"
    assert exporter.force_flush() is True
    assert stored(pool, model) > 0
    exporter.shutdown()


@every_exporter
def test_an_exporter_that_is_shut_down_ignores_what_is_exported(
    pool: StoragePool, signal: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, model = EXPORTERS[signal]
    exporter = kind(pool)
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.export(getattr(sdk_telemetry, signal)()).name == "FAILURE"
    assert "are ignored: the exporter is shut down" in caplog.text
    assert stored(pool, model) == 0


@every_exporter
def test_without_a_database_url_the_constructor_says_so(
    signal: str, monkeypatch: pytest.MonkeyPatch, fresh_environment: None
) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        EXPORTERS[signal][0]()


def test_arguments_of_other_types_are_refused(pool: StoragePool) -> None:
    wrong: Any = "postgresql://localhost"
    with pytest.raises(ValidationError, match="pool"):
        PostgresSpanExporter(wrong)
    with pytest.raises(ValidationError, match="config"):
        PostgresSpanExporter(pool, wrong)


@pytest.mark.parametrize("processor", [BatchSpanProcessor, SimpleSpanProcessor])
def test_the_processors_of_the_sdk_store_all_spans_at_shutdown(
    pool: StoragePool, processor: Callable[[PostgresSpanExporter], Any]
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor(PostgresSpanExporter(pool)))
    tracer = provider.get_tracer("test")
    for number in range(3):
        tracer.start_span(f"span {number}").end()
    provider.shutdown()
    assert named_spans(pool) == ["span 0", "span 1", "span 2"]


def nested(levels: int = 60) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


def test_a_bad_span_costs_itself_and_is_logged_with_its_field(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    good, *_ = sdk_telemetry.spans()
    bad: list[Any] = [
        ReadableSpan("deep", good.context, attributes={"deep": nested()}, start_time=1, end_time=2),
        ReadableSpan("no context", None, start_time=1, end_time=2),
        ReadableSpan("no time", good.context),
        ReadableSpan("late", good.context, start_time=2**70, end_time=2**71),
    ]
    for span in bad:
        exporter = PostgresSpanExporter(pool)
        caplog.clear()
        assert exporter.export([good, span]).name == "SUCCESS"
        exporter.shutdown()
        assert f"spans of {span.name!r} cannot be stored" in caplog.text
        assert named_spans(pool) == [good.name]


def test_a_bad_resource_costs_its_own_spans(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    good, *_ = sdk_telemetry.spans()
    resource = Resource({"nested": nested()})
    if "nested" not in resource.attributes:
        pytest.skip("before 1.45, the SDK refuses such attributes itself")
    of_bad_resource = sdk_telemetry.spans(resource)
    exporter = PostgresSpanExporter(pool)
    assert exporter.export([*of_bad_resource, good]).name == "SUCCESS"
    exporter.shutdown()
    assert "spans cannot be stored: resource.attributes.nested" in caplog.text
    assert named_spans(pool) == [good.name]


def test_warnings_of_one_kind_are_logged_once(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = PostgresSpanExporter(pool)
    bad = ReadableSpan("no context", None, start_time=1, end_time=2)
    for _ in range(20):
        exporter.export([bad])
    exporter.shutdown()
    assert [one.levelname for one in caplog.records if "no context" in one.message] == ["WARNING"]


def test_a_full_buffer_drops_spans_and_counts_them(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing is flushed before it is asked for.
    config = WriterConfig(batch_size=5, max_buffered=5, flush_interval_secs=None)
    exporter = PostgresSpanExporter(pool, config)
    spans = [span for span in sdk_telemetry.spans() if not span.events][:8]
    with pool.engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE trace_spans IN ACCESS EXCLUSIVE MODE"))
        assert exporter.export(spans).name == "FAILURE"
        dropped = exporter.writer.write_stats().dropped
    assert dropped == 3
    assert "3 spans were dropped, because the buffer is full" in caplog.text
    exporter.shutdown()
    assert len(named_spans(pool)) == 5


def test_an_exporter_goes_on_after_the_writers_were_closed_at_the_end_of_the_process(
    pool: StoragePool,
) -> None:
    exporter = PostgresSpanExporter(pool)
    exporter.writer.close()
    first, *_ = sdk_telemetry.spans()
    assert exporter.export([first]).name == "SUCCESS"
    exporter.shutdown()
    assert named_spans(pool) == [first.name]


@pytest.mark.parametrize("is_prepared", [True, False])
def test_rows_are_redacted_and_those_that_cannot_be_are_left_out(
    pool: StoragePool, caplog: pytest.LogCaptureFixture, is_prepared: bool
) -> None:
    def redact(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["name"] == "status ok":
            raise RuntimeError("cannot be redacted")
        return None if row["name"] == "root" else {**row, "attributes": {"redacted": True}}

    spans = sdk_telemetry.spans()
    exporter = PostgresSpanExporter(pool, None if is_prepared else WriterConfig(redact=redact))
    assert exporter.export(spans).name == "SUCCESS"
    exporter.shutdown()
    expected = {span.name or "unnamed" for span in spans if not span.name.startswith("long")}
    if not is_prepared:
        expected -= {"root", "status ok"}
        assert "spans of 'status ok' cannot be stored: RuntimeError" in caplog.text
    assert {name for name in named_spans(pool) if not name.startswith("long")} == expected
    with pool.engine.connect() as connection:
        kept = list(connection.scalars(sa.select(TraceSpan.attributes)))
    assert all(attributes == {"redacted": True} for attributes in kept) is not is_prepared


def test_rules_of_the_configuration_apply(database_url: str) -> None:
    rules = RulesConfig(
        drop=[DropRule(name="of kind*"), DropRule(signal="metrics", name="requests")],
        drop_attributes=["http.route"],
    )
    config = StorageConfig(postgres=PostgresConfig.from_url(database_url), rules=rules)
    with StoragePool(config) as pool:
        for kind, given in (
            (PostgresSpanExporter, sdk_telemetry.spans()),
            (PostgresMetricExporter, sdk_telemetry.metrics()),
        ):
            exporter: Any = kind(pool)
            exporter.export(given)
            exporter.shutdown()
        names = named_spans(pool)
        assert "root" in names
        assert not any(name.startswith("of kind") for name in names)
        with pool.engine.connect() as connection:
            metrics = set(connection.scalars(sa.select(Metric.name)))
            points = connection.execute(
                sa.select(Metric.name, MetricDataPoint.metric_id).outerjoin_from(
                    MetricDataPoint, Metric, Metric.id == MetricDataPoint.metric_id
                )
            ).all()
            attributes = list(connection.scalars(sa.select(TraceSpan.attributes)))
    assert "duration" in metrics
    assert "requests" not in metrics
    assert {name for name, _ in points} == metrics
    assert not any("http.route" in one for one in attributes)
