"""Runs the calls of an SDK with an instrumentation, and stores what it reports."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from observatory_storage import StoragePool, TraceFilters, TraceSpan
from observatory_storage.otel import (
    PostgresLogExporter,
    PostgresMetricExporter,
    PostgresSpanExporter,
)
from tests.otel.vendor_calls import ANTHROPIC_CALLS, OPENAI_CALLS
from tests.recordings.record.calls import Call
from tests.recordings.record.server import Recorder, serving

__all__ = ["INSTRUMENTATIONS", "Instrumentation", "Observed", "observe"]

Calls = Mapping[str, Callable[..., None]]
_CONTENTS: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_HOOK: Final = "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK"


@dataclass(frozen=True, kw_only=True)
class Instrumentation:
    """An instrumentation, what it is told, and what it does not report.

    Attributes:
        instrumentor: module and class; None if the SDK instruments itself.
        vendor: whose SDK it instruments.
        settings: environment variables.
        reasons: why the model stopped, as the column says it: after an answer, for a tool.
        unreasoned: the scenarios of which it does not say why the model stopped.
        errors: the types of a refusal and of a lost connection; None if they are the exceptions.
        unanswered: the scenarios of which it does not say what the model answered.
        untimed: the scenarios of which it does not say when the first chunk came.
        lacks: what it never says: "requested model", "message of errors", "tools", "metrics".
    """

    name: str
    instrumentor: tuple[str, str] | None
    vendor: str
    settings: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[str, str]
    unreasoned: frozenset[str] = frozenset()
    errors: tuple[str, str] | None = None
    unanswered: frozenset[str] = frozenset()
    untimed: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()

    @property
    def calls(self) -> Calls:
        return {"openai": OPENAI_CALLS, "anthropic": ANTHROPIC_CALLS}[self.vendor]

    @contextmanager
    def instrumenting(self, providers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Instruments the SDK within the context. The answer is what clients are told."""
        if self.instrumentor is None:
            traced = {"tracer_provider": providers["tracer_provider"]}
            yield {"open_telemetry": {**traced, "traces": {"content_mode": "content"}}}
            return
        module, name = self.instrumentor
        instrumentor = getattr(importlib.import_module(module), name)()
        instrumentor.instrument(**providers)
        try:
            yield {}
        finally:
            instrumentor.uninstrument()


_STREAMS: Final = frozenset({"stream", "stream_helper", "streamed_tool", "awaited_stream"})


def _of_opentelemetry(vendor: str, told: str, settings: Mapping[str, str]) -> Instrumentation:
    name = {"openai": "OpenAIInstrumentor", "anthropic": "AnthropicInstrumentor"}[vendor]
    return Instrumentation(
        name=f"opentelemetry-{vendor}-{told}",
        instrumentor=(f"opentelemetry.instrumentation.genai.{vendor}", name),
        vendor=vendor,
        settings=settings,
        reasons=("stop", "tool_calls" if vendor == "openai" else "tool_call"),
        untimed=frozenset({"stream_helper"}),
    )


INSTRUMENTATIONS: Final = (
    Instrumentation(
        name="openinference-openai",
        instrumentor=("openinference.instrumentation.openai", "OpenAIInstrumentor"),
        vendor="openai",
        reasons=("stop", "tool_calls"),
        unreasoned=frozenset({"responses", "responses_stream"}),
        lacks=frozenset({"requested model", "metrics"}),
    ),
    Instrumentation(
        name="openinference-openai-genai-names",
        instrumentor=("openinference.instrumentation.openai", "OpenAIInstrumentor"),
        vendor="openai",
        settings={"OPENINFERENCE_ENABLE_GENAI_SEMCONV": "true"},
        reasons=("stop", "tool_call"),
        lacks=frozenset({"requested model", "metrics"}),
    ),
    Instrumentation(
        name="anthropic-sdk",
        instrumentor=None,
        vendor="anthropic",
        reasons=("end_turn", "tool_use"),
        errors=("rate_limit_error", "connection_error"),
        unanswered=_STREAMS - {"stream_helper"},
        lacks=frozenset({"message of errors", "tools", "metrics"}),
    ),
    Instrumentation(
        name="openinference-anthropic",
        instrumentor=("openinference.instrumentation.anthropic", "AnthropicInstrumentor"),
        vendor="anthropic",
        reasons=("end_turn", "tool_use"),
        untimed=_STREAMS,
        lacks=frozenset({"metrics"}),
    ),
    *(
        _of_opentelemetry(vendor, told, settings)
        for vendor in ("openai", "anthropic")
        for told, settings in {
            "contents-in-spans": {_CONTENTS: "SPAN_ONLY"},
            "contents-in-events": {_CONTENTS: "EVENT_ONLY"},
            "completion-hook": {_HOOK: "postgresql"},
        }.items()
    ),
)


@dataclass(frozen=True)
class Observed:
    """What was stored.

    Attributes:
        answers: by scenario, the calls as the server answered them.
        spans: by scenario, the spans of the calls, in their order.
    """

    by: Instrumentation
    pool: StoragePool
    answers: dict[str, list[Call]]
    spans: dict[str, list[TraceSpan]]

    def calls(self) -> Iterator[tuple[str, Call, TraceSpan]]:
        """Each call that was answered, with its scenario and its span."""
        for scenario, answers in self.answers.items():
            if answers:
                for call, span in zip(answers, self.spans[scenario], strict=True):
                    yield scenario, call, span


def observe(by: Instrumentation, pool: StoragePool) -> Observed:
    """Make the calls of all scenarios, each within a span of the application."""
    with pytest.MonkeyPatch.context() as patch, serving() as (url, recorder):
        for name, value in by.settings.items():
            patch.setenv(name, value)
        answers = _made_calls(by, pool, url, recorder)
    with pool.unit_of_work() as uow:
        traces = {name: uow.traces.list(TraceFilters(operation=name)) for name in by.calls}
        spans = {
            name: [span for trace in found for span in uow.traces.get_spans(trace.id)]
            for name, found in traces.items()
        }
    return Observed(
        by,
        pool,
        answers,
        {name: [span for span in found if span.name != name] for name, found in spans.items()},
    )


def _made_calls(
    by: Instrumentation, pool: StoragePool, url: str, recorder: Recorder
) -> dict[str, list[Call]]:
    answers: dict[str, list[Call]] = {}
    with exporting_to(pool) as providers, by.instrumenting(providers) as settings:
        tracer = providers["tracer_provider"].get_tracer("harbour-office")
        for name, call in by.calls.items():
            recorder.calls.clear()
            with tracer.start_as_current_span(name):
                call(url, **settings)
            answers[name] = list(recorder.calls)
    return answers


@contextmanager
def exporting_to(pool: StoragePool) -> Iterator[dict[str, Any]]:
    """Providers of the SDK that export to a pool. What they were given is stored at the end."""
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(PostgresSpanExporter(pool)))
    reader = PeriodicExportingMetricReader(PostgresMetricExporter(pool))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    loggers = LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(PostgresLogExporter(pool)))
    try:
        yield {"tracer_provider": tracers, "meter_provider": meters, "logger_provider": loggers}
    finally:
        for provider in (tracers, meters, loggers):
            provider.shutdown()
