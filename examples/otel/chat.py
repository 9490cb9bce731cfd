"""A chat application that is instrumented with OpenTelemetry, and knows nothing of its storage.

Start it with ``DATABASE_URL`` set::

    export OTEL_SERVICE_NAME=chat OTEL_TRACES_EXPORTER=postgresql
    export OTEL_METRICS_EXPORTER=postgresql OTEL_LOGS_EXPORTER=postgresql
    opentelemetry-instrument flask --app chat run
"""

from __future__ import annotations

from typing import Any

from flask import Flask, request
from opentelemetry import trace

app = Flask(__name__)
tracer = trace.get_tracer("chat")


@app.get("/ask")
def ask() -> dict[str, Any]:
    """Answer ``?question=…`` within a span."""
    with tracer.start_as_current_span("GET /ask", kind=trace.SpanKind.SERVER) as span:
        answer = call_model(request.args["question"])
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        return {"answer": answer, "trace_id": trace_id, "spans": 2}


def call_model(question: str) -> str:
    """Ask the model, which here only repeats the question, in the words of the GenAI conventions.

    Instrumentations of clients, such as OpenInference's, make such spans by themselves.
    """
    answer = f"You asked: {question}"
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "echo",
        "gen_ai.request.model": "echo-1",
        "gen_ai.usage.input_tokens": len(question.split()),
        "gen_ai.usage.output_tokens": len(answer.split()),
    }
    with tracer.start_as_current_span(
        "chat echo-1", kind=trace.SpanKind.CLIENT, attributes=attributes
    ):
        return answer
