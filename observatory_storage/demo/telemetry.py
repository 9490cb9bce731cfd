"""OpenTelemetry for one service of the demo: the providers of the SDK with simulated time.

Your application would use ``start_as_current_span`` and the clock of the SDK. Here days pass within
seconds, so every start, end and timestamp is passed. Everything else is as in a real application.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import baggage, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AnyValue, AttributeValue

from observatory_storage.demo.outbox import Outbox
from observatory_storage.demo.simulated import Clock, MetricTimes

__all__ = ["NETWORK_SECS", "PROPAGATOR", "Service", "trace_headers"]

# Trace context and baggage travel in the headers of every call between services.
PROPAGATOR = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

NETWORK_SECS = 0.0007  # one way between two services
_SCOPE = "observatory_storage.demo"
_VERSION = "1.0.0"
_DELTA: dict[type, AggregationTemporality] = {
    Counter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
}


class Service:
    """One process of the application: its tracer, its meter, its log and its resource."""

    def __init__(
        self, name: str, clock: Clock, outbox: Outbox, *, seed: int, delta: bool = False
    ) -> None:
        self.name = name
        self.clock = clock
        resource = Resource.create(
            {
                "service.name": name,
                "service.version": _VERSION,
                "service.namespace": "demo",
                "deployment.environment.name": "demo",
            }
        )
        self._tracers = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource,
            shutdown_on_exit=False,
            id_generator=_RepeatableIds(name, seed),
        )
        self._tracers.add_span_processor(_BaggageToAttributes())
        self._tracers.add_span_processor(SimpleSpanProcessor(outbox.span_exporter))
        self._logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._logs.add_log_record_processor(SimpleLogRecordProcessor(outbox.log_exporter))
        self._reader = InMemoryMetricReader(preferred_temporality=_DELTA if delta else None)
        self._meters = MeterProvider(
            metric_readers=[self._reader],
            resource=resource,
            shutdown_on_exit=False,
            views=[
                View(
                    instrument_name="http.server.request.duration",
                    aggregation=ExponentialBucketHistogramAggregation(),
                )
            ],
        )
        self._metric_times = MetricTimes(clock.now)
        self._outbox = outbox
        self._tracer = self._tracers.get_tracer(_SCOPE, _VERSION)
        self.meter = self._meters.get_meter(_SCOPE, _VERSION)
        self.events = self._logs.get_logger(_SCOPE, _VERSION)
        # Not by getLogger, since its loggers belong to the whole process.
        self.log = logging.Logger(f"{_SCOPE}.{name}")  # noqa: LOG001 - see above
        self.log.addHandler(_ToOpenTelemetry(self._logs, clock))

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Iterator[trace.Span]:
        """A span for the block. It records an exception that leaves the block."""
        span = self._tracer.start_span(
            name,
            context=context,
            kind=kind,
            attributes=attributes,
            links=links,
            start_time=self.clock.now,
        )
        # Attach the whole context, since it has the baggage of the request.
        token = attach(trace.set_span_in_context(span, context))
        try:
            yield span
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)
            span.record_exception(error, timestamp=self.clock.now)
            span.set_status(Status(StatusCode.ERROR, str(error)))
            raise
        finally:
            detach(token)
            span.end(self.clock.now)

    @contextmanager
    def serving(
        self, route: str, headers: Mapping[str, str], *, links: Sequence[Link] = ()
    ) -> Iterator[trace.Span]:
        """The span of a request to this service, in the trace that the headers name."""
        method, path = route.split(" ", 1)
        attributes = {"http.request.method": method, "http.route": path, "url.scheme": "http"}
        # An empty context: a real process knows only the headers.
        context = PROPAGATOR.extract(headers, context=Context())
        with self.span(
            route, attributes, kind=SpanKind.SERVER, context=context, links=links
        ) as span:
            yield span

    @contextmanager
    def calling(self, route: str, server: str) -> Iterator[dict[str, str]]:
        """The span of a request to another service. Yields the headers that carry the trace."""
        method, path = route.split(" ", 1)
        attributes = {
            "http.request.method": method,
            "url.full": f"http://{server}{path}",
            "server.address": server,
        }
        with self.span(method, attributes, kind=SpanKind.CLIENT):
            self.clock.sleep(NETWORK_SECS)
            try:
                yield trace_headers()
            finally:
                self.clock.sleep(NETWORK_SECS)

    def event(self, name: str, attributes: Mapping[str, AttributeValue], body: AnyValue) -> None:
        """Emit an OpenTelemetry event: a log record with a name, here with a structured body."""
        self.events.emit(
            timestamp=self.clock.now,
            observed_timestamp=self.clock.now,
            context=get_current(),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            event_name=name,
            attributes=attributes,
            body=body,
        )

    def collect_metrics(self) -> None:
        """Collect the metrics, as a periodic reader does every minute."""
        data = self._reader.get_metrics_data()
        if data is not None:
            self._outbox.take_metrics(self._metric_times.applied(data, self.clock.now))

    def shutdown(self) -> None:
        """Shut down the providers."""
        self._tracers.shutdown()
        self._logs.shutdown()
        self._meters.shutdown()


def trace_headers() -> dict[str, str]:
    """The headers that carry the current trace and its baggage to another service."""
    headers: dict[str, str] = {}
    PROPAGATOR.inject(headers)
    return headers


class _BaggageToAttributes(SpanProcessor):
    """Copies the user and the session from the baggage to every span of the request."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for key in ("user.id", "session.id"):
            value = baggage.get_baggage(key, parent_context)
            if isinstance(value, str):
                span.set_attribute(key, value)


class _ToOpenTelemetry(logging.Handler):
    """Passes records of standard logging to OpenTelemetry, within the current span."""

    def __init__(self, provider: LoggerProvider, clock: Clock) -> None:
        super().__init__()
        self._provider = provider
        self._clock = clock

    def emit(self, record: logging.LogRecord) -> None:
        self._provider.get_logger(record.name).emit(
            timestamp=self._clock.now,
            observed_timestamp=self._clock.now,
            context=get_current(),
            severity_number=_SEVERITIES[record.levelno],
            severity_text=record.levelname,
            body=record.getMessage(),
            attributes={"code.function.name": record.funcName or "", **getattr(record, "with", {})},
            exception=record.exc_info[1] if record.exc_info else None,
        )


_SEVERITIES = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class _RepeatableIds(IdGenerator):
    """Random ids that are the same in every run with the same seed."""

    def __init__(self, service: str, seed: int) -> None:
        self._random = random.Random(f"{seed} {service}")

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self._random.getrandbits(128) or 1
