"""A Celery application whose task asks a model, and records how.

Start it with ``DATABASE_URL`` and ``BROKER_URL`` set: ``celery -A tasks worker -B``.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task

from observatory_storage import StoragePool, TraceWriter, WriterConfig, observe, observe_llm
from observatory_storage.celery import add_maintenance

BROKER_URL = os.environ.get("BROKER_URL", "redis://localhost:6379/0")

app = Celery("tasks", broker=BROKER_URL, backend=BROKER_URL)
app.conf.broker_connection_retry_on_startup = True

# Made before the worker forks: each child has connections and a buffer of its own.
pool = StoragePool.from_env(connect=False)
# With a spool, no row is lost if the database is away when the worker ends.
writer = TraceWriter(pool, WriterConfig(spool_dir=os.environ.get("SPOOL_DIR")))

add_maintenance(app, pool=pool)


@app.task(name="answer", bind=True)
def answer(self: Task, question: str) -> dict[str, Any]:
    """Answer a question, within the trace of the caller if its headers name one."""
    parent = (self.request.headers or {}).get("traceparent")
    with observe(writer, name="answer", service_name="chat-worker", parent=parent) as step:
        return {"answer": ask_model(question), "trace_id": step.trace_id, "spans": 2}


@observe_llm(writer, provider="echo", model="echo-1")
def ask_model(question: str) -> str:
    """Ask the model, which here only repeats the question."""
    return f"You asked: {question}"
