"""Hooks that come with the package: logs, Prometheus and OpenTelemetry."""

from observatory_storage.hooks.logging_hook import LoggingHook
from observatory_storage.hooks.opentelemetry_hook import OpenTelemetryHook
from observatory_storage.hooks.prometheus_hook import PrometheusHook

__all__ = ["LoggingHook", "OpenTelemetryHook", "PrometheusHook"]
