"""A Celery application whose task asks a model and records the call.

Start it with ``DATABASE_URL`` and ``BROKER_URL`` set: ``celery -A tasks worker -B``.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from typing import Any

from celery import Celery

from observatory_storage import LlmSpan, StoragePool, TraceWriter, WriterConfig
from observatory_storage.celery import add_maintenance

BROKER_URL = os.environ.get("BROKER_URL", "redis://localhost:6379/0")

app = Celery("tasks", broker=BROKER_URL, backend=BROKER_URL)
app.conf.broker_connection_retry_on_startup = True

# Made before the worker forks: each child has a buffer and connections of its own.
pool = StoragePool.from_env(connect=False)
# With a spool, rows also survive a database that is away when the worker ends.
writer = TraceWriter(pool, WriterConfig(spool_dir=os.environ.get("SPOOL_DIR")))

add_maintenance(app, pool=pool)


@app.task(name="answer")
def answer(question: str) -> dict[str, Any]:
    """Answer a question, and record how."""
    trace_id, span_id = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    start = datetime.now(UTC)
    text = call_model(question, trace_id, span_id)
    writer.write_span(
        {
            "trace_id": trace_id,
            "span_id": span_id,
            "name": "answer",
            "kind": "consumer",
            "service_name": "chat-worker",
            "start_time": start,
            "end_time": datetime.now(UTC),
        }
    )
    return {"answer": text, "trace_id": trace_id, "spans": 2}


def call_model(question: str, trace_id: str, parent_span_id: str) -> str:
    """Ask the model, which here only repeats the question."""
    start = datetime.now(UTC)
    text = f"You asked: {question}"
    writer.write_span_from_llm(
        LlmSpan(
            model="echo-1",
            provider="echo",
            service_name="chat-worker",
            trace_id=trace_id,
            parent_span_id=parent_span_id,
            start_time=start,
            end_time=datetime.now(UTC),
            prompt=question,
            completion=text,
            prompt_tokens=len(question.split()),
            completion_tokens=len(text.split()),
        )
    )
    return text
