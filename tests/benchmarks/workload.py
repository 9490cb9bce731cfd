"""The rows that are written. They are created once and are the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from observatory_storage.rows import (
    Row,
    prepare_data_point,
    prepare_log,
    prepare_metric,
    prepare_span,
)
from observatory_storage.tables import TABLES

SPANS_A_TRACE = 10
_WORDS = (
    *("trace", "metric", "latency", "prompt", "answer", "retrieval", "vector", "chunk", "token"),
    *("context", "model", "cache", "region", "customer", "order", "invoice", "refund", "policy"),
    *("shipment", "delay", "summary", "question", "paragraph", "evidence"),
)
_MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4", "llama-3.1-70b")


@dataclass(frozen=True)
class Workload:
    """Rows of one table.

    Attributes:
        name: its name in the report.
        table: the name of the table.
        rows: mappings by column name, as a user would pass them.
        prepared: the same rows, prepared for writing.
    """

    name: str
    table: str
    rows: list[dict[str, Any]]
    prepared: list[Row]

    def complete(self) -> list[dict[str, Any]]:
        """The rows with all columns, for the peers, which complete nothing."""
        return [row.as_dict() for row in self.prepared]

    def first(self, count: int) -> Workload:
        """The workload with its first rows only."""
        return replace(self, rows=self.rows[:count], prepared=self.prepared[:count])

    def tuples(self) -> list[tuple[Any, ...]]:
        columns = TABLES[self.table].columns
        return [tuple(row[column] for column in columns) for row in self.complete()]


def batches(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def wide_spans(count: int) -> Workload:
    """Spans of LLM calls, about 1.5 kB each on the wire, ten a trace."""
    return of_spans("wide LLM spans", list(wide_span_rows(count)))


def wide_span_rows(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """The same spans as a generator."""
    chance = random.Random(seed)
    return _spans(count, chance, lambda: _llm_attributes(chance))


def narrow_spans(count: int, seed: int = 2) -> Workload:
    """Spans with two short attributes, ten a trace."""
    chance = random.Random(seed)
    attributes = {"http.request.method": "GET", "http.response.status_code": 200}
    return of_spans("narrow spans", list(_spans(count, chance, lambda: dict(attributes))))


def moved(spans: Iterable[dict[str, Any]], by: timedelta) -> Iterator[dict[str, Any]]:
    """The spans at another time and with other ids, still ten in a trace."""
    chance = random.Random(by.total_seconds())
    trace_id = ""
    root: str | None = None
    for index, span in enumerate(spans):
        if index % SPANS_A_TRACE == 0:
            trace_id, root = _trace_id(chance), None
        span_id = _span_id(chance)
        yield {
            **span,
            "trace_id": trace_id,
            "span_id": span_id,
            "parent_span_id": root,
            "start_time": span["start_time"] + by,
            "end_time": span["end_time"] + by,
        }
        root = root or span_id


def logs(count: int, seed: int = 3) -> Workload:
    """Log records with a line of text and four attributes."""
    chance = random.Random(seed)
    start = _yesterday()
    rows = [
        {
            "timestamp": start + timedelta(milliseconds=index),
            "severity_number": chance.choice((5, 9, 9, 9, 13, 17)),
            "severity_text": "INFO",
            "body": _text(chance, 120),
            "service_name": f"service-{chance.randrange(8)}",
            "trace_id": _trace_id(chance),
            "span_id": _span_id(chance),
            "attributes": {"code.function": "answer", "thread.id": index % 8, "retry": False},
            "resource_attributes": _RESOURCE,
        }
        for index in range(count)
    ]
    return Workload("logs", "logs", rows, [prepare_log(row) for row in rows])


def data_points(count: int, seed: int = 4) -> Workload:
    """Data points of one gauge."""
    chance = random.Random(seed)
    start = _yesterday()
    metric = prepare_metric({"name": "queue.length", "metric_type": "gauge", "unit": "{item}"})
    rows: list[dict[str, Any]] = [
        {
            "metric_id": metric.values[TABLES["metrics"].position["id"]],
            "timestamp": start + timedelta(milliseconds=index),
            "value": chance.random() * 100,
            "attributes": {"queue": f"queue-{index % 50}"},
        }
        for index in range(count)
    ]
    prepared = [prepare_data_point(row) for row in rows]
    return Workload("data points", "metric_data_points", rows, prepared)


_RESOURCE = {
    "service.name": "assistant",
    "service.version": "2.3.1",
    "deployment.environment.name": "production",
    "host.name": "worker-17",
    "telemetry.sdk.language": "python",
}


def _yesterday() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


def _trace_id(chance: random.Random) -> str:
    return f"{chance.getrandbits(128) | 1:032x}"


def _span_id(chance: random.Random) -> str:
    return f"{chance.getrandbits(64) | 1:016x}"


def of_spans(name: str, rows: list[dict[str, Any]]) -> Workload:
    return Workload(name, "trace_spans", rows, [prepare_span(row) for row in rows])


def _spans(
    count: int, chance: random.Random, attributes: Callable[[], Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    start = _yesterday()
    trace_id = ""
    root: str | None = None
    for index in range(count):
        if index % SPANS_A_TRACE == 0:
            trace_id, root = _trace_id(chance), None
        begin = start + timedelta(milliseconds=index, microseconds=chance.randrange(1000))
        span_id = _span_id(chance)
        yield {
            "trace_id": trace_id,
            "span_id": span_id,
            "parent_span_id": root,
            "name": f"operation-{chance.randrange(12)}",
            "kind": "client",
            "service_name": f"service-{chance.randrange(8)}",
            "start_time": begin,
            "end_time": begin + timedelta(microseconds=chance.randrange(10, 2_000_000)),
            "status": "error" if chance.random() < 0.02 else "ok",
            "attributes": attributes(),
            "resource_attributes": _RESOURCE,
            "scope_name": "benchmark",
            "scope_version": "1.0",
        }
        root = root or span_id


def _llm_attributes(chance: random.Random) -> Mapping[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": chance.choice(_MODELS),
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.response.id": f"chatcmpl-{chance.getrandbits(64):x}",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": chance.randrange(50, 4000),
        "gen_ai.usage.output_tokens": chance.randrange(10, 900),
        "gen_ai.conversation.id": f"session-{chance.randrange(1000)}",
        "user.id": f"user-{chance.randrange(500)}",
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": _text(chance, 240)}]}
        ],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": _text(chance, 240)}]}
        ],
    }


def _text(chance: random.Random, length: int) -> str:
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        words.append(chance.choice(_WORDS))
    return " ".join(words)
