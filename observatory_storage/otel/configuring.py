"""`configure`: traces, metrics and logs of the OpenTelemetry SDK into PostgreSQL, by one call."""

from __future__ import annotations

import atexit
import logging
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.last_resort import LastResort
from observatory_storage.otel.installed import (
    InstalledExporter,
    has_logging_handler,
    installed_exporter,
)
from observatory_storage.otel.log_exporter import PostgresLogExporter
from observatory_storage.otel.metric_exporter import PostgresMetricExporter
from observatory_storage.otel.processors import (
    StoringLogProcessor,
    StoringMetricReader,
    StoringSpanProcessor,
)
from observatory_storage.otel.span_exporter import PostgresSpanExporter
from observatory_storage.shared_pool import shared_pool
from observatory_storage.writers import Source, WriterConfig, process_hooks

__all__ = ["Telemetry", "configure"]

_log = logging.getLogger(__name__)
_P = TypeVar("_P")
_SHUTDOWN_SECS: Final = 30.0
_SDK_ATTRIBUTES: Final = 128
_MOST_ATTRIBUTES: Final = 10_000
_active: Final[list[Telemetry]] = []


class Telemetry:
    """What `configure` has set up. As a context manager, it is shut down at the end of the block.

    When the process ends, it is shut down by itself.
    """

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._processors: list[Any] = []  # and a reader, which is the same for metrics
        self._exits = ExitStack()

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Store all ended spans, the current values of metrics, and all log records.

        While the database is away, they are spooled if there is a spool.

        Returns:
            Whether everything was stored or spooled within the time.
        """
        deadline = time.monotonic() + timeout_millis / 1000
        flushed = True
        for processor in self._processors:
            left = max(0.0, (deadline - time.monotonic()) * 1000)
            flushed = processor.force_flush(left) and flushed
        return flushed

    def shutdown(self) -> None:
        """Store what is left, and export no more. Calling this again has no effect.

        This takes 30 seconds at most, for all signals together.
        """
        self._shut_down(_SHUTDOWN_SECS)

    def shut_down_at_exit(self) -> None:
        """The same, in the time that the process has left to end; not for applications to call."""
        # Writers of the application are closed after it, perhaps on a database that answers.
        self._shut_down(process_hooks.secs_left_at_exit() * 2 / 3)

    def _shut_down(self, within_secs: float) -> None:
        deadline = time.monotonic() + within_secs
        if self in _active:
            _active.remove(self)
        atexit.unregister(self.shut_down_at_exit)
        processors, self._processors = self._processors, []
        with ExitStack() as ends:  # calls all, whatever they raise, and the first of them last
            for left, processor in enumerate(processors, 1):
                ends.callback(_shut_down_processor, processor, deadline, left)
            self._exits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    # -- setting up ------------------------------------------------------------------------------

    def add_traces(self, pool: Source, config: WriterConfig | None) -> None:
        """Export the spans of the global provider."""
        provider = _sdk_provider(trace.get_tracer_provider(), TracerProvider)
        if provider is None:
            provider = TracerProvider(
                resource=self._resource, span_limits=_span_limits(), shutdown_on_exit=False
            )
            trace.set_tracer_provider(provider)
        elif self._reuses(provider, PostgresSpanExporter):
            return
        processor = StoringSpanProcessor(PostgresSpanExporter(pool, config))
        provider.add_span_processor(processor)
        self._processors.append(processor)

    def add_metrics(
        self, pool: Source, config: WriterConfig | None, interval_secs: float | None
    ) -> None:
        """Export the metrics of the global provider."""
        provider = _sdk_provider(metrics.get_meter_provider(), MeterProvider)
        if provider is not None and self._reuses(provider, PostgresMetricExporter):
            return
        millis = None if interval_secs is None else interval_secs * 1000
        reader = StoringMetricReader(PostgresMetricExporter(pool, config), millis)
        if provider is None:
            provider = MeterProvider(
                metric_readers=[reader], resource=self._resource, shutdown_on_exit=False
            )
            metrics.set_meter_provider(provider)
        else:
            provider.add_metric_reader(reader)
        self._processors.append(reader)

    def add_logs(self, pool: Source, config: WriterConfig | None, level: int | str | None) -> None:
        """Export the log records of the global provider, and those of Python's logging."""
        provider = _sdk_provider(get_logger_provider(), LoggerProvider)
        if provider is None:
            provider = LoggerProvider(resource=self._resource, shutdown_on_exit=False)
            set_logger_provider(provider)
        if not self._reuses(provider, PostgresLogExporter):
            processor = StoringLogProcessor(PostgresLogExporter(pool, config))
            provider.add_log_record_processor(processor)
            self._processors.append(processor)
        if level is None:
            return
        if not has_logging_handler(provider):
            self._add_handler(_logging_handler(level, provider))
        # The application's warnings stay on its console, also if it has no handler.
        self._add_handler(LastResort())

    def _add_handler(self, handler: logging.Handler) -> None:
        root = logging.getLogger()
        root.addHandler(handler)
        self._exits.callback(root.removeHandler, handler)

    def _reuses(self, provider: Any, kind: type[Any]) -> bool:
        """Whether a provider stores already, so that another exporter would store it twice."""
        exporter = installed_exporter(provider, kind)
        if exporter is None:
            return False
        _log.warning(
            "the global %s has a %s already: configure() adds none, and uses that one as it is",
            *(type(provider).__name__, kind.__name__),
        )
        self._processors.append(InstalledExporter(provider, exporter))
        return True


