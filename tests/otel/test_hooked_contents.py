"""Contents that the completion hook stores: whole, in payload frames, redacted, nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observatory_storage import SpanFilters, StoragePool, TraceFilters
from observatory_storage.config import (
    PayloadsConfig,
    PostgresConfig,
    RedactRule,
    RulesConfig,
    StorageConfig,
)
from observatory_storage.otel import PostgresCompletionHook, PostgresSpanExporter
from tests.payloads.framed import frame_count
from tests.recordings.record.programs.conversation import ANSWER, QUESTION, WORDS
from tests.recordings.record.server import serving

LONG_QUESTION = f"{QUESTION} " + "Tell of every departure, please. " * 200


@dataclass(frozen=True)
class Asked:
    """What was stored of a call, and what another exporter was given."""

    pool: StoragePool
    elsewhere: ReadableSpan

    def stored(self) -> tuple[str, str]:
        """The question and the answer."""
        with self.pool.unit_of_work() as uow:
            (span,) = uow.traces.list_spans(SpanFilters())
            messages = uow.traces.get_messages(span)
            return messages.input[0].text, messages.output[0].text


def ask(
    pool: StoragePool, question: str = QUESTION, limits: SpanLimits | None = None, mode: str = ""
) -> Asked:
    """Ask a model, and wait until the call is stored."""
    elsewhere = InMemorySpanExporter()
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(PostgresSpanExporter(pool)))
    provider.add_span_processor(SimpleSpanProcessor(elsewhere))
    instrumentor = OpenAIInstrumentor()
    with pytest.MonkeyPatch.context() as patch, serving() as (url, _):
        patch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", mode)
        instrumentor.instrument(tracer_provider=provider, completion_hook=PostgresCompletionHook())
        try:
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                client.chat.completions.create(
                    model="gpt-5-mini", messages=[{"role": "user", "content": question}]
                )
        finally:
            instrumentor.uninstrument()
            provider.shutdown()
    (span,) = elsewhere.get_finished_spans()
    return Asked(pool, span)


def test_contents_are_stored_and_other_exporters_do_not_see_them(pool: StoragePool) -> None:
    asked = ask(pool)
    assert asked.stored() == (QUESTION, ANSWER)
    assert asked.elsewhere.attributes
    assert "gen_ai.request.model" in asked.elsewhere.attributes
    assert not [word for word in WORDS.values() if word in asked.elsewhere.to_json()]


def test_contents_are_whole_although_the_sdk_cuts_attributes(pool: StoragePool) -> None:
    asked = ask(pool, limits=SpanLimits(max_span_attribute_length=30), mode="SPAN_ONLY")
    assert asked.elsewhere.attributes
    assert len(str(asked.elsewhere.attributes["gen_ai.input.messages"])) == 30
    assert asked.stored() == (QUESTION, ANSWER)


def test_large_contents_are_compressed_in_frames_where_they_are_found(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url), payloads=PayloadsConfig(mode="compressed")
    )
    with StoragePool(config) as pool:
        assert ask(pool, LONG_QUESTION).stored() == (LONG_QUESTION, ANSWER)
        assert frame_count(pool) == 1
        with pool.unit_of_work() as uow:
            spans = uow.traces.list_spans(SpanFilters())
            filters = SpanFilters(start_time=spans[0].start_time)
            found = uow.traces.search_text("departure", filters)
        assert [span.span_id for span in found] == [span.span_id for span in spans]


def test_rules_redact_contents(database_url: str) -> None:
    rules = RulesConfig(redact=(RedactRule(pattern="Hinderoya", replacement="[place]"),))
    config = StorageConfig(postgres=PostgresConfig.from_url(database_url), rules=rules)
    with StoragePool(config) as pool:
        question, _ = ask(pool).stored()
    assert question == QUESTION.replace("Hinderoya", "[place]")


PROGRAM = """
import anthropic, openai, os

server = os.environ["SERVER"]
openai.OpenAI(base_url=f"{server}/v1", api_key="none").chat.completions.create(
    model="gpt-5-mini", messages=[{"role": "user", "content": os.environ["QUESTION"]}]
)
anthropic.Anthropic(base_url=server, api_key="none").messages.create(
    model="claude-harbour",
    max_tokens=400,
    messages=[{"role": "user", "content": os.environ["QUESTION"]}],
)
"""


def test_environment_variables_alone_set_everything_up(database_url: str, tmp_path: Path) -> None:
    # Both vendors' instrumentations of this environment are on, and the Anthropic SDK's own.
    settings = {
        "DATABASE_URL": database_url,
        "OTEL_SERVICE_NAME": "harbour-office",
        "OTEL_TRACES_EXPORTER": "postgresql,console",
        "OTEL_METRICS_EXPORTER": "postgresql",
        "OTEL_LOGS_EXPORTER": "postgresql",
        "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK": "postgresql",
        "OPENINFERENCE_HIDE_INPUTS": "true",
        "OPENINFERENCE_HIDE_OUTPUTS": "true",
    }
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    with serving() as (url, recorder):
        ran = subprocess.run(
            [str(instrument), sys.executable, str(program)],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "SERVER": url,
                "QUESTION": QUESTION,
                **settings,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert "gpt-5-mini" in ran.stdout
    assert "Hinderoya" not in ran.stdout
    assert len(recorder.calls) == 2
    config = StorageConfig(postgres=PostgresConfig.from_url(database_url))
    with StoragePool(config) as pool, pool.unit_of_work() as uow:
        traces = uow.traces.list(TraceFilters(service_name="harbour-office"))
        # Each token counts once, however many spans report it.
        assert sum(trace.total_tokens or 0 for trace in traces) == sum(
            call.prompt_tokens + call.completion_tokens for call in recorder.calls
        )
        answers = {
            span.scope_name: uow.traces.get_messages(span).output
            for span in uow.traces.list_spans(SpanFilters())
        }
        metrics = {metric.name for metric in uow.metrics.list()}
    for vendor in ("openai", "anthropic"):
        (answer,) = answers[f"opentelemetry.instrumentation.genai.{vendor}"]
        assert answer.text == ANSWER
    assert "gen_ai.client.token.usage" in metrics
