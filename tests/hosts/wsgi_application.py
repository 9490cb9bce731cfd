"""An application as hosts load it: a pool and a writer of its module, used by every request."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from observatory_storage import LogWriter, StoragePool, TraceWriter, WriterConfig

pool = StoragePool.from_env()
# What a request has written waits for the host to end its worker: nothing else flushes it.
patient = WriterConfig(flush_interval_secs=600)
writer = TraceWriter(pool, patient)
logs = LogWriter(pool, patient)


def application(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    """Writes a span and a log, and tells who answered and whether the answer was the request's."""
    del environ
    wanted, now = uuid.uuid4().hex, datetime.now(UTC)
    writer.write_span(
        {
            "trace_id": wanted,
            "span_id": "1" * 16,
            "name": "request",
            "service_name": "hosted",
            "start_time": now,
            "end_time": now,
        }
    )
    logs.write_log({"timestamp": now, "service_name": "hosted", "body": "answered"})
    with pool.unit_of_work() as uow:
        uow.session.execute(sa.text("SELECT pg_sleep(0.01)"))
        found, backend = uow.session.execute(
            sa.text("SELECT CAST(:wanted AS text), pg_backend_pid()"), {"wanted": wanted}
        ).one()
    start_response("200 OK", [("Content-Type", "application/json")])
    answer = {"process": os.getpid(), "backend": backend, "right": found == wanted}
    return [json.dumps(answer).encode()]
