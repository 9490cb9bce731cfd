"""The metrics of Prometheus, counted from operations and read from pools."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.hooks.store_state import Observed, StateReader
from observatory_storage.operations import StoreOperation, unobserved

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from observatory_storage.hooks.prometheus_gauges import SharedGauges

__all__ = ["PrometheusHook"]

# An INSERT of one row takes a millisecond or two, a COPY of 10,000 half a second; a batch that is
# retried while a server restarts takes as long as the retries.
_WRITE_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
# A trace by its id takes half a millisecond, an aggregate over a month seconds.
_QUERY_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
# An idle connection is taken in some ten microseconds and a new one opened in milliseconds. Above
# that, callers wait for each other.
_ACQUIRE_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
# Steps of maintenance are done within a transaction's time, or take minutes.
_STEP_SECONDS: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)
# COPY is as fast as it gets from 1,000 rows a batch on; `batch_size` is 1,000 by default.
_BATCH_ROWS: Final = (1, 10, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
# A page has 50 rows by default, and at most 1,000; more are read by iterators.
_RESULT_ROWS: Final = (0, 1, 10, 50, 100, 500, 1_000, 10_000, 100_000)


class PrometheusHook:
    """Counts operations for Prometheus, and tells of connections, buffers and maintenance.

    Needs the extra ``prometheus``. One hook serves all pools of a process: add it to each. In
    multiprocess mode (``PROMETHEUS_MULTIPROC_DIR`` is set before ``prometheus_client`` is imported)
    counters and histograms are those of all processes, connections and buffers those of all
    processes that live.

    Example::

        pool = StoragePool.from_env(hooks=[PrometheusHook()])
        prometheus_client.start_http_server(9000)

    Args:
        registry: the registry of the metrics; the default is that of ``prometheus_client``.
        refresh_secs: how long what the database says of itself is kept: partitions, and the last
            maintenance. 0 asks at each scrape.
        timeout_secs: how long a scrape waits for the database. If there is no answer, these metrics
            are absent, and ``storage_scrape_errors_total`` counts it.

    Raises:
        ConfigError: ``prometheus_client`` is not installed.
        ValidationError: a number of seconds is negative, or the timeout is not positive.

    Attributes:
        registry: the registry.
        state_collector: yields what the database says of itself. It is in the registry, except in
            multiprocess mode, where it belongs into the registry that a scrape makes; `exposition`
            does that.
    """

    registry: CollectorRegistry
    state_collector: Collector

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        refresh_secs: float = 15.0,
        timeout_secs: float = 2.0,
    ) -> None:
        if not refresh_secs >= 0:
            raise ValidationError("refresh_secs", refresh_secs, "must not be negative")
        if not timeout_secs > 0:
            raise ValidationError("timeout_secs", timeout_secs, "must be positive")
        try:
            import prometheus_client
            from prometheus_client import values

            from observatory_storage.hooks import prometheus_gauges
        except ModuleNotFoundError as error:
            rule = "PrometheusHook needs the extra: pip install 'observatory-storage[prometheus]'"
            raise ConfigError(rule) from error
        self.registry = prometheus_client.REGISTRY if registry is None else registry
        self.is_multiprocess = bool(getattr(values.ValueClass, "_multiprocess", False))
        self._refresh_secs, self._timeout_secs = refresh_secs, timeout_secs
        self._pools: weakref.WeakSet[Observed] = weakref.WeakSet()
        self._readers: dict[str, StateReader] = {}
        self._make_metrics()
        self._shared: SharedGauges | None = None
        self.state_collector = prometheus_gauges.StateCollector(self._readers)
        if self.is_multiprocess:
            self._shared = prometheus_gauges.SharedGauges(self.registry, self._pools)
        else:
            self.registry.register(prometheus_gauges.ProcessCollector(self._pools))
            self.registry.register(self.state_collector)

    def _make_metrics(self) -> None:
        from prometheus_client import Counter, Histogram

        registry = self.registry

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        def histogram(
            name: str, help_text: str, buckets: tuple[float, ...], *labels: str
        ) -> Histogram:
            return Histogram(name, help_text, labels, registry=registry, buckets=buckets)

        self._write_seconds = histogram(
            "storage_write_duration_seconds",
            "Time to write a batch of rows, retries included.",
            _WRITE_SECONDS,
            *("operation", "table", "method"),
        )
        self._writes = counter(
            "storage_writes_total",
            "Batches of rows that were written, spooled or failed.",
            *("operation", "table", "method", "outcome"),
        )
        self._batch_rows = histogram(
            "storage_batch_size",
            "Rows of a batch that was written or spooled.",
            _BATCH_ROWS,
            *("operation", "table"),
        )
        self._flushes = counter(
            "storage_flushes_total", "Flushes of buffered writers.", "table", "outcome"
        )
        self._rows = counter("storage_items_written_total", "Rows that were committed.", "table")
        self._rejected = counter(
            "storage_items_rejected_total", "Rows that were refused for their data.", "table"
        )
        self._bytes = counter(
            "storage_bytes_sent_total", "Bytes sent for rows, failed attempts included.", "table"
        )
        self._retries = counter(
            "storage_retries_total",
            "Attempts that were repeated after transient errors.",
            *("operation", "table"),
        )
        self._errors = counter(
            "storage_errors_total",
            "Operations that failed, by the class of the error.",
            *("operation", "outcome"),
        )
        self._query_seconds = histogram(
            "storage_query_duration_seconds",
            "Time of a call of a repository.",
            _QUERY_SECONDS,
            *("table", "method"),
        )
        self._query_rows = histogram(
            "storage_query_result_count",
            "Rows that a call of a repository returned or erased.",
            _RESULT_ROWS,
            *("table", "method"),
        )
        self._acquire_seconds = histogram(
            "storage_connection_acquire_duration_seconds",
            "Time to get a connection: waiting for a free one, or opening one.",
            _ACQUIRE_SECONDS,
        )
        self._cache_requests = counter(
            "storage_cache_requests_total", "Requests to the cache.", "kind", "outcome"
        )
        self._step_seconds = histogram(
            "storage_maintenance_step_duration_seconds",
            "Time of a step of maintenance.",
            _STEP_SECONDS,
            "method",
        )
        self._scrape_errors = counter(
            "storage_scrape_errors_total",
            "Scrapes without an answer of the database about partitions and maintenance.",
        )

    def attach(self, pool: Observed) -> None:
        """Tell of the connections, buffers and tables of a pool that the hook was added to."""
        self._pools.add(pool)
        # One of several pools of a schema is enough: the newest, since others may be closed.
        self._readers[pool.schema] = StateReader(
            pool, self._refresh_secs, self._timeout_secs, self._scrape_errors.inc
        )

    def on_operation(self, operation: StoreOperation, /) -> None:
        """Count the operation."""
        if self._shared is not None:
            self._shared.keep_current()
        kind, method = operation.operation, operation.method or ""
        table = operation.table or ""
        if operation.failed:
            self._errors.labels(kind, operation.outcome).inc()
        if kind in ("query", "erase"):
            self._query_seconds.labels(table, method).observe(operation.seconds)
            if not operation.failed:
                self._query_rows.labels(table, method).observe(operation.rows)
        elif kind == "acquire":
            self._acquire_seconds.observe(operation.seconds)
        elif kind in ("flush", "write", "ingest", "replay"):
            self._count_write(operation, table, method)
        elif kind == "cache":
            outcome = "error" if operation.failed else operation.outcome
            self._cache_requests.labels(method, outcome).inc()
        elif kind == "maintain":
            self._step_seconds.labels(method).observe(operation.seconds)

    def _count_write(self, operation: StoreOperation, table: str, method: str) -> None:
        kind, outcome = operation.operation, operation.outcome
        self._writes.labels(kind, table, method, outcome).inc()
        self._write_seconds.labels(kind, table, method).observe(operation.seconds)
        if kind == "flush":
            self._flushes.labels(table, outcome).inc()
        if not operation.failed:
            self._batch_rows.labels(kind, table).observe(operation.rows + operation.rejected)
        if outcome == "ok":
            for name, rows in (operation.rows_by_table or {table: operation.rows}).items():
                self._rows.labels(name).inc(rows)
        if operation.rejected:
            self._rejected.labels(table).inc(operation.rejected)
        if operation.bytes:
            self._bytes.labels(table).inc(operation.bytes)
        if operation.retries:
            self._retries.labels(kind, table).inc(operation.retries)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics for a scrape, and their content type.

        In multiprocess mode, these are the metrics of all processes.

        Args:
            accept: the header ``Accept`` of the request, which may ask for OpenMetrics.
        """
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self.registry
        if self._shared is not None:
            self._shared.update()
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            registry.register(self.state_collector)
        encode, content_type = choose_encoder(accept)
        # Prometheus holds locks that a hook would wait for.
        with unobserved():
            return encode(registry), content_type
