"""`configure`: three lines and then data."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observatory_storage import ConfigError, StoragePool, ValidationError
from observatory_storage.models import LogRecord, Metric, TraceSpan
from observatory_storage.otel import configure
from tests.otel.test_exporters import named_spans
from tests.writers.helpers import quick_pool

pytestmark = pytest.mark.usefixtures("fresh_providers")


def found(pool: StoragePool, *columns: Any) -> list[tuple[Any, ...]]:
    with pool.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(*columns))]


def test_all_three_signals_are_stored_under_the_name_of_the_service(pool: StoragePool) -> None:
    with configure(
        pool, service_name="shop", resource_attributes={"service.version": "2"}
    ) as telemetry:
        with trace.get_tracer("app").start_as_current_span("request") as span:
            logging.getLogger("app").warning("sold out")
        metrics.get_meter("app").create_counter("orders").add(3)
        get_logger("events").emit(body="direct", event_name="ordered")
        assert telemetry.force_flush()
        trace_id, span_id = span.get_span_context().trace_id, span.get_span_context().span_id
        assert found(pool, TraceSpan.name, TraceSpan.service_name) == [("request", "shop")]
        assert found(pool, Metric.name, Metric.service_name) == [("orders", "shop")]
        assert found(pool, LogRecord.body, LogRecord.event_name, LogRecord.service_name) == [
            ("direct", "ordered", "shop"),
            ("sold out", None, "shop"),
        ]
        assert found(pool, LogRecord.trace_id, LogRecord.span_id) == [
            (UUID(int=trace_id), f"{span_id:016x}"),
            (None, None),
        ]
        ((resource,),) = found(pool, TraceSpan.resource_attributes)
        assert resource["service.version"] == "2"


@pytest.mark.parametrize(("limit", "kept"), [("", 300), ("200", 200)])
def test_long_conversations_keep_their_attributes(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch, limit: str, kept: int
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", limit)
    keys = [f"llm.input_messages.{n}.message.role" for n in range(300)]
    with configure(pool, metrics=False, logs=False):
        span = trace.get_tracer("app").start_span("chat")
        span.set_attributes(dict.fromkeys(keys, "user"))
        span.end()
    ((attributes,),) = found(pool, TraceSpan.attributes)
    assert len(attributes) == kept


def test_flushing_the_global_provider_stores_spans(pool: StoragePool) -> None:
    with configure(pool, metrics=False, logs=False):
        trace.get_tracer("app").start_span("request").end()
        provider: Any = trace.get_tracer_provider()
        assert provider.force_flush()
        assert named_spans(pool) == ["request"]


HUNG = """
import atexit, logging, os, socket
import observatory_storage.otel
from observatory_storage.writers import process_hooks
from opentelemetry import metrics, trace

process_hooks._EXIT_SECS = 1.0
with socket.socket() as server:  # accepts connections, and never answers
    server.bind(("127.0.0.1", 0))
    server.listen(100)
    os.environ["DATABASE_URL"] = f"postgresql://u:p@127.0.0.1:{server.getsockname()[1]}/d"
    observatory_storage.otel.configure()
    with trace.get_tracer("app").start_as_current_span("request"):
        logging.getLogger("app").warning("sold out")
    metrics.get_meter("app").create_counter("orders").add(1)
    atexit._run_exitfuncs()
"""


def test_all_signals_share_the_time_that_a_process_has_to_end() -> None:
    # Each signal would wait for 30 seconds of its own.
    ended = subprocess.run(
        [sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("could not be written at shutdown") == 3


def test_shutdown_stores_what_is_left_and_takes_the_handler_away(pool: StoragePool) -> None:
    before = list(logging.getLogger().handlers)
    telemetry = configure(pool)
    assert len(logging.getLogger().handlers) > len(before)
    trace.get_tracer("app").start_span("request").end()
    telemetry.shutdown()
    telemetry.shutdown()
    assert named_spans(pool) == ["request"]
    assert logging.getLogger().handlers == before


def test_providers_of_the_application_get_an_exporter_more(pool: StoragePool) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "own"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    with configure(pool, service_name="other", metrics=False, logs=False):
        trace.get_tracer("app").start_span("request").end()
    assert trace.get_tracer_provider() is provider
    assert [span.name for span in kept.get_finished_spans()] == ["request"]
    assert found(pool, TraceSpan.name, TraceSpan.service_name) == [("request", "own")]
    provider.shutdown()


def test_a_provider_that_is_not_of_the_sdk_is_refused(pool: StoragePool) -> None:
    trace.set_tracer_provider(trace.NoOpTracerProvider())
    with pytest.raises(ConfigError, match=r"the global TracerProvider is .*NoOpTracerProvider"):
        configure(pool)


def test_a_second_call_changes_nothing(pool: StoragePool, caplog: pytest.LogCaptureFixture) -> None:
    with configure(pool, metrics=False, logs=False) as telemetry:
        assert configure(pool) is telemetry
        assert "configure() was called before" in caplog.text
        trace.get_tracer("app").start_span("once").end()
    assert named_spans(pool) == ["once"]


def test_after_shutdown_it_can_be_called_again(pool: StoragePool) -> None:
    for number in range(2):
        with configure(pool, metrics=False, logs=False):
            trace.get_tracer("app").start_span(f"span {number}").end()
    assert named_spans(pool) == ["span 0", "span 1"]


@pytest.mark.parametrize(
    ("field", "value"), [("service_name", ""), ("log_level", "LOUD"), ("metric_interval_secs", 0)]
)
def test_an_argument_that_is_not_valid_is_named(pool: StoragePool, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"^{field}="):
        configure(pool, **{field: value})


def test_records_below_the_level_are_not_stored(pool: StoragePool) -> None:
    with configure(pool, traces=False, metrics=False, log_level="error"):
        logging.getLogger("app").warning("not so bad")
        logging.getLogger("app").error("bad")
    assert found(pool, LogRecord.body) == [("bad",)]


def test_the_pool_stores_what_is_left_before_it_closes(
    pool: StoragePool, database_url: str
) -> None:
    closed = quick_pool(database_url)
    with configure(closed, metrics=False, log_level=None):
        trace.get_tracer("app").start_span("request").end()
        get_logger("events").emit(body="direct", event_name="ordered")
        closed.close()
        assert found(pool, TraceSpan.name) == [("request",)]
        assert found(pool, LogRecord.body) == [("direct",)]
