"""A chat application that records its calls to a model, and shows them.

Start it with ``DATABASE_URL`` set: ``flask --app chat run``.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Flask, request

from observatory_storage import LlmSpan
from observatory_storage.flask import Observatory

app = Flask(__name__)
observatory = Observatory(app)


@app.get("/ask")
def ask() -> dict[str, Any]:
    """Answer ``?question=…``, and record how."""
    trace_id, span_id = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    start = datetime.now(UTC)
    answer = call_model(request.args["question"], trace_id, span_id)
    observatory.traces.write_span(
        {
            "trace_id": trace_id,
            "span_id": span_id,
            "name": "GET /ask",
            "kind": "server",
            "service_name": "chat",
            "start_time": start,
            "end_time": datetime.now(UTC),
        }
    )
    return {"answer": answer, "trace_id": trace_id, "spans": 2}


@app.get("/traces/<trace_id>")
def trace(trace_id: str) -> list[dict[str, Any]]:
    """The stored spans of a trace."""
    spans = observatory.uow.traces.get_spans(trace_id)
    return [{"name": span.name, "kind": span.kind, "tokens": span.total_tokens} for span in spans]


def call_model(question: str, trace_id: str, parent_span_id: str) -> str:
    """Ask the model, which here only repeats the question."""
    start = datetime.now(UTC)
    answer = f"You asked: {question}"
    observatory.traces.write_span_from_llm(
        LlmSpan(
            model="echo-1",
            provider="echo",
            service_name="chat",
            trace_id=trace_id,
            parent_span_id=parent_span_id,
            start_time=start,
            end_time=datetime.now(UTC),
            prompt=question,
            completion=answer,
            prompt_tokens=len(question.split()),
            completion_tokens=len(answer.split()),
        )
    )
    return answer
