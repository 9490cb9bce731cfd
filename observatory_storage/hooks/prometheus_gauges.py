"""Gauges of Prometheus. This module needs the extra ``prometheus``."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from observatory_storage.hooks.store_state import Observed, StateReader, process_state

__all__ = ["ProcessCollector", "SharedGauges", "StateCollector"]

_CONNECTIONS: Final = ("storage_pool_connections", "Open connections to PostgreSQL.", ("state",))
_LIMIT: Final = ("storage_pool_connections_max", "The most connections that pools open.", ())
_BUFFER: Final = ("storage_buffer_size", "Rows in buffers of writers.", ("signal",))
_PARTITIONS: Final = ("storage_partitions", "Partitions of a table.", ("schema", "table"))
_AGE: Final = (
    "storage_maintenance_age_seconds",
    "Time since the last run of maintenance ended.",
    ("schema",),
)
_FAILED: Final = (
    "storage_maintenance_failed_steps",
    "Steps that failed in the last run of maintenance.",
    ("schema",),
)
_LAG_BYTES: Final = (
    "storage_replication_lag_bytes",
    "Bytes of the log that the read server has not replayed.",
    ("schema",),
)
_LAG_SECS: Final = (
    "storage_replication_lag_seconds",
    "Time for which the read server has been behind, at most.",
    ("schema",),
)
_UPDATE_SECS: Final = 5.0

_Definition = tuple[str, str, tuple[str, ...]]


def _family(definition: _Definition) -> GaugeMetricFamily:
    name, help_text, labels = definition
    return GaugeMetricFamily(name, help_text, labels=labels)


class ProcessCollector(Collector):
    """Reads the connections and buffers of this process at each scrape."""

    def __init__(self, pools: Iterable[Observed]) -> None:
        self._pools = pools

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families without values, so that registering needs no scrape."""
        return [_family(each) for each in (_CONNECTIONS, _LIMIT, _BUFFER)]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families with their values."""
        state = process_state(list(self._pools))
        connections, limit, buffer = self.describe()
        connections.add_metric(["idle"], state.idle)
        connections.add_metric(["active"], state.active)
        if state.limit is not None:
            limit.add_metric([], state.limit)
        for signal, rows in state.buffered.items():
            buffer.add_metric([signal], rows)
        yield from (connections, limit, buffer)


class StateCollector(Collector):
    """Reads what the database says of itself; yields nothing for one that does not answer."""

    def __init__(self, readers: Mapping[str, StateReader]) -> None:
        self._readers = readers

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families without values, so that registering needs no database."""
        return [_family(each) for each in (_PARTITIONS, _AGE, _FAILED, _LAG_BYTES, _LAG_SECS)]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families with their values."""
        partitions, age, failed, lag_bytes, lag_secs = self.describe()
        for schema, reader in list(self._readers.items()):
            state = reader.read()
            if state is None:
                continue
            for table, number in state.partitions.items():
                partitions.add_metric([schema, table], number)
            if state.maintenance_age_secs is not None and state.failed_steps is not None:
                age.add_metric([schema], state.maintenance_age_secs)
                failed.add_metric([schema], state.failed_steps)
            if state.lag.bytes is not None and state.lag.secs is not None:
                lag_bytes.add_metric([schema], state.lag.bytes)
                lag_secs.add_metric([schema], state.lag.secs)
        yield from (partitions, age, failed, lag_bytes, lag_secs)


class SharedGauges:
    """The connections and buffers of a process, in the files of the multiprocess mode.

    A scrape reaches one process, and reads the files of the others. So each process keeps its
    values current by itself: a thread does that, once the process has used the store.
    """

    def __init__(self, registry: CollectorRegistry, pools: weakref.WeakSet[Observed]) -> None:
        def gauge(definition: _Definition) -> Gauge:
            name, help_text, labels = definition
            return Gauge(name, help_text, labels, registry=registry, multiprocess_mode="livesum")

        self._pools = pools
        self._connections = gauge(_CONNECTIONS)
        self._limit = gauge(_LIMIT)
        self._buffer = gauge(_BUFFER)
        self._pid: int | None = None

    def keep_current(self) -> None:
        """Start the thread of this process, unless it runs."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        weak = weakref.ref(self)
        threading.Thread(
            target=_update_while_used, args=(weak,), name="observatory-gauges", daemon=True
        ).start()

    def update(self) -> None:
        """Set the values of this process."""
        state = process_state(list(self._pools))
        self._connections.labels("idle").set(state.idle)
        self._connections.labels("active").set(state.active)
        if state.limit is not None:
            self._limit.set(state.limit)
        for signal, rows in state.buffered.items():
            self._buffer.labels(signal).set(rows)

    @property
    def is_used(self) -> bool:
        """Whether there is a pool whose values could change."""
        return bool(self._pools)


def _update_while_used(weak: weakref.ref[SharedGauges]) -> None:
    while (gauges := weak()) is not None:
        gauges.update()
        if not gauges.is_used:
            gauges._pid = None  # the next operation starts another thread
            return
        del gauges
        time.sleep(_UPDATE_SECS)
