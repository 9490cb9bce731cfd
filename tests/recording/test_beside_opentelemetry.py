"""Spans of OpenTelemetry and of this package in one trace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observatory_storage import LogRecord, StorageHandler, StoragePool, observe, observe_llm
from tests.recording.test_observe import spans
from tests.writers.helpers import fetch


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The exporter of the global provider, for one test."""
    provider = TracerProvider()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def test_a_call_is_a_child_of_the_active_span(
    pool: StoragePool, exporter: InMemorySpanExporter
) -> None:
    tracer = trace.get_tracer("shop")
    with tracer.start_as_current_span("request") as request, observe(pool, name="chain"):
        observer = observe_llm(pool, model="gpt-5", name="call")
        with tracer.start_as_current_span("http") as http, observer:
            pass
        with observe(pool, name="step"):
            pass
    assert trace.get_current_span() is trace.INVALID_SPAN
    found = spans(pool)
    ids = request.get_span_context()
    chain, call, step = found["chain"], found["call"], found["step"]
    assert {row["trace_id"].int for row in found.values()} == {ids.trace_id}
    assert chain["parent_span_id"] == f"{ids.span_id:016x}"
    assert call["parent_span_id"] == f"{http.get_span_context().span_id:016x}"
    assert step["parent_span_id"] == chain["span_id"]
    exported = {span.name: span for span in exporter.get_finished_spans()}
    assert exported["http"].parent is not None
    assert f"{exported['http'].parent.span_id:016x}" == chain["span_id"]


def test_without_a_span_around_it_a_call_begins_the_trace(
    pool: StoragePool, exporter: InMemorySpanExporter
) -> None:
    tracer = trace.get_tracer("shop")
    with observe(pool, name="chain") as step, tracer.start_as_current_span("http"):
        pass
    (http,) = exporter.get_finished_spans()
    assert http.parent is not None
    assert f"{http.parent.trace_id:032x}" == step.trace_id
    assert f"{http.parent.span_id:016x}" == step.span_id


@pytest.mark.usefixtures("exporter")
def test_generators_leave_the_context_of_their_consumer(pool: StoragePool) -> None:
    tracer = trace.get_tracer("shop")

    @observe(pool, name="generator")
    def generate() -> Iterator[int]:
        with tracer.start_as_current_span("inside"):
            yield trace.get_current_span().get_span_context().span_id
            yield trace.get_current_span().get_span_context().span_id

    with tracer.start_as_current_span("outside") as outside:
        seen = []
        for span_id in generate():
            seen.append(span_id)
            assert trace.get_current_span() is outside
    assert seen[0] == seen[1] != outside.get_span_context().span_id
    row = spans(pool)["generator"]
    assert row["parent_span_id"] == f"{outside.get_span_context().span_id:016x}"


@pytest.mark.usefixtures("exporter")
def test_a_generator_that_is_closed_elsewhere_logs_nothing(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    async def generate() -> AsyncIterator[int]:
        async with observe(pool, name="generator"):
            yield 1
            yield 2

    async def main() -> None:
        async for _ in generate():
            break

    before = context.get_current()
    asyncio.run(main())
    assert context.get_current() == before
    assert spans(pool).keys() == {"generator"}
    assert caplog.records == []


@pytest.mark.usefixtures("exporter")
def test_log_records_belong_to_the_innermost_span(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    with trace.get_tracer("shop").start_as_current_span("request") as request:
        logger.info("in the request")
        with observe(pool, name="step") as step:
            logger.info("in the step")
    handler.flush()
    rows = {row["body"]: row for row in fetch(pool, LogRecord)}
    ids = request.get_span_context()
    assert rows["in the request"]["span_id"] == f"{ids.span_id:016x}"
    assert rows["in the request"]["trace_id"].int == ids.trace_id
    assert rows["in the step"]["span_id"] == step.span_id


def test_a_trace_that_is_not_sampled_keeps_its_flags(
    pool: StoragePool, exporter: InMemorySpanExporter
) -> None:
    unsampled = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(0))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(unsampled)))
    with observe(pool, name="step") as step:
        with trace.get_tracer("shop").start_as_current_span("http"):
            pass
        assert step.traceparent.endswith("-00")
    context.detach(token)
    assert spans(pool)["step"]["parent_span_id"] == f"{0xDEF:016x}"
    assert exporter.get_finished_spans() == ()


@pytest.mark.usefixtures("exporter")
def test_what_is_attached_and_not_detached_ends_with_the_observation(pool: StoragePool) -> None:
    before = context.get_current()
    with observe(pool, name="first"):
        context.attach(baggage.set_baggage("user", "1"))
    assert context.get_current() is before
    with observe(pool, name="second"):
        pass
    found = spans(pool)
    assert found["second"]["trace_id"] != found["first"]["trace_id"]
