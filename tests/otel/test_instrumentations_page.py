"""The example of the page on instrumentations runs, and its limits are those of the SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import openai
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from observatory_storage import SpanFilters, StoragePool, TraceSpan
from observatory_storage.otel import PostgresSpanExporter
from tests.recordings.record.server import serving
from tests.test_guide_examples import example_with

REQUEST = """
user_id.set("ada")
with trace.get_tracer("assistant").start_as_current_span("answer"):
    session_id.set("chat-17")
    with trace.get_tracer("assistant").start_as_current_span("ask"):
        pass
"""


def test_the_processor_names_the_user_and_the_session(
    database_url: str, pool: StoragePool, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(example_with("instrumentations.md", "RequestAttributes") + REQUEST)
    subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATABASE_URL": database_url},
        check=True,
        timeout=120,
    )
    with pool.unit_of_work() as uow:
        found = {
            span.name: (span.user_id, span.session_id)
            for span in uow.traces.list_spans(SpanFilters())
        }
    assert found == {"answer": ("ada", None), "ask": ("ada", "chat-17")}


def test_long_conversations_of_openinference_need_a_higher_limit(pool: StoragePool) -> None:
    few, enough = long_conversation(pool, 128), long_conversation(pool, 10_000)
    assert (few.provider, enough.provider) == (None, "openai")
    assert few.total_tokens == enough.total_tokens
    with pool.unit_of_work() as uow:
        assert len(uow.traces.get_messages(enough).input) == 80


def long_conversation(pool: StoragePool, limit: int) -> TraceSpan:
    """The span of a call with 80 messages, where the SDK keeps so many attributes."""
    provider = TracerProvider(
        span_limits=SpanLimits(max_span_attributes=limit), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(PostgresSpanExporter(pool)))
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        with (
            serving() as (url, _),
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        ):
            client.chat.completions.create(
                model="gpt-5-mini",
                messages=[{"role": "user", "content": f"Message {n}"} for n in range(80)],
            )
    finally:
        instrumentor.uninstrument()
        provider.shutdown()
    with pool.unit_of_work() as uow:
        return uow.traces.list_spans(SpanFilters(limit=1))[0]
