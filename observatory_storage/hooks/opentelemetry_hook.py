"""Operations as metrics and spans of OpenTelemetry.

Names are those of the semantic conventions for database clients, where they have one:
https://opentelemetry.io/docs/specs/semconv/db/database-metrics/
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from observatory_storage.errors import ConfigError
from observatory_storage.hooks.store_state import Observed, process_state
from observatory_storage.operations import StoreOperation
from observatory_storage.suppression import is_hook_suppressed

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

__all__ = ["OpenTelemetryHook"]

_SCOPE: Final = "observatory_storage"
_SYSTEM: Final = {"db.system.name": "postgresql"}
_WRITES: Final = ("flush", "write", "ingest", "replay")
# The buckets that the semantic conventions advise for both.
_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_ROWS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


class OpenTelemetryHook:
    """Records operations as metrics of OpenTelemetry, and as spans within traces.

    Needs the extra ``otel``, or ``opentelemetry-api`` with an SDK of your choice. An operation
    becomes a span only if a span of your application is current. So flushes of background threads,
    and what an exporter writes into this same store, start no traces that would be exported in
    turn. In a context that suppresses instrumentation, nothing is recorded.

    Example::

        pool = StoragePool.from_env(hooks=[OpenTelemetryHook()])

    Args:
        meter_provider: where metrics are recorded; the default is the global one.
        tracer_provider: where spans are recorded; the default is the global one.
        spans: whether spans are recorded.

    Raises:
        ConfigError: OpenTelemetry's API is not installed.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        *,
        spans: bool = True,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ModuleNotFoundError as error:
            rule = "OpenTelemetryHook needs the extra: pip install 'observatory-storage[otel]'"
            raise ConfigError(rule) from error
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider) if spans else None
        self._pools: weakref.WeakSet[Observed] = weakref.WeakSet()
        self._make_metrics(metrics.get_meter(_SCOPE, meter_provider=meter_provider))

    def _make_metrics(self, meter: Meter) -> None:
        self._durations = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._returned = meter.create_histogram(
            "db.client.response.returned_rows",
            "{row}",
            "The actual number of records returned by the database operation.",
            explicit_bucket_boundaries_advisory=_ROWS,
        )
        self._waits = meter.create_histogram(
            "db.client.connection.wait_time",
            "s",
            "The time it took to obtain an open connection from the pool.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._rows = meter.create_counter(
            "observatory_storage.written_rows", "{row}", "Rows that were committed."
        )
        self._rejected = meter.create_counter(
            "observatory_storage.rejected_rows", "{row}", "Rows that were refused for their data."
        )
        self._retries = meter.create_counter(
            "observatory_storage.retries",
            "{attempt}",
            "Attempts that were repeated after transient errors.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.count",
            [self._connections],
            "{connection}",
            "The number of connections that are currently in state described by the state"
            " attribute.",
        )
        meter.create_observable_up_down_counter(
            "observatory_storage.buffered_rows",
            [self._buffered],
            "{row}",
            "Rows in buffers of writers.",
        )

    def attach(self, pool: Observed) -> None:
        """Observe the connections and buffers of a pool that the hook was added to."""
        self._pools.add(pool)

    def on_operation(self, operation: StoreOperation, /) -> None:
        """Record the operation."""
        if is_hook_suppressed():
            return
        if operation.operation == "acquire":
            failure = {"error.type": operation.outcome} if operation.failed else {}
            self._waits.record(operation.seconds, {**_pool_name(), **failure})
            return
        attributes = _attributes(operation)
        self._durations.record(operation.seconds, attributes)
        table = {"db.collection.name": operation.table} if operation.table else {}
        if operation.operation == "query" and not operation.failed:
            self._returned.record(operation.rows, attributes)
        elif operation.operation in _WRITES:
            self._count_rows(operation, table)
        if operation.retries:
            self._retries.add(operation.retries, table)
        if self._tracer is not None:
            self._record_span(operation, attributes)

    def _count_rows(self, operation: StoreOperation, table: dict[str, str]) -> None:
        if operation.outcome == "ok":
            for name, rows in (operation.rows_by_table or {}).items():
                self._rows.add(rows, {"db.collection.name": name})
            if operation.rows_by_table is None:
                self._rows.add(operation.rows, table)
        if operation.rejected:
            self._rejected.add(operation.rejected, table)

    def _record_span(self, operation: StoreOperation, attributes: dict[str, Any]) -> None:
        from opentelemetry import trace

        assert self._tracer is not None
        if not trace.get_current_span().is_recording():
            return
        end = time.time_ns()
        begin = end - int(operation.seconds * 1e9)
        known = dict(attributes)
        if operation.operation in _WRITES:
            known["db.operation.batch.size"] = operation.rows + operation.rejected
        elif not operation.failed:
            known["db.response.returned_rows"] = operation.rows
        span = self._tracer.start_span(
            attributes["db.query.summary"],
            kind=trace.SpanKind.CLIENT,
            attributes=known,
            start_time=begin,
        )
        if operation.failed:
            span.set_status(trace.StatusCode.ERROR)
        span.end(end)

    def _connections(self, _: CallbackOptions) -> Iterator[Observation]:
        from opentelemetry.metrics import Observation

        state = process_state(list(self._pools))
        for name, number in (("idle", state.idle), ("used", state.active)):
            yield Observation(number, {**_pool_name(), "db.client.connection.state": name})

    def _buffered(self, _: CallbackOptions) -> Iterator[Observation]:
        from opentelemetry.metrics import Observation

        for signal, rows in process_state(list(self._pools)).buffered.items():
            yield Observation(rows, {"observatory_storage.signal": signal})


def _pool_name() -> dict[str, str]:
    return {"db.client.connection.pool.name": _SCOPE}


def _attributes(operation: StoreOperation) -> dict[str, Any]:
    words = (operation.operation, operation.method, operation.table)
    # Of a query the method says it all: "list traces".
    summary = words[1:] if operation.operation in ("query", "erase", "maintain") else words
    attributes = {
        **_SYSTEM,
        "db.operation.name": operation.operation,
        "db.query.summary": " ".join(word for word in summary if word),
    }
    if operation.table:
        attributes["db.collection.name"] = operation.table
    if operation.failed:
        attributes["error.type"] = operation.outcome
    return attributes
