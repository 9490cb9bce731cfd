"""The ways in which users bring rows: OTLP, mappings, instances, calls; and the way out again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from observatory_storage import (
    CopyWriter,
    LlmSpan,
    StoragePool,
    TraceWriter,
    WriterConfig,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.otlp.data_points import point_of
from observatory_storage.otlp.logs import log_of
from observatory_storage.otlp.metrics import metric_of
from observatory_storage.otlp.resource_scope import resource_of, scope_of
from observatory_storage.otlp.traces import span_of
from observatory_storage.rows import prepare_metric
from observatory_storage.storing.transaction import ensure_partitions
from observatory_storage.tables import TABLES
from observatory_storage.times import MICROSECOND
from tests.benchmarks.measure import empty, own_heap_frozen
from tests.benchmarks.ours import write_at_once
from tests.benchmarks.technique import Prepare, Run, Technique, in_turn, timed
from tests.benchmarks.workload import Workload, batches
from tests.otlp.otlp import as_message

__all__ = ["OTLP", "SHAPES", "Exported", "exported"]

Row = dict[str, Any]


def _request(load: Workload, rows: Sequence[Row]) -> Row:
    """The rows as one OTLP/JSON request of one resource and scope."""
    match load.table:
        case "trace_spans":
            names, items = ("resourceSpans", "scopeSpans", "spans"), [span_of(row) for row in rows]
        case "logs":
            names = ("resourceLogs", "scopeLogs", "logRecords")
            items = [log_of(row) for row in rows]
        case _:
            names = ("resourceMetrics", "scopeMetrics", "metrics")
            metric = {"name": "queue.length", "metric_type": "gauge", "unit": "{item}"}
            origin = prepare_metric(metric).as_dict()
            items = [metric_of(origin, [point_of(row, "gauge") for row in rows])]
            rows = [origin]
    resources, scopes, listed = names
    scope = scope_of(rows[0]) | {listed: items}
    return {resources: [resource_of(rows[0]) | {scopes: [scope]}]}


def _as_json(_: str, request: Row) -> bytes:
    return json.dumps(request, separators=(",", ":")).encode()


def _as_protobuf(signal: str, request: Row) -> bytes:
    return as_message(signal, request).SerializeToString()


_INGEST: Final[Mapping[str, tuple[str, Callable[[StoragePool, Any], Any]]]] = {
    "trace_spans": ("traces", ingest_traces),
    "logs": ("logs", ingest_logs),
    "metric_data_points": ("metrics", ingest_metrics),
}


def _otlp(encode: Callable[[str, Row], bytes]) -> Prepare:
    @contextmanager
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
        signal, ingest = _INGEST[load.table]
        parts = batches(load.complete(), batch)
        payloads = [encode(signal, _request(load, rows)) for rows in parts]
        with in_turn(lambda payload: ingest(pool, payload), payloads) as run:
            yield run

    return prepare


def _copied(change: Callable[[Workload], list[Any]]) -> Prepare:
    """`CopyWriter` with rows of another shape."""

    @contextmanager
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
        write = write_at_once(CopyWriter(pool), load.table)
        with in_turn(write, batches(change(load), batch)) as run:
            yield run

    return prepare


def _instances(load: Workload) -> list[Any]:
    return [TABLES[load.table].model(**row) for row in load.rows]


def _with_durations(load: Workload) -> list[Any]:
    """Spans that say how long they took, in place of their end."""
    rows = []
    for row in load.rows:
        rows.append({name: value for name, value in row.items() if name != "end_time"})
        rows[-1]["duration_us"] = (row["end_time"] - row["start_time"]) // MICROSECOND
    return rows


def _with_usage(load: Workload) -> list[Any]:
    """Spans that give tokens and costs of their own."""
    usage = {"prompt_tokens": 140, "completion_tokens": 20, "total_cost_usd": 0.00125}
    return [{**row, **usage} for row in load.rows]


def _buffered(write: Callable[[TraceWriter, Iterable[Row]], object]) -> Prepare:
    @contextmanager
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
        def run() -> list[float]:
            with TraceWriter(pool, WriterConfig(batch_size=batch)) as writer:
                write(writer, load.rows)
            return []

        yield run

    return prepare


def _one_by_one(writer: TraceWriter, rows: Iterable[Row]) -> None:
    for row in rows:
        writer.write_span(row)


def _calls(writer: TraceWriter, rows: Iterable[Row]) -> None:
    for row in rows:
        given = row["attributes"]
        call = LlmSpan(
            model=given["gen_ai.request.model"],
            provider=given["gen_ai.provider.name"],
            name=row["name"],
            trace_id=row["trace_id"],
            span_id=row["span_id"],
            parent_span_id=row["parent_span_id"],
            service_name=row["service_name"],
            start_time=row["start_time"],
            end_time=row["end_time"],
            status=row["status"],
            input_messages=given["gen_ai.input.messages"],
            output_messages=given["gen_ai.output.messages"],
            temperature=given["gen_ai.request.temperature"],
            max_tokens=given["gen_ai.request.max_tokens"],
            response_id=given["gen_ai.response.id"],
            finish_reasons=given["gen_ai.response.finish_reasons"],
            prompt_tokens=given["gen_ai.usage.input_tokens"],
            completion_tokens=given["gen_ai.usage.output_tokens"],
            user_id=given["user.id"],
            session_id=given["gen_ai.conversation.id"],
            resource_attributes=row["resource_attributes"],
        )
        writer.write_span_from_llm(call)


OTLP: Final = (
    Technique("OTLP, JSON", _otlp(_as_json)),
    Technique("OTLP, protobuf", _otlp(_as_protobuf)),
    Technique("CopyWriter, mappings", _copied(lambda load: load.rows)),
)
SHAPES: Final = (
    OTLP[-1],
    Technique("CopyWriter, ORM instances", _copied(_instances)),
    Technique("CopyWriter, own durations", _copied(_with_durations)),
    Technique("CopyWriter, own usage", _copied(_with_usage)),
    Technique("TraceWriter, a list", _buffered(TraceWriter.write_spans)),
    Technique("TraceWriter, one by one", _buffered(_one_by_one)),
    Technique("TraceWriter, LlmSpan", _buffered(_calls)),
)


@dataclass(frozen=True)
class Exported:
    """The medians of several exports of all spans."""

    rows: int
    rows_per_second: float
    client_us: float


def exported(pool: StoragePool, load: Workload, rounds: int) -> Exported:
    """Write the spans, and export all of them several times."""
    ensure_partitions(pool, load.prepared)
    empty(pool, load.table)
    CopyWriter(pool).write_spans(load.rows)
    wall, cpu = [], []
    with own_heap_frozen():
        for _ in range(rounds):
            used = time.process_time()
            wall.append(timed(_export, pool))
            cpu.append(time.process_time() - used)
    count = len(load.rows)
    return Exported(count, count / median(wall), median(cpu) / count * 1e6)


def _export(pool: StoragePool) -> None:
    for _ in export_traces(pool):
        pass
