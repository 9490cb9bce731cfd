"""Tasks as an application has them: a pool and a writer of its module, used by every task."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime

from celery import Celery
from celery.signals import worker_ready
from opentelemetry import trace

from observatory_storage import StoragePool, TraceWriter, WriterConfig
from observatory_storage.celery import add_maintenance, flush_after_task
from observatory_storage.otel import configure

app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.update(
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_soft_shutdown_timeout=float(os.environ.get("SOFT_SHUTDOWN_SECS", "0")),
)
pool = StoragePool.from_env(connect=False)
# What a task has written waits for the worker to end: nothing else flushes it.
writer = TraceWriter(pool, WriterConfig(flush_interval_secs=600))
if os.environ.get("OTEL_BSP_SCHEDULE_DELAY"):
    configure(pool, metrics=False, logs=False)
if os.environ.get("FLUSH_AFTER_TASK"):
    flush_after_task(app)
if os.environ.get("MAINTAIN_EVERY_SECS"):
    add_maintenance(app, float(os.environ["MAINTAIN_EVERY_SECS"]), pool=pool)


def _write(name: str) -> None:
    now = datetime.now(UTC)
    writer.write_span(
        {
            "trace_id": uuid.uuid4().hex,
            "span_id": "1" * 16,
            "name": name,
            "service_name": "hosted",
            "start_time": now,
            "end_time": now,
        }
    )


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery comes without types
def _send(**_: object) -> None:
    """Send the tasks that the test wants: a process of its own would take seconds to start."""
    for name in os.environ["TASKS"].split():
        app.send_task(name)


@app.task(name="write")  # type: ignore[untyped-decorator]  # as above
def write() -> None:
    """Write a span."""
    _write("written")


@app.task(name="trace")  # type: ignore[untyped-decorator]  # as above
def make_trace() -> None:
    """Make a span of OpenTelemetry."""
    with trace.get_tracer("tests").start_as_current_span("traced"):
        pass


@app.task(name="hang", time_limit=1)  # type: ignore[untyped-decorator]  # as above
def hang() -> None:
    """Flush a span, write another one, and go on until the worker kills the task."""
    _write("flushed")
    writer.flush()
    _write("killed")
    time.sleep(60)