def _shut_down_processor(processor: Any, deadline: float, left: int) -> None:
    """Shut down the next processor of those that are left, which share the time evenly."""
    processor.shutdown(max(0.0, deadline - time.monotonic()) * 1000 / left)


def configure(
    pool: Source | None = None,
    *,
    service_name: str | None = None,
    resource_attributes: Mapping[str, Any] | None = None,
    config: WriterConfig | None = None,
    traces: bool = True,
    metrics: bool = True,
    logs: bool = True,
    log_level: int | str | None = "INFO",
    metric_interval_secs: float | None = None,
) -> Telemetry:
    """Store the traces, metrics and logs of this process in PostgreSQL. Needs the extra ``otel``.

    Call it once, before the application makes spans. It sets OpenTelemetry's global providers, so
    that every instrumentation exports into the database. Spans may have 10,000 attributes, unless
    the environment sets another limit (``OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT``). If your application
    has set providers of the SDK before, or ``opentelemetry-instrument`` has, they get an exporter
    more and keep their resource. A provider that has such an exporter already gets no second one,
    and a warning says so: nothing is stored twice. If `configure` was called before, it changes
    nothing and returns what the first call returned.

    Example::

        from observatory_storage.otel import configure

        configure(service_name="assistant")

    Args:
        pool: the pool to write to. The default is a pool with the settings of the environment
            (``DATABASE_URL``). It connects on first use.
        service_name: the name of the service. The default is that of the environment
            (``OTEL_SERVICE_NAME``).
        resource_attributes: further attributes of the resource, such as
            ``{"deployment.environment.name": "production"}``.
        config: how the exporters buffer, and their spool; see `PostgresSpanExporter`.
        traces: whether spans are exported.
        metrics: whether metrics are exported.
        logs: whether log records are exported.
        log_level: the records of Python's `logging` from this level on become log records, if their
            logger lets them pass. None: only records that are emitted through OpenTelemetry. It has
            no effect if the root logger has a handler of OpenTelemetry, which is used then.
            Warnings and errors that no handler of the application shows go to stderr.
        metric_interval_secs: the seconds between two exports of metrics. The default is that of the
            environment (``OTEL_METRIC_EXPORT_INTERVAL``, in milliseconds), or 60.

    Raises:
        ConfigError: there is no pool, and a setting of the environment is missing or invalid; or a
            global provider is set that is not the SDK's.
        ValidationError: an argument is not valid.
        StorageError: the directory of the spool cannot be used.
    """
    if _active:
        _log.warning("configure() was called before: this call changes nothing")
        return _active[0]
    _check(service_name, log_level, metric_interval_secs)
    source: Source = shared_pool() if pool is None else pool
    named = {} if service_name is None else {SERVICE_NAME: service_name}
    telemetry = Telemetry(Resource.create({**(resource_attributes or {}), **named}))
    try:
        if traces:
            telemetry.add_traces(source, config)
        if metrics:
            telemetry.add_metrics(source, config, metric_interval_secs)
        if logs:
            telemetry.add_logs(source, config, log_level)
    except BaseException:
        telemetry.shutdown()
        raise
    _active.append(telemetry)
    atexit.register(telemetry.shut_down_at_exit)
    return telemetry


def _check(service_name: Any, log_level: Any, interval: Any) -> None:
    if service_name is not None and (not isinstance(service_name, str) or not service_name):
        raise ValidationError("service_name", service_name, "must be a name")
    if isinstance(log_level, str) and log_level.upper() not in logging.getLevelNamesMapping():
        raise ValidationError("log_level", log_level, "must be the name of a level of logging")
    if interval is not None and not (isinstance(interval, (int, float)) and interval > 0):
        raise ValidationError("metric_interval_secs", interval, "must be a number above 0, or None")


def _sdk_provider(current: Any, kind: type[_P]) -> _P | None:
    """The global provider; None if there is none yet.

    Raises:
        ConfigError: it is not the SDK's, so that nothing can be added to it.
    """
    if isinstance(current, kind):
        return current
    # The API stands in for a provider that is not set by a class of its own.
    if type(current).__module__.startswith("opentelemetry.") and "Proxy" in type(current).__name__:
        return None
    name = f"{type(current).__module__}.{type(current).__qualname__}"
    raise ConfigError(f"the global {kind.__name__} is {name}: it takes no exporter of the SDK")


def _span_limits() -> SpanLimits:
    """Room for the attributes of long conversations, unless the environment sets another limit.

    The SDK keeps 128 attributes and drops the oldest. OpenInference has several for each message,
    so that a long conversation would lose its provider and its first messages.
    """
    limits = SpanLimits()  # those of the environment
    if limits.max_span_attributes == _SDK_ATTRIBUTES:
        return SpanLimits(max_span_attributes=_MOST_ATTRIBUTES)
    return limits


def _logging_handler(level: int | str, provider: LoggerProvider) -> logging.Handler:
    """OpenTelemetry's own handler, which moves from the SDK to a package of its own."""
    try:
        module = import_module("opentelemetry.instrumentation.logging.handler")
    except ImportError:
        module = import_module("opentelemetry.sdk._logs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        handler: logging.Handler = module.LoggingHandler(logger_provider=provider)
    handler.setLevel(level.upper() if isinstance(level, str) else level)
    return handler
