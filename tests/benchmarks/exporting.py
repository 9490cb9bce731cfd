"""Measures what exporting spans costs an application: CPU for each span, and time of requests.

The CPU is that of the whole process with all its threads, from the first span to the last commit,
less that of the same spans with an exporter that does nothing. Requests are sent one after the
other. Both kinds take turns, so that the differences do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Tracer
from rich.console import Console

from observatory_storage import StoragePool
from observatory_storage.models import TraceSpan
from observatory_storage.otel import PostgresSpanExporter
from tests.benchmarks.machine import machine_description
from tests.benchmarks.measure import migrated_pool, percentile
from tests.benchmarks.output import Output

__all__ = ["main"]

_RESOURCE: Final = Resource.create({"service.name": "shop", "deployment.environment.name": "test"})
# As instrumentations of HTTP servers and of LLM clients report them.
_HTTP: Final[dict[str, Any]] = {
    "http.request.method": "POST",
    "url.scheme": "https",
    "url.path": "/v1/questions/4711/answers",
    "http.route": "/v1/questions/{id}/answers",
    "network.protocol.version": "1.1",
    "server.address": "shop.example.com",
    "server.port": 443,
    "client.address": "203.0.113.7",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}
_QUESTION: Final = "Which of the two tariffs is cheaper for a household of three? " * 4
_ANSWER: Final = "With 3,500 kWh a year the second tariff is cheaper by about 84 euros. " * 6
_CALL: Final[dict[str, Any]] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.request.temperature": 0.2,
    "gen_ai.request.max_tokens": 800,
    "server.address": "api.openai.com",
    "server.port": 443,
}
_ANSWERED: Final[dict[str, Any]] = {
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.input_tokens": 412,
    "gen_ai.usage.output_tokens": 118,
    "gen_ai.conversation.id": "conv_5j66UpCpwteGg4YSxUnt7lPY",
}
_ANSWER_SECS: Final = 0.002  # how long a request waits for the LLM
# Without pauses between requests, no application would do anything but make spans, and the queue of
# the SDK, which an application of usual load keeps nearly empty, would fill up.
_PAUSE_SECS: Final = 0.0005


class _NoExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each kind")
    parser.add_argument("--spans", type=int, default=2_000, help="spans in a round")
    parser.add_argument("--requests", type=int, default=200, help="requests in a round")
    arguments = parser.parse_args(given)
    out = Output(Console(highlight=False))
    with migrated_pool() as pool:
        about = machine_description(pool, embedded="DATABASE_URL" not in os.environ)
        out.say(f"{about['machine']}; {about['versions']}")
        _compare_cpu(out, pool, arguments.rounds, arguments.spans)
        _compare_requests(out, pool, arguments.rounds, arguments.requests)


# -- CPU ------------------------------------------------------------------------------------------


def _request(tracer: Tracer) -> None:
    """A trace of two spans: a request to a server that asks an LLM."""
    with tracer.start_as_current_span(
        "POST /v1/questions/{id}/answers", kind=SpanKind.SERVER, attributes=_HTTP
    ) as span:
        _llm_span(tracer)
        span.set_attribute("http.response.status_code", 200)


def _llm_span(tracer: Tracer) -> None:
    with tracer.start_as_current_span(
        "chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=_CALL
    ) as span:
        span.set_attribute("gen_ai.input.messages", _messages("user", _QUESTION))
        span.set_attributes(_ANSWERED)
        span.set_attribute("gen_ai.response.id", f"chatcmpl-{uuid4().hex}")
        span.set_attribute("gen_ai.output.messages", _messages("assistant", _ANSWER))


def _messages(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def _compare_cpu(out: Output, pool: StoragePool, rounds: int, spans: int) -> None:
    cpu: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for is_exported in (number % 2 == 0, number % 2 == 1):
            took = _cpu_of_spans(pool, spans, is_exported=is_exported)
            if number:  # the first round warms up
                cpu[is_exported].append(took / spans * 1e6)
    without, exported = median(cpu[False]), median(cpu[True])
    least = min(cpu[True]) - min(cpu[False])
    out.say(
        f"a span: {without:.1f} µs CPU to make, {exported - without:.1f} µs to export"
        f" (medians of {rounds} rounds of {spans:,} spans; {least:.1f} µs by the least of each)"
    )


def _cpu_of_spans(pool: StoragePool, spans: int, *, is_exported: bool) -> float:
    with pool.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE trace_spans, trace_events, traces"))
    with _tracer(pool, spans, is_exported=is_exported) as tracer:
        gc.collect()
        before = time.process_time()
        for _ in range(spans // 2):
            _request(tracer)
            time.sleep(_PAUSE_SECS)
    took = time.process_time() - before
    stored = spans if is_exported else 0
    with pool.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(TraceSpan)) == stored
    return took


@contextmanager
def _tracer(pool: StoragePool, queue: int, *, is_exported: bool) -> Iterator[Tracer]:
    """A tracer whose spans are exported when the block ends, or before."""
    exporter = PostgresSpanExporter(pool) if is_exported else _NoExporter()
    provider = TracerProvider(resource=_RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=queue + 512))
    yield provider.get_tracer("opentelemetry.instrumentation.shop", "0.66b2")
    provider.shutdown()


# -- requests -------------------------------------------------------------------------------------


class _Requests(ThreadingHTTPServer):
    """Serves requests as an application does that asks an LLM: with an HTTP and an LLM span.

    Attributes:
        tracers: the tracer of each path.
    """

    tracers: dict[str, Tracer]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Requests

    def do_GET(self) -> None:
        tracer = self.server.tracers[self.path]
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes=_HTTP):
            _llm_span(tracer)
            time.sleep(_ANSWER_SECS)
            body = json.dumps({"answer": [_ANSWER] * 20}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
        pass


def _compare_requests(out: Output, pool: StoragePool, rounds: int, requests: int) -> None:
    with (
        _tracer(pool, 2048, is_exported=False) as without,
        _tracer(pool, 2048, is_exported=True) as exported,
        _Requests(("127.0.0.1", 0), _Handler) as server,
    ):
        server.tracers = {"/no-exporter": without, "/exporter": exported}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            times = _times_of_requests(server, rounds, requests)
        finally:
            server.shutdown()
            thread.join()
    for path, taken in times.items():
        p50, p95 = (percentile(taken, percent) * 1e3 for percent in (0.50, 0.95))
        out.say(f"request {path:12} p50 {p50:.3f} ms, p95 {p95:.3f} ms of {len(taken):,} requests")


def _times_of_requests(server: _Requests, rounds: int, requests: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {path: [] for path in server.tracers}
    client = HTTPConnection("127.0.0.1", server.server_port)
    for number in range(rounds + 1):
        for path in sorted(times, reverse=number % 2 == 0):
            for _ in range(requests):
                before = time.perf_counter()
                client.request("GET", path)
                client.getresponse().read()
                if number:  # the first round warms up
                    times[path].append(time.perf_counter() - before)
    client.close()
    return times


if __name__ == "__main__":
    main()
